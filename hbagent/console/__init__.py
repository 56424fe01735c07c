"""The full-screen console: a datacenter at a glance, and every node a key press away.

What is shown is computed apart from where it is shown. `model` holds what was answered, `panes`, `racks` and `pages`
turn it into lines of text with tones, all without a terminal; `feed` asks in threads of its own; `app` and `widgets`
alone know textual, which is an extra, so nothing else may import them.
"""

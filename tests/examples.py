"""How many examples a test of its own pace tries: its share of what the profile of this run has for the others."""

from __future__ import annotations

import hypothesis

#: What hypothesis tries of each test by default.
DEFAULT = 100


def examples(full: int) -> int:
    """How many of `full` examples this run tries."""
    here: int = hypothesis.settings().max_examples
    return full * here // DEFAULT

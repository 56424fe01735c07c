"""systemd of a host: asked and told, with a list of what was done, a sentence each."""

from __future__ import annotations

import subprocess


class Failed(Exception):
    """The host does not do what it should; the text says what, and what it said to that."""


class Systemd:
    """That of the host on which a module runs."""

    def __init__(self, module):
        self.module = module
        self.changes = []
        self.systemctl = module.get_bin_path("systemctl", required=True)

    def change(self, sentence):
        """Say what is done now; False in a dry run, in which saying it is all."""
        self.changes.append(sentence)
        return not self.module.check_mode

    def told(self, *words, check=True):
        """What systemctl prints. Raises Failed with what it complains of, unless that is no matter."""
        done = subprocess.run((self.systemctl, *words), capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise Failed("systemctl {}: {}".format(" ".join(words), done.stderr.strip()))
        return done.stdout

    def properties(self, unit, names):
        """These properties of a unit, as text."""
        lines = self.told("show", "--property=" + ",".join(names), unit).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

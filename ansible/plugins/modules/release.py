"""A release on this host: a virtual environment of its own, and the link that says which one is in use.

A release is made aside, with a mark that is written last, and takes its place by a rename; anything else is an
interrupted install and is made anew. So a daemon that runs never misses its files. Nothing here needs a network, or
anything beside Python itself.
"""

from __future__ import annotations

DOCUMENTATION = """
module: release
short_description: Install a release of hbagent from wheels, and choose it
version_added: 0.1.0
author: hbagent (@hbagent)
description:
  - Makes F(releases/VERSION) below the prefix, a virtual environment with compiled bytecode, unless it is there.
  - Points F(current) at it, copies files out of it, makes links into it, and takes away releases that are older.
options:
  version:
    description: Which release is to be in use.
    type: str
    required: true
  wheelhouse:
    description: Directory of wheels on the controller. Without it the release has to be on the host.
    type: path
    default: ""
  prefix:
    description: Where releases lie.
    type: path
    default: /opt/hbagent
  python:
    description: Python that the virtual environment is made with, 3.10 or newer.
    type: path
    default: /usr/bin/python3
  keep:
    description: Old releases that are kept beside the one in use.
    type: int
    default: 2
  copies:
    description: Files that are copied out of the release, by their destination.
    type: dict
    default: {}
  links:
    description: Links into F(current), by their destination.
    type: dict
    default: {}
  choose:
    description: Point F(current) at the release, and bring copies and links up to it.
    type: bool
    default: true
  digest:
    description: Set by the action.
    type: str
    default: ""
  archive:
    description: Set by the action.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Says whether it would install or choose a release.
"""

EXAMPLES = """
- name: Install
  become: true
  hbagent.hbagent.release:
    version: 0.1.0
    wheelhouse: dist/wheelhouse
    links:
      /usr/local/bin/hbagent: bin/hbagent
"""

RETURN = """
before:
  description: The release that was in use, empty when there was none.
  type: str
  returned: always
releases:
  description: Releases that are installed.
  type: list
  elements: str
  returned: always
"""

import configparser  # noqa: E402
import hashlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import re  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import tarfile  # noqa: E402
import tempfile  # noqa: E402
import zipfile  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

MARK = "complete.json"
PINS = "constraints.txt"
COMMAND = """\
#!%s/bin/python
import sys

from %s import %s

if __name__ == "__main__":
    sys.exit(%s())
"""
COMPLETIONS = {
    "bash": "share/bash-completion/completions/hbagent",
    "zsh": "share/zsh/site-functions/_hbagent",
    "fish": "share/fish/vendor_completions.d/hbagent.fish",
}


class Host:
    """Releases below a prefix."""

    def __init__(self, module):
        self.module = module
        self.prefix = module.params["prefix"]
        self.releases = os.path.join(self.prefix, "releases")
        self.current = os.path.join(self.prefix, "current")
        self.version = module.params["version"]
        self.directory = os.path.join(self.releases, self.version)
        self.draft = os.path.join(self.releases, f".{self.version}.draft")
        self.old = os.path.join(self.releases, f".{self.version}.old")
        self.changes = []

    def chosen(self):
        """The release in use."""
        try:
            return os.path.basename(os.readlink(self.current))
        except OSError:
            return ""

    def mark(self, version):
        """What is known of a release that is complete, or None."""
        try:
            with open(os.path.join(self.releases, version, MARK), encoding="utf-8") as file:
                mark = json.load(file)
        except (OSError, ValueError):
            return None
        python = os.path.join(self.releases, version, "bin", "python")
        # The Python that it was made with may be gone after an upgrade of the host.
        return mark if isinstance(mark, dict) and os.path.exists(python) else None

    def complete(self):
        """Releases that are complete, the newest first."""
        try:
            names = os.listdir(self.releases)
        except OSError:
            return []
        marked = [name for name in names if not name.startswith(".") and self.mark(name) is not None]
        return sorted(marked, key=lambda name: os.path.getmtime(os.path.join(self.releases, name, MARK)), reverse=True)

    def needs_wheels(self):
        mark = self.mark(self.version)
        digest = self.module.params["digest"]
        return mark is None or bool(digest and mark.get("digest") != digest)

    def install(self, archive):
        """Make the release anew from an archive of wheels, aside, and put it in its place."""
        self.changes.append(f"installed {self.version}")
        os.makedirs(self.releases, mode=0o755, exist_ok=True)
        for directory in (self.prefix, self.releases):
            os.chmod(directory, 0o755)
        for aside in (self.draft, self.old):
            if os.path.lexists(aside):
                shutil.rmtree(aside)
        wheels = tempfile.mkdtemp(dir=self.module.tmpdir)
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                if not member.isfile() or os.path.basename(member.name) != member.name:
                    self.module.fail_json(msg=f"{member.name} is not what an archive of wheels holds")
                with tar.extractfile(member) as source, open(os.path.join(wheels, member.name), "wb") as target:
                    shutil.copyfileobj(source, target)
        digest = self.check(wheels)
        # Without pip: nothing but Python is needed on the host, and nothing else can be installed in a release.
        self.run(self.module.params["python"], "-m", "venv", "--without-pip", self.draft)
        # Scripts for shells, with the path where it is made.
        for name in os.listdir(os.path.join(self.draft, "bin")):
            if name.lower().startswith("activate"):
                os.unlink(os.path.join(self.draft, "bin", name))
        python = os.path.join(self.draft, "bin", "python")
        site = self.run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        for name in sorted(os.listdir(wheels)):
            if name.endswith(".whl"):
                self.unpack(os.path.join(wheels, name), site)
        # A daemon without compiled bytecode takes 5 MiB more, and could never write it.
        self.run(python, "-m", "compileall", "-q", "-s", self.draft, "-p", self.directory, site)
        hbagent = os.path.join(self.draft, "bin", "hbagent")
        for shell, name in COMPLETIONS.items():
            path = os.path.join(self.draft, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(self.run(python, hbagent, "completion", shell))
        # Files first, and the mark after them: power that goes in between leaves an install that is not complete.
        os.sync()
        with open(os.path.join(self.draft, MARK), "w", encoding="utf-8") as file:
            json.dump({"version": self.version, "digest": digest}, file)
        if os.path.lexists(self.directory):
            os.rename(self.directory, self.old)
        os.rename(self.draft, self.directory)
        os.sync()
        if os.path.lexists(self.old):
            shutil.rmtree(self.old)

    def check(self, wheels):
        """Refuse what is not pinned by its hash; the hash of hbagent's own wheel."""
        with open(os.path.join(wheels, PINS), encoding="utf-8") as file:
            pinned = set(re.findall(r"sha256:([0-9a-f]{64})", file.read()))
        own = f"hbagent-{self.version}-py3-none-any.whl"
        for name in sorted(os.listdir(wheels)):
            known = name in (PINS, own) or digest_of(os.path.join(wheels, name)) in pinned
            if not known:
                self.module.fail_json(msg=f"{name} is not the file that {PINS} pins: make the wheelhouse anew")
        digest = digest_of(os.path.join(wheels, own))
        if digest != self.module.params["digest"]:
            self.module.fail_json(msg=f"{own} changed on its way")
        return digest

    def unpack(self, wheel, site):
        """Put the files of a wheel where they belong, with its commands."""
        places = {"purelib": site, "platlib": site, "data": self.draft}
        places["scripts"] = os.path.join(self.draft, "bin")
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.infolist():
                parts = entry.filename.split("/")
                if entry.is_dir():
                    continue
                if entry.filename.startswith("/") or ".." in parts:
                    self.module.fail_json(msg=f"{wheel} holds a file {entry.filename}")
                place = site
                if parts[0].endswith(".data"):
                    place, parts = places.get(parts[1]), parts[2:]
                if place is None:
                    continue
                path = os.path.join(place, *parts)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with archive.open(entry) as source, open(path, "wb") as target:
                    shutil.copyfileobj(source, target)
                os.chmod(path, 0o755 if entry.external_attr >> 16 & 0o111 else 0o644)
            points = [name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")]
            for name in points:
                self.commands(archive.read(name).decode("utf-8"))

    def commands(self, text):
        """The commands of a package, on this release's Python."""
        parser = configparser.ConfigParser(delimiters=("=",))
        parser.optionxform = str
        parser.read_string(text)
        if not parser.has_section("console_scripts"):
            return
        for name, target in parser.items("console_scripts"):
            module, _, function = target.partition(":")
            path = os.path.join(self.draft, "bin", name)
            with open(path, "w", encoding="utf-8") as file:
                file.write(COMMAND % (self.directory, module, function, function))
            os.chmod(path, 0o755)

    def run(self, *command):
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": self.module.tmpdir}
        environment["TMPDIR"] = self.module.tmpdir
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            words = " ".join(command[:4])
            self.module.fail_json(msg=f"{words}: {(done.stderr or done.stdout).strip()[-2000:]}")
        return done.stdout

    def choose(self):
        """Point `current` at the release; one rename, so that there is always one."""
        target = os.path.join("releases", self.version)
        try:
            same = os.readlink(self.current) == target
        except OSError:
            same = False
        if same:
            return
        self.changes.append(f"chose {self.version}")
        if not self.module.check_mode:
            replace_link(self.current, target)

    def bring(self, copies, links):
        """Files and links outside of the prefix that belong to the release."""
        for destination, source in sorted(copies.items()):
            path = os.path.join(self.directory, source)
            if not os.path.exists(path):
                if self.module.check_mode:
                    continue
                self.module.fail_json(msg=f"release {self.version} has no {source}")
            if os.path.isfile(destination) and not os.path.islink(destination) and same_file(path, destination):
                continue
            self.changes.append(f"wrote {destination}")
            if not self.module.check_mode:
                os.makedirs(os.path.dirname(destination), mode=0o755, exist_ok=True)
                draft = os.path.join(os.path.dirname(destination), f".{os.path.basename(destination)}.new")
                shutil.copyfile(path, draft)
                os.chmod(draft, (os.stat(path).st_mode & 0o111 and 0o755) or 0o644)
                os.rename(draft, destination)
        for destination, target in sorted(links.items()):
            wanted = os.path.join(self.current, target)
            if os.path.islink(destination) and os.readlink(destination) == wanted:
                continue
            if os.path.lexists(destination) and not os.path.islink(destination):
                self.module.fail_json(msg=f"{destination} is there and is no link: take it away")
            self.changes.append(f"linked {destination}")
            if not self.module.check_mode:
                os.makedirs(os.path.dirname(destination), mode=0o755, exist_ok=True)
                replace_link(destination, wanted)

    def prune(self, keep):
        """Take away all but the release in use and the newest of the others."""
        try:
            names = os.listdir(self.releases)
        except OSError:
            return
        here = {self.chosen(), self.version}
        kept = [name for name in self.complete() if name not in here][:keep]
        for name in sorted(names):
            if name not in here and name not in kept:
                self.changes.append(f"removed {name}")
                if not self.module.check_mode:
                    shutil.rmtree(os.path.join(self.releases, name))


def replace_link(path, target):
    draft = f"{path}.new"
    if os.path.lexists(draft):
        os.unlink(draft)
    os.symlink(target, draft)
    os.rename(draft, path)


def same_file(one, other):
    with open(one, "rb") as first, open(other, "rb") as second:
        return first.read() == second.read()


def digest_of(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def glibc():
    name, version = platform.libc_ver()
    parts = version.split(".") if name == "glibc" else []
    return [int(part) for part in parts[:2]] if len(parts) >= 2 else [0, 0]


def main():
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "wheelhouse": {"type": "path", "default": ""},
            "prefix": {"type": "path", "default": "/opt/hbagent"},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "keep": {"type": "int", "default": 2},
            "copies": {"type": "dict", "default": {}},
            "links": {"type": "dict", "default": {}},
            "choose": {"type": "bool", "default": True},
            "digest": {"type": "str", "default": ""},
            "archive": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    host = Host(module)
    before = host.chosen()
    needs = host.needs_wheels()
    answer = {"before": before, "releases": host.complete(), "needs_wheels": False}
    if needs and not module.params["archive"]:
        asked = "import sys; print('%d.%d' % sys.version_info[:2])"
        answer["python"] = host.run(module.params["python"], "-c", asked).strip()
        host.run(module.params["python"], "-c", "import venv")
        answer.update(needs_wheels=True, machine=platform.machine(), glibc=glibc(), changed=True)
        module.exit_json(**answer)
    if needs:
        host.install(module.params["archive"])
    if module.params["choose"]:
        host.choose()
        host.bring(module.params["copies"], module.params["links"])
        host.prune(module.params["keep"])
    answer.update(changed=bool(host.changes), changes=host.changes, releases=host.complete())
    module.exit_json(**answer)


if __name__ == "__main__":
    main()

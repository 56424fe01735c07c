"""A release on this host: a virtual environment of its own, and the link that says which one is in use.

A release is made aside, with a mark that is written last, and takes its place by a rename; anything else is an
interrupted install and is made anew, and so is one whose Python became another. A daemon that runs never misses its
files: what it was started from stays until nothing runs from it. Nothing here needs a network, or anything beside
Python itself.
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
  extras:
    description: What this host needs beside the rest, such as C(postgres); each has pins of its own in the wheelhouse.
    type: list
    elements: str
    default: []
  prefix:
    description: Where releases lie.
    type: path
    default: /opt/hbagent
  python:
    description: Python that the virtual environment is made with, 3.10 or newer. Another one makes the release anew.
    type: path
    default: /usr/bin/python3
  keep:
    description:
      - Old releases that are kept beside the one in use, those that were in use last.
      - The one that was in use before, and what daemons still run from, are kept in any case.
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
  packages:
    description: Set by the action.
    type: list
    elements: str
    default: []
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
import contextlib  # noqa: E402
import ctypes  # noqa: E402
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
#: Of a Debian package, which has its own way of choosing a release.
PACKAGE = "package"
#: Of the kernel's renameat2(2).
AT_FDCWD = -100
RENAME_EXCHANGE = 2
#: Where an interpreter has the packages of a virtual environment, below it.
SITE = "import sysconfig; print(sysconfig.get_path('purelib', 'posix_prefix', {'base': ''}).strip('/'))"
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
        self.before = self.chosen()
        self.changes = []
        self._sites = {}

    def chosen(self):
        """The release in use."""
        try:
            return os.path.basename(os.readlink(self.current))
        except OSError:
            return ""

    def mark(self, name):
        """What is known of a release that is complete, or None."""
        release = os.path.join(self.releases, name)
        try:
            with open(os.path.join(release, MARK), encoding="utf-8") as file:
                mark = json.load(file)
        except (OSError, ValueError):
            return None
        if not isinstance(mark, dict) or mark.get("machine", platform.machine()) != platform.machine():
            return None
        # The Python that it was made with may be gone after an upgrade of the host, or look elsewhere for packages.
        site = self.site(os.path.join(release, "bin", "python"))
        return mark if site and os.path.isdir(os.path.join(release, site, "hbagent")) else None

    def site(self, python):
        """Where an interpreter looks for packages, below a virtual environment; "" when it does not run."""
        python = os.path.realpath(python)
        if python not in self._sites:
            command = (python, "-I", "-S", "-c", SITE)
            try:
                done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            except OSError:
                done = None
            self._sites[python] = done.stdout.strip() if done and done.returncode == 0 else ""
        return self._sites[python]

    def complete(self):
        """Releases that are complete, the one that was in use last first."""
        try:
            names = os.listdir(self.releases)
        except OSError:
            return []
        marked = [name for name in names if not name.startswith(".") and self.mark(name) is not None]
        return sorted(marked, key=lambda name: os.path.getmtime(os.path.join(self.releases, name)), reverse=True)

    def wanted(self, path):
        """Whether what lies there is the release that is asked for."""
        mark = self.mark(os.path.basename(path))
        digest = self.module.params["digest"]
        # Without wheels it could not be made anew: what is there has to do.
        if mark is None or not digest:
            return mark is not None
        asked = self.module.params["python"]
        same = os.path.realpath(os.path.join(path, "bin", "python")) == os.path.realpath(asked)
        return mark.get("digest") == digest and (same or mark.get("python") == asked) and not self.lacks(path)

    def lacks(self, path):
        """Packages that a release is to have and has not."""
        site = os.path.join(path, self.site(os.path.join(path, "bin", "python")))
        there = {name.split("-")[0].replace("_", "-").lower() for name in os.listdir(site) if "dist-info" in name}
        return set(self.module.params["packages"]) - there

    def in_use(self):
        """Releases that a process was started from: its interpreter's path names it."""
        releases = os.path.realpath(self.releases) + "/"
        found = set()
        for name in os.listdir("/proc"):
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    program = os.fsdecode(file.read().split(b"\0")[0])
            except OSError:
                continue
            # The directory alone: the interpreter in it is a link to one that all share.
            directory = os.path.realpath(os.path.dirname(program)) if program.startswith("/") else ""
            if directory.startswith(releases):
                found.add(directory[len(releases) :].partition("/")[0])
        return found

    def serves(self):
        """Whether something lives by the files that are there."""
        return os.path.isdir(self.directory) and self.version in {self.before, *self.in_use()}

    def refuse(self, links):
        """Stop before the first change where something else is in the way."""
        if os.path.isdir(os.path.join(self.prefix, PACKAGE)):
            self.module.fail_json(
                msg="this host has hbagent by a Debian package: take it away first (dpkg --remove hbagent; its "
                "configuration stays)"
            )
        for destination in sorted(links):
            if os.path.lexists(destination) and not os.path.islink(destination):
                self.module.fail_json(msg=f"{destination} is there and is no link: take it away")

    def recover(self):
        """Put back a release that lost its place to one that never took it."""
        if os.path.lexists(self.old) and not os.path.lexists(self.directory):
            self.changes.append(f"put {self.version} back")
            if not self.module.check_mode:
                os.rename(self.old, self.directory)

    def install(self, archive):
        """Make the release aside, from an archive of wheels."""
        try:
            self.make(archive)
        except BaseException as error:
            shutil.rmtree(self.draft, ignore_errors=True)
            if isinstance(error, OSError):
                self.module.fail_json(msg=f"release {self.version} could not be made: {error}")
            raise

    def make(self, archive):
        self.changes.append(f"made {self.version}")
        os.makedirs(self.releases, mode=0o755, exist_ok=True)
        for directory in (self.prefix, self.releases):
            os.chmod(directory, 0o755)
        if os.path.lexists(self.draft):
            shutil.rmtree(self.draft)
        wheels = tempfile.mkdtemp(dir=self.module.tmpdir)
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                if not member.isfile() or os.path.basename(member.name) != member.name:
                    self.module.fail_json(msg=f"{member.name} is not what an archive of wheels holds")
                with tar.extractfile(member) as source, open(os.path.join(wheels, member.name), "wb") as target:
                    shutil.copyfileobj(source, target)
        digest = self.check(wheels)
        self.see_room(wheels)
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
            mark = {"version": self.version, "digest": digest, "machine": platform.machine()}
            json.dump({**mark, "python": self.module.params["python"]}, file)
        os.sync()

    def place(self):
        """What was made aside takes its place."""
        self.changes.append(f"installed {self.version}")
        if self.module.check_mode:
            return
        if os.path.lexists(self.old):
            shutil.rmtree(self.old)
        # In one step, so that `current` leads to a whole release at each moment, also when the power goes. Where the
        # file system cannot do that, `recover` puts back what lost its place.
        if exchange(self.draft, self.directory):
            os.rename(self.draft, self.old)
        else:
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

    def see_room(self, wheels):
        """Refuse a disk that it would fill: all files, and as much again as bytecode."""
        needed = 0
        for name in os.listdir(wheels):
            if name.endswith(".whl"):
                with zipfile.ZipFile(os.path.join(wheels, name)) as archive:
                    needed += 2 * sum(entry.file_size for entry in archive.infolist())
        free = shutil.disk_usage(self.releases).free
        if free < needed:
            self.module.fail_json(
                msg=f"{self.releases} has {free >> 20} MiB left, and release {self.version} takes {(needed >> 20) + 1}"
            )

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
            # Its time says until when it was in use.
            with contextlib.suppress(OSError):
                os.utime(os.path.join(self.releases, self.before))
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
            self.changes.append(f"linked {destination}")
            if not self.module.check_mode:
                os.makedirs(os.path.dirname(destination), mode=0o755, exist_ok=True)
                replace_link(destination, wanted)

    def prune(self, keep):
        """Take away all but the releases in use, the one before, and those of the others that were in use last.

        The Debian package has the same rule in its postinst, in shell: on its hosts there is nothing of Ansible, and on
        these nothing of dpkg.
        """
        try:
            names = os.listdir(self.releases)
        except OSError:
            return
        here = {self.chosen(), self.version}
        here.update([name for name in self.complete() if name not in here][:keep])
        # A host whose daemons go over one by one comes here for each: the others still run from what is old now.
        here.update({self.before}, self.in_use())
        for name in sorted(names):
            if name not in here:
                self.changes.append(f"removed {name}")
                if not self.module.check_mode:
                    shutil.rmtree(os.path.join(self.releases, name))


def exchange(one, other):
    """Have two files or directories trade their names in one step; False where that cannot be."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError):
        return False
    done = renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    return done == 0


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
            "extras": {"type": "list", "elements": "str", "default": []},
            "prefix": {"type": "path", "default": "/opt/hbagent"},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "keep": {"type": "int", "default": 2},
            "copies": {"type": "dict", "default": {}},
            "links": {"type": "dict", "default": {}},
            "choose": {"type": "bool", "default": True},
            "digest": {"type": "str", "default": ""},
            "packages": {"type": "list", "elements": "str", "default": []},
            "archive": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    host = Host(module)
    choose = module.params["choose"]
    host.refuse(module.params["links"] if choose else {})
    host.recover()
    there = host.wanted(host.directory)
    ready = there or host.wanted(host.draft)
    answer = {"before": host.before, "releases": host.complete(), "needs_wheels": False}
    if not ready and not module.params["archive"]:
        asked = "import sys; print('%d.%d' % sys.version_info[:2])"
        answer["python"] = host.run(module.params["python"], "-c", asked).strip()
        host.run(module.params["python"], "-c", "import venv")
        answer.update(needs_wheels=True, machine=platform.machine(), glibc=glibc(), changed=True)
        module.exit_json(**answer)
    if not ready:
        host.install(module.params["archive"])
    # The same version with other files waits aside until it is its turn.
    if not there and (choose or not host.serves()):
        host.place()
    if choose:
        host.choose()
        host.bring(module.params["copies"], module.params["links"])
        host.prune(module.params["keep"])
    answer.update(changed=bool(host.changes), changes=host.changes, releases=host.complete())
    module.exit_json(**answer)


if __name__ == "__main__":
    main()

"""Keys of a datacenter, on the controller: made once for names that have none, secrets encrypted by the vault.

A directory holds for each name `NAME.key` (secret) and `NAME.pub`, and while a key is rotated `NAME.next.key` and
`NAME.next.pub`. `generations.yml` beside them says how many rotations of a name have ended and how far the one under
way has come; it is public.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleActionFail
from ansible.parsing.vault import VaultLib, is_encrypted, match_encrypt_secret

from ansible import constants
from ansible.plugins.action import ActionBase

GENERATIONS = "generations.yml"
_HEADER = (
    "# How many rotations of each key have ended, and how far one under way has come. Written by the collection.\n"
)
#: Making all keys of 10,000 hosts takes a minute.
_MAKE_SECONDS = 600


class ActionModule(ActionBase):
    """Runs on the controller alone."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            argument_spec={
                "directory": {"type": "str", "required": True},
                "names": {"type": "list", "elements": "str", "default": []},
                "command": {"type": "str", "default": "hbagent"},
                "plain": {"type": "bool", "default": False},
                "phases": {"type": "dict", "default": {}},
                "absent": {"type": "list", "elements": "str", "default": []},
            }
        )
        vault = getattr(self._loader, "_vault", None)
        secrets = list(vault.secrets) if vault is not None and vault.secrets else []
        cabinet = Cabinet(
            Path(args["directory"]).expanduser(),
            shlex.split(args["command"]),
            secrets,
            bool(args["plain"]),
            bool(self._task.check_mode),
        )
        try:
            with cabinet.alone():
                cabinet.turn({str(name): str(phase) for name, phase in args["phases"].items()})
                cabinet.make(args["names"])
                cabinet.discard(args["absent"])
                keys = {name: cabinet.show(name) for name in args["names"]}
                orphans = cabinet.orphans(args["names"])
        except OSError as error:
            raise AnsibleActionFail(f"{error.filename}: {error.strerror}") from error
        generations = cabinet.generations()
        if orphans:
            result.setdefault("warnings", []).append(
                f"{args['directory']} has keys of {', '.join(orphans)}, whom the inventory does not name: they are let "
                "in nowhere; take them away with remove.yml, or by hand when a host was renamed"
            )
        result.update(changed=bool(cabinet.changes), changes=cabinet.changes, keys=keys, generations=generations)
        return result


def _state(entry: Any) -> tuple[int, str]:
    """How many rotations of a name have ended, and the phase of the one under way."""
    return (entry["generation"], entry["phase"]) if isinstance(entry, dict) else (entry, "")


def _turned(name: str, entry: Any, phase: str) -> Any:
    """The entry of a name after its rotation came to a phase."""
    generation, before = _state(entry)
    if phase == "done" and not before:
        return entry
    steps = {"": ("offered",), "offered": ("used", ""), "used": ("done",)}
    if phase not in steps[before]:
        raise AnsibleActionFail(f"the rotation of {name} is {before or 'not begun'}: it cannot become {phase!r} now")
    if phase in ("done", ""):
        return generation + (phase == "done")
    return {"generation": generation, "phase": phase}


class Cabinet:
    """The directory of keys. `changes` collects what was, or in a dry run would be, done."""

    def __init__(
        self, directory: Path, command: list[str], secrets: list[tuple[str, Any]], plain: bool, dry: bool
    ) -> None:
        self.changes: list[str] = []
        self._directory = directory
        self._command = command
        self._secrets = secrets
        self._plain = plain
        self._dry = dry
        self._would: dict[str, Any] = {}

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Two runs at once would make two keys for one name."""
        if self._dry:
            yield
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def generations(self) -> dict[str, Any]:
        """What the file says, or would say after a dry run."""
        try:
            text = (self._directory / GENERATIONS).read_text(encoding="utf-8")
        except FileNotFoundError:
            text = ""
        content = yaml.safe_load(text) or {}
        if not isinstance(content, dict):
            raise AnsibleActionFail(f"{self._directory / GENERATIONS}: is not a mapping of names to generations")
        return {**content, **self._would}

    def turn(self, phases: dict[str, str]) -> None:
        """Bring the rotation of each name to a phase: offered, used, done; or "" to give it up while it is offered."""
        known = self.generations()
        due = {name: phase for name, phase in phases.items() if phase != _state(known.get(name, 0))[1]}
        after = {name: _turned(name, known.get(name, 0), phase) for name, phase in due.items()}
        after = {name: entry for name, entry in after.items() if entry != known.get(name, 0)}
        if not after:
            return
        self.changes += [f"rotation of {name}: {due[name] or 'given up'}" for name in after]
        if self._dry:
            self._would.update(after)
            return
        self._generate([(name, ".next") for name in after if due[name] == "offered"])
        # The public half last: interrupted between the two, the next run finds it beside and goes on.
        for suffix in (".key", ".pub"):
            for name in after:
                if due[name] == "done" and self._path(name, f".next{suffix}").exists():
                    os.replace(self._path(name, f".next{suffix}"), self._path(name, suffix))
        self._write_generations({**known, **after})
        for name in after:
            for suffix in (".next.key", ".next.pub") if due[name] == "" else ():
                self._path(name, suffix).unlink(missing_ok=True)

    def make(self, names: list[str]) -> None:
        """Keys for those names that have none; refuses secrets that lie in plain."""
        missing = []
        for name in names:
            path, following = self._path(name, ".key"), self._path(name, ".next.key")
            if following.exists():
                self._refuse_plain(following)
            if path.exists():
                self._refuse_plain(path)
                if not self._path(name, ".pub").exists():
                    raise AnsibleActionFail(f"{self._path(name, '.pub')}: is missing beside {path.name}; restore it")
            else:
                missing.append(name)
        if missing:
            self.changes += [f"key of {name}" for name in missing]
            if not self._dry:
                self._generate([(name, "") for name in missing])

    def discard(self, names: list[str]) -> None:
        """Take away all keys of these names."""
        suffixes = (".key", ".pub", ".next.key", ".next.pub")
        known = self.generations()
        there = {name: [path for suffix in suffixes if (path := self._path(name, suffix)).exists()] for name in names}
        self.changes += [f"no key of {name}" for name in names if there[name] or name in known]
        if self._dry:
            return
        for path in [path for paths in there.values() for path in paths]:
            path.unlink()
        if any(name in known for name in names):
            self._write_generations({name: entry for name, entry in known.items() if name not in there})

    def orphans(self, names: list[str]) -> list[str]:
        """Names of the same datacenters that have a key here, and are not among these."""
        places = {name.partition("/")[0] for name in names}
        found = []
        for path in self._directory.glob("*.pub"):
            words = path.read_text(encoding="ascii", errors="replace").split()
            name = words[-2] if words[-3:-2] == ["curve-public"] else ""
            # Operators, who have one word, are in no inventory.
            if "/" in name and name.partition("/")[0] in places:
                found.append(name)
        return sorted(set(found) - set(names))

    def show(self, name: str) -> dict[str, str]:
        """The public halves of a name, "" for what is not there."""
        return {"public": self._public(name, ".pub"), "next": self._public(name, ".next.pub")}

    def _public(self, name: str, suffix: str) -> str:
        path = self._path(name, suffix)
        try:
            words = path.read_text(encoding="ascii").split()
        except FileNotFoundError:
            return ""
        if words[-3:-1] != ["curve-public", name]:
            raise AnsibleActionFail(f"{path}: is not the public key of {name}")
        return words[-1]

    def _path(self, name: str, suffix: str) -> Path:
        return self._directory / f"{name.replace('/', '.')}{suffix}"

    def _refuse_plain(self, path: Path) -> None:
        if self._plain or is_encrypted(path.read_bytes()):
            return
        raise AnsibleActionFail(
            f"{path}: is a secret key in plain text. Encrypt it with ansible-vault encrypt, "
            "or allow that with hbagent_keys_plain: true"
        )

    def _generate(self, wanted: list[tuple[str, str]]) -> None:
        """New pairs, made by hbagent where nobody else can read them, each secret encrypted before it comes here."""
        if not self._secrets and not self._plain:
            raise AnsibleActionFail(
                "no vault password is configured, and secret keys would lie in plain text: name a file with "
                "--vault-password-file or vault_password_file in ansible.cfg, or allow it with hbagent_keys_plain: true"
            )
        wanted = [(name, stem) for name, stem in wanted if not self._path(name, f"{stem}.key").exists()]
        if not wanted:
            return
        # Where Ansible itself clears up when it ends, however its workers end; and not for as long as sealing takes.
        with tempfile.TemporaryDirectory(prefix="hbagent-keys-", dir=constants.DEFAULT_LOCAL_TMP) as scratch:
            self._ask([name for name, _ in wanted], scratch)
            made = [Path(scratch, f"{name.replace('/', '.')}.key") for name, _ in wanted]
            pairs = [(path.with_suffix(".pub").read_bytes(), path.read_bytes()) for path in made]
        for (name, stem), (public, secret) in zip(wanted, pairs, strict=True):
            # The public half first: a secret that is here counts as made.
            self._write(self._path(name, f"{stem}.pub"), public, 0o644)
            self._write(self._path(name, f"{stem}.key"), self._sealed(secret), 0o600)

    def _ask(self, names: list[str], scratch: str) -> None:
        command = [*self._command, "keys", "init", *names, "--dir", scratch]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_MAKE_SECONDS, check=False)
        except OSError as error:
            raise AnsibleActionFail(
                f"hbagent_controller_command is {shlex.join(self._command)!r}, and that cannot be run here "
                f"({error.strerror}): install hbagent on the controller, or name it"
            ) from error
        if done.returncode:
            raise AnsibleActionFail(f"{shlex.join(self._command)} keys init: {done.stderr.strip()}")

    def _sealed(self, secret: bytes) -> bytes:
        if not self._secrets:
            return secret
        identity = constants.config.get_config_value("DEFAULT_VAULT_ENCRYPT_IDENTITY")
        vault_id, key = match_encrypt_secret(self._secrets, identity)
        sealed: bytes = VaultLib(self._secrets).encrypt(secret, key, vault_id=vault_id)
        return sealed

    def _write_generations(self, content: dict[str, Any]) -> None:
        text = _HEADER + yaml.safe_dump(dict(sorted(content.items())), sort_keys=False)
        self._write(self._directory / GENERATIONS, text.encode(), 0o644)

    def _write(self, path: Path, content: bytes, mode: int) -> None:
        """Whole or not at all, also when the power goes."""
        draft = path.with_name(f".{path.name}.new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(draft, path)

"""Makes the Debian package: `python -m tools.deb dist`.

It holds a virtual environment with bytecode for the python3 of this host, and so serves hosts with the same minor
version of it; nothing is fetched or compiled where it is installed. Built with dpkg-deb from a staged tree: debhelper
would mostly be told what not to do with files below /opt. The maintainer scripts are in packaging/debian.

DEBFULLNAME and DEBEMAIL name the maintainer, DEB_REVISION what follows the version ("1"), SOURCE_DATE_EPOCH the time of
all files.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tools.packing import EPOCH, ROOT, fill, level

PYTHON = "/usr/bin/python3"
DEBIAN = ROOT / "packaging" / "debian"
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/hbagent",
    "zsh": "usr/share/zsh/vendor-completions/_hbagent",
    "fish": "usr/share/fish/vendor_completions.d/hbagent.fish",
}
ENTRIES = {"hbagent": "hbagent.cli", "check_hbagent": "hbagent.cli.check_hbagent"}


def make(target: Path) -> Path:
    """Write the package below the directory `target`; its path."""
    minor = said(PYTHON, "-c", "import sys; print('{}.{}'.format(*sys.version_info))")
    architecture = said("dpkg", "--print-architecture")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "tree")
        site = Path(scratch, "site-packages")
        fill(site, PYTHON)
        release = said(PYTHON, "-c", "import hbagent; print(hbagent.__version__)", site=site)
        version = f"{release}-{os.environ.get('DEB_REVISION', '1')}"
        environment(tree / "opt/hbagent/package" / release, site, minor, release)
        system(tree, version)
        facts = {
            "VERSION": version,
            "RELEASE": release,
            "ARCHITECTURE": architecture,
            "MAINTAINER": maintainer(),
            "PYTHON": minor,
            "PYTHON_NEXT": "{}.{}".format(minor.split(".")[0], int(minor.split(".")[1]) + 1),
            "SIZE": str(sum(path.lstat().st_size for path in tree.rglob("*")) // 1024),
        }
        level(tree)
        compile_bytecode(tree, release)
        level(tree)
        modes(tree)
        control(tree, facts)
        package = target / f"hbagent_{version}_{architecture}.deb"
        build = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(package)]
        subprocess.run(build, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)}, stdout=sys.stderr)
    return package


def said(*command: str, site: Path | None = None) -> str:
    """What a program writes. Raises subprocess.CalledProcessError when it fails, OSError when it is not there."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **({"PYTHONPATH": str(site)} if site else {})}
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment, cwd="/"
    ).stdout.strip()


def maintainer() -> str:
    """Who answers for this package."""
    return f"{os.environ.get('DEBFULLNAME', 'hbagent')} <{os.environ.get('DEBEMAIL', 'hbagent@localhost.localdomain')}>"


def environment(home: Path, site: Path, minor: str, release: str) -> None:
    """A virtual environment as `python3 -m venv` makes them, that knows itself as the release it will be."""
    python = f"/usr/bin/python{minor}"
    (home / "bin").mkdir(parents=True)
    (home / "lib" / f"python{minor}").mkdir(parents=True)
    shutil.move(str(site), str(home / "lib" / f"python{minor}" / "site-packages"))
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    for name, link in (("python", python), ("python3", "python"), (f"python{minor}", "python")):
        (home / "bin" / name).symlink_to(link)
    for name, module in ENTRIES.items():
        script = home / "bin" / name
        lines = [f"#!/opt/hbagent/releases/{release}/bin/python", "import sys", f"from {module} import main"]
        script.write_text("\n".join([*lines, "sys.exit(main())", ""]))
        script.chmod(0o755)


def compile_bytecode(tree: Path, release: str) -> None:
    """Compile what was staged, under the paths that it will have."""
    package = tree / "opt/hbagent/package"
    command = [
        PYTHON,
        "-m",
        "compileall",
        "-q",
        "-s",
        str(package),
        "-p",
        "/opt/hbagent/releases",
        str(package / release),
    ]
    # Its own PYTHONHASHSEED, for the order of a set in the code is part of it.
    subprocess.run(command, check=True, env={"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "0"})


def system(tree: Path, version: str) -> None:
    """What lies elsewhere: units, groups, pages, completion, hooks, examples."""
    (site,) = tree.glob("opt/hbagent/package/*/lib/*/site-packages")
    deploy = ROOT / "deploy"
    for unit in sorted([*deploy.glob("hbagent-*.service"), *deploy.glob("hbagent-*.socket")]):
        put(tree / "usr/lib/systemd/system" / unit.name, unit.read_bytes())
    put(tree / "usr/lib/sysusers.d/hbagent.conf", (deploy / "hbagent.sysusers").read_bytes())
    for page in sorted((deploy / "man").iterdir()):
        put(tree / f"usr/share/man/man{page.suffix[1:]}" / f"{page.name}.gz", packed(page.read_bytes()))
    for shell, completion in COMPLETIONS.items():
        put(tree / completion, said(PYTHON, "-m", "hbagent", "completion", shell, site=site).encode() + b"\n")
    for hook in sorted((ROOT / "etc" / "hooks.d").iterdir()):
        put(tree / "etc/hbagent/hooks.d" / hook.name, hook.read_bytes(), 0o755)
    (tree / "etc/hbagent/keys").mkdir()
    documents = tree / "usr/share/doc/hbagent"
    for example in sorted((ROOT / "etc").glob("*.toml")):
        put(documents / "examples" / example.name, example.read_bytes())
    for neighbour in ("nftables.conf", "nginx.conf"):
        put(documents / "examples" / neighbour, (deploy / neighbour).read_bytes())
    for shelf in ("drop-ins", "grafana", "prometheus"):
        shutil.copytree(deploy / shelf, documents / "examples" / shelf)
    put(documents / "copyright", (DEBIAN / "copyright").read_bytes())
    put(documents / "changelog.gz", packed((ROOT / "CHANGELOG.md").read_bytes()))
    put(documents / "changelog.Debian.gz", packed(changelog(version).encode()))
    put(tree / "usr/share/lintian/overrides/hbagent", (DEBIAN / "lintian-overrides").read_bytes())
    for name, directory in (("hbagent", "usr/bin"), ("check_hbagent", "usr/lib/nagios/plugins")):
        (tree / directory).mkdir(parents=True)
        (tree / directory / name).symlink_to(f"/opt/hbagent/current/bin/{name}")


def put(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file, its directories too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def packed(content: bytes) -> bytes:
    """As Debian packs documents: the best that gzip can, and no time."""
    return gzip.compress(content, 9, mtime=0)


def changelog(version: str) -> str:
    """The one entry that Debian's tools want; what changed stands in the changelog of hbagent."""
    date = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(EPOCH))
    return f"hbagent ({version}) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- {maintainer()}  {date}\n"


def modes(tree: Path) -> None:
    """What not everybody may read; the group of /etc/hbagent is made when it is installed."""
    (tree / "etc/hbagent").chmod(0o751)
    (tree / "etc/hbagent/keys").chmod(0o700)


def control(tree: Path, facts: dict[str, str]) -> None:
    """The part that dpkg reads."""
    home = tree / "DEBIAN"
    put(home / "md5sums", "".join(sums(tree)).encode())
    put(home / "conffiles", "".join(f"/{path.relative_to(tree)}\n" for path in conffiles(tree)).encode())
    for name in ("control", *SCRIPTS):
        text = (DEBIAN / name).read_text("utf-8")
        for key, value in facts.items():
            text = text.replace(f"@{key}@", value)
        put(home / name, text.encode(), 0o755 if name in SCRIPTS else 0o644)
    home.chmod(0o755)


def conffiles(tree: Path) -> list[Path]:
    """Files that an administrator may change, and an upgrade then leaves alone."""
    return sorted(path for path in (tree / "etc").rglob("*") if path.is_file())


def sums(tree: Path) -> Iterator[str]:
    """The lines by which `dpkg --verify` knows the files that nobody is to change."""
    for path in sorted(path for part in ("opt", "usr") for path in (tree / part).rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(tree)}\n"


if __name__ == "__main__":
    print(make(Path(sys.argv[1])))

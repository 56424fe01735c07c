"""How the one-file program starts: it makes a virtual environment of what was unpacked, and goes on as that.

shiv unpacks the packages below $SHIV_ROOT, or ~/.shiv, and runs this before anything of them. Within shiv's own process
an agent would keep what unpacking needed, and its children (the prober, hooks, drills) would run on an interpreter that
does not know the packages. So the unpacked directory gets what makes it an environment (pyvenv.cfg, bin/python, lib),
and its interpreter takes this process over. Only the standard library of any Python 3 is used here.
"""

import os
import sys
from collections.abc import Sequence

#: The Python and the machine whose packages it holds; tools/pyz.py writes those of the maker here.
MADE_FOR = (sys.version_info[:2], os.uname().machine)


def put(path: str, link: str = "", text: str = "") -> None:
    """Make a link or a file, unless it is there as it should be; another start may do the same at this moment."""
    there = os.readlink(path) == link if os.path.islink(path) else bool(text) and os.path.isfile(path)
    if there:
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    new = f"{path}.{os.getpid()}"
    if link:
        os.symlink(link, new)
    else:
        with open(new, "w") as file:
            file.write(text)
    os.replace(new, path)


def environment(site: str) -> str:
    """The interpreter of the environment around the unpacked packages; made unless it is there."""
    home = os.path.dirname(site)
    base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    settings = f"home = {os.path.dirname(base)}\ninclude-system-site-packages = false\n"
    put(os.path.join(home, "pyvenv.cfg"), text=settings)
    put(os.path.join(home, "lib", f"python{spoken(sys.version_info)}", "site-packages"), link="../../site-packages")
    python = os.path.join(home, "bin", "python")
    put(python, link=base)
    return python


def spoken(version: Sequence[object]) -> str:
    """Major and minor version as people write them."""
    return f"{version[0]}.{version[1]}"


def main(site: str) -> None:
    """Become `python -m hbagent` of the environment."""
    minor, machine = MADE_FOR
    if (sys.version_info[:2], os.uname().machine) != MADE_FOR:
        here = f"Python {spoken(sys.version_info)} on {os.uname().machine}"
        sys.exit(f"hbagent: this file was made for Python {spoken(minor)} on {machine}, and this is {here}")
    python = environment(site)
    os.execv(python, [python, "-m", "hbagent", *sys.argv[1:]])


main(str(site_packages))  # type: ignore[name-defined]  # noqa: F821

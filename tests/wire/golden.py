"""Golden vectors: frames on disk that every later version must read as it does today.

`python -m tests.wire.golden --rewrite` writes those of the current minor and of versions to come. Vectors of a
minor that was released are never written again: raise `MINOR` first, and the new ones lie beside the old.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hbagent.wire.version import MAJOR, MINOR

from . import samples

VECTORS = Path(__file__).parent / "vectors"
_BYTES_A_LINE = 32


def expected() -> dict[str, bytes]:
    """Every vector that this version writes, by file stem."""
    ours = {f"{MAJOR}.{MINOR}-{name}": data for name, data in samples.current().items()}
    return ours | {f"x-{name}": data for name, data in samples.foreign().items()}


def read(stem: str) -> bytes:
    """The bytes of one vector."""
    lines = (VECTORS / f"{stem}.hex").read_text("ascii").splitlines()
    return bytes.fromhex("".join(line for line in lines if not line.startswith("#")))


def stems() -> list[str]:
    """Every vector on disk, old ones too."""
    return sorted(path.stem for path in VECTORS.glob("*.hex"))


def rewrite() -> None:
    """Write the vectors of this version."""
    for stem, data in expected().items():
        lines = [data[at : at + _BYTES_A_LINE].hex() for at in range(0, len(data), _BYTES_A_LINE)]
        (VECTORS / f"{stem}.hex").write_text("\n".join([f"# {stem}, {len(data)} bytes", *lines, ""]), "ascii")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rewrite", action="store_true", required=True)
    parser.parse_args()
    rewrite()

"""Names of variables, from the symbol tables of files that may hold anything."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.diagnosis import procfs
from hbagent.diagnosis.procfs import Mapping, Process
from hbagent.diagnosis.symbols import names_of
from hbagent.diagnosis.words import Places

SOURCE = """
int zeroed[64];
int filled[64] = {1};
int main(void) { return zeroed[1] + filled[1]; }
"""


def everywhere() -> Places:
    return Places(procfs.mountinfo(procfs.read_file("/proc/self/mountinfo", procfs.MOUNTINFO_SIZE_MAX)))


def values(program: Path) -> dict[str, int]:
    lines = subprocess.run(["nm", program], capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[2]: int(line.split()[0], 16) for line in lines if len(line.split()) == 3}


def mapped(program: Path, at: int) -> list[Mapping]:
    """The program as the kernel would map it from `at` on: its file, and zeroes behind it."""
    found = program.stat()
    device = (os.major(found.st_dev), os.minor(found.st_dev))
    whole = Mapping(at, at + 0x4000, "r-xp", 0, device, found.st_ino, str(program))
    data = msgspec.structs.replace(whole, start=at + 0x4000, end=at + 0x5000, offset=0x3000)
    return [whole, data, Mapping(at + 0x5000, at + 0x9000, "rw-p", 0, (0, 0), 0, "")]


@pytest.mark.needs("gcc", "nm")
@pytest.mark.parametrize("flags", [("-pie", "-fPIE"), ("-no-pie",)])
def test_variables_of_a_program_have_names(tmp_path: Path, flags: tuple[str, ...]) -> None:
    source, program = tmp_path / "named.c", tmp_path / "named"
    source.write_text(SOURCE)
    subprocess.run(["gcc", *flags, "-o", program, source], check=True)
    known = values(program)
    base = 0x555500000000 if "-pie" in flags else 0x400000
    bias = base if "-pie" in flags else 0
    wanted = {bias + known["filled"], bias + known["zeroed"] + 8, bias + known["main"]}
    assert names_of(sorted(wanted), mapped(program, base), everywhere()) == {
        bias + known["filled"]: "filled (in named)",
        bias + known["zeroed"] + 8: "zeroed+8 (in named)",
    }


def test_what_lies_in_no_file_has_no_name(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    mappings = mapped(file, 0x10000)
    gap = Mapping(0x30000, 0x31000, "rw-p", 0, (0, 0), 0, "")
    assert names_of([0x0, 0x10000, 0x15000, 0x20000, 0x30000, 1 << 65], [*mappings, gap], everywhere()) == {}


def test_a_file_that_may_hang_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    mappings = mapped(tmp_path / "pipe", 0x10000)
    assert names_of([0x10010], mappings, Places([])) == {}
    assert names_of([0x10010], mappings, everywhere()) == {}


def test_another_file_at_the_same_path_is_not_believed() -> None:
    with Process(os.getpid()) as me:
        mappings = procfs.maps(me.read("maps", procfs.MAPS_SIZE_MAX))
    changed = [msgspec.structs.replace(one, inode=one.inode + 1) if one.inode else one for one in mappings]
    assert names_of([one.start + 64 for one in mappings], changed, everywhere()) == {}


@given(data=st.data())
def test_no_file_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Cut, and with bytes changed where the tables are described."""
    good = bytearray(Path("/bin/true").read_bytes()[:40_000])
    header = 64
    sections = int.from_bytes(good[40:48], "little")
    for _ in range(data.draw(st.integers(0, 6))):
        near = data.draw(st.sampled_from([0, header, max(0, min(sections, len(good) - 200))]))
        at = near + data.draw(st.integers(0, 190))
        good[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
    file = tmp_path_factory.getbasetemp() / "odd"
    file.write_bytes(bytes(good[: data.draw(st.integers(0, len(good)))]))
    found = names_of([0x10010, 0x14010, 0x15010], mapped(file, 0x10000), everywhere())
    assert all(len(name) < 200 for name in found.values())

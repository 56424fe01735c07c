from __future__ import annotations

from pathlib import Path

import pytest

from tests.ansible.plugins import plugin

wheels = plugin("module_utils", "wheels")
PINS = "msgspec==0.22.0 \\\n    --hash=sha256:00\nloguru==0.7.3 \\\npsutil==7.2.2\n"
LOGURU = "loguru-0.7.3-py3-none-any.whl"
PSUTIL = "psutil-7.2.2-cp36-abi3-manylinux2010_x86_64.manylinux_2_28_x86_64.whl"
MSGSPEC = "msgspec-0.22.0-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"
NEWER = "msgspec-0.22.0-cp312-cp312-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"
HOUSE = [LOGURU, PSUTIL, MSGSPEC, NEWER, "notes.txt"]


def test_each_host_gets_the_wheels_of_its_python() -> None:
    assert wheels.choose(HOUSE, PINS, "3.11", "x86_64", (2, 36)) == [MSGSPEC, LOGURU, PSUTIL]
    assert wheels.choose(HOUSE, PINS, "3.12", "x86_64", (2, 36)) == [NEWER, LOGURU, PSUTIL]


@pytest.mark.parametrize(
    ("python", "machine", "glibc", "sentence"),
    [
        ("3.9", "x86_64", (2, 36), "this host has Python 3.9; hbagent needs 3.10 or newer"),
        ("3.13", "x86_64", (2, 36), "has no msgspec for it (of msgspec it has cp311"),
        ("3.11", "aarch64", (2, 36), "on aarch64, and the wheelhouse has no msgspec or psutil"),
        ("3.11", "x86_64", (2, 5), "has no msgspec or psutil for it"),
    ],
)
def test_a_host_that_the_wheelhouse_was_not_made_for_is_told(
    python: str, machine: str, glibc: tuple[int, int], sentence: str
) -> None:
    with pytest.raises(ValueError) as refused:
        wheels.choose(HOUSE, PINS, python, machine, glibc)
    assert sentence in str(refused.value)


def test_a_package_is_needed_by_the_pythons_that_its_pin_names() -> None:
    pins = 'loguru==0.7.3 \\\n    --hash=sha256:00\ntomli==2.5.0 ; python_version < "3.11" \\\n    --hash=sha256:01\n'
    assert wheels.needed(pins, "3.10") == ["loguru", "tomli"]
    assert wheels.needed(pins, "3.11") == wheels.needed(pins) == ["loguru"]
    assert wheels.choose(HOUSE, pins, "3.11", "x86_64", (2, 36)) == [LOGURU]


def test_what_only_some_hosts_need_is_pinned_apart(tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text(PINS)
    assert wheels.needed(wheels.pins_for(tmp_path, [])) == ["msgspec", "loguru", "psutil"]
    with pytest.raises(ValueError, match="nothing for postgres: make it with make wheelhouse EXTRAS=postgres"):
        wheels.pins_for(tmp_path, ["postgres"])
    (tmp_path / "constraints-postgres.txt").write_text("psycopg==3.3.9 \\\n    --hash=sha256:02\n")
    assert wheels.needed(wheels.pins_for(tmp_path, [])) == ["msgspec", "loguru", "psutil"]
    assert wheels.needed(wheels.pins_for(tmp_path, ["postgres"])) == ["msgspec", "loguru", "psutil", "psycopg"]


def test_a_wheel_with_a_stable_interface_serves_newer_pythons_only() -> None:
    assert wheels.fits("cp312", "abi3", "manylinux_2_28_x86_64", "3.13", "x86_64", (2, 28))
    assert not wheels.fits("cp312", "abi3", "manylinux_2_28_x86_64", "3.11", "x86_64", (2, 28))
    assert wheels.fits("cp313", "cp313", "manylinux_2_28_x86_64", "3.13", "x86_64", (2, 36))
    assert not wheels.fits("cp313", "cp313t", "manylinux_2_28_x86_64", "3.13", "x86_64", (2, 36))
    assert not wheels.fits("cp311", "cp311", "musllinux_1_2_x86_64", "3.11", "x86_64", (2, 36))

"""Bundles are whole, bounded in number and age, and found by name without a name ever being a path."""

from __future__ import annotations

import multiprocessing
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hbagent.core.units import HOUR, SECOND
from hbagent.store.evidence import BUNDLE_MAX, NAMELESS, NoBundle, Shelf, digest
from hbagent.store.failpoint import EXIT_STATUS, POINTS
from hbagent.store.quarantine import KEPT_MAX

DAY = 24 * HOUR


def shelf(directory: Path, count_max: int = 5) -> Shelf:
    return Shelf(directory / "evidence", count_max, DAY)


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory / "evidence"))


def test_what_was_put_is_read_by_name_and_as_the_newest_of_its_application(tmp_path: Path) -> None:
    kept = shelf(tmp_path)
    first, second, third = kept.put("billing", b"1"), kept.put("web.front-1", b"2"), kept.put("billing", b"3")
    assert kept.read(name=first) == (first, b"1")
    assert kept.read("web.front-1") == (second, b"2")
    assert kept.read("billing") == kept.read() == (third, b"3")
    assert [(item.name, item.app, item.size) for item in kept.list()] == [
        (third, "billing", 1),
        (second, "web.front-1", 1),
        (first, "billing", 1),
    ]
    assert third == f"000003-billing-{digest(b'3')}"


def test_only_its_owner_may_read_a_bundle(tmp_path: Path) -> None:
    name = shelf(tmp_path).put("billing", b"x")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "evidence", tmp_path / f"evidence/{name}.json")]
    assert modes == [0o700, 0o600]


def test_an_empty_shelf_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoBundle, match=r"^no evidence is kept here: nothing was found stuck$"):
        shelf(tmp_path).read()
    with pytest.raises(NoBundle, match=r"^no evidence about 'web' is kept here$"):
        shelf(tmp_path).read("web")
    with pytest.raises(NoBundle, match=r"^no evidence '000001-x' is kept here: .* made room for newer ones$"):
        shelf(tmp_path).read(name="000001-x")
    assert shelf(tmp_path).list() == []
    assert list((tmp_path / "evidence").iterdir()) == []


@pytest.mark.root
def test_a_shelf_that_is_empty_because_its_disk_is_full_says_that(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(b"x")
    kept = shelf(small_disk)
    with pytest.raises(OSError, match="No space left"):
        kept.put("web", bytes(BUNDLE_MAX))
    for app in ("", "web"):
        with pytest.raises(NoBundle, match=r"is kept here, and none can be: .*/evidence: No space left on device$"):
            kept.read(app)
    (small_disk / "ballast").unlink()
    with pytest.raises(NoBundle, match=r"nothing was found stuck$"):
        kept.read()
    assert list(kept.directory.iterdir()) == []


def test_a_shelf_that_is_no_directory_says_so(tmp_path: Path) -> None:
    (tmp_path / "evidence").write_text("")
    with pytest.raises(NotADirectoryError):
        shelf(tmp_path).read("web")


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "secret", "secret.json", "000001-a-0123456789abcdef/../../secret", ".", "\0", "x\n"],
)
def test_a_name_is_never_a_path(tmp_path: Path, name: str) -> None:
    kept = shelf(tmp_path)
    kept.put("billing", b"x")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "evidence" / "secret.json").write_text("secret")
    with pytest.raises(NoBundle, match="no evidence"):
        kept.read(name=name)


@pytest.mark.parametrize("app", ["", "../../etc", "a/b", "-x", "name with spaces", "x" * 65, "ümlaut"])
def test_an_application_whose_name_is_no_name_is_kept_without_it(tmp_path: Path, app: str) -> None:
    assert f"-{NAMELESS}-" in shelf(tmp_path).put(app, b"x")
    assert len(names(tmp_path)) == 1


def test_the_oldest_make_room(tmp_path: Path) -> None:
    kept = shelf(tmp_path, count_max=3)
    put = [kept.put("billing", b"%d" % number) for number in range(7)]
    assert [item.name for item in kept.list()] == put[:3:-1]


def test_a_chatty_application_makes_room_of_its_own(tmp_path: Path) -> None:
    kept = shelf(tmp_path, count_max=5)
    shop = [kept.put("shop", b"%d" % number) for number in range(2)]
    for number in range(20):
        guest = kept.put("guest", b"%d" % number)
    assert [item.name for item in kept.list() if item.app == "shop"] == shop[::-1]
    assert kept.find("guest").name == guest and len(kept.list()) == 5


def test_of_applications_that_have_as_many_the_oldest_goes(tmp_path: Path) -> None:
    kept = shelf(tmp_path, count_max=4)
    for number, app in enumerate(("web", "shop", "web", "shop", "billing")):
        kept.put(app, b"%d" % number)
    assert [(item.number, item.app) for item in kept.list()] == [(5, "billing"), (4, "shop"), (3, "web"), (2, "shop")]


def test_the_newest_of_an_application_outlives_all_others_that_are_not_spared(tmp_path: Path) -> None:
    kept = shelf(tmp_path, count_max=3)
    for number, app in enumerate(("shop", "web", "web", "billing", "web")):
        kept.put(app, b"%d" % number)
    assert [item.app for item in kept.list()] == ["web", "billing", "shop"]


def test_what_is_spared_stays_whatever_comes_and_however_old_it_is(tmp_path: Path) -> None:
    kept = shelf(tmp_path, count_max=2)
    first, second = kept.put("shop", b"1"), kept.put("shop", b"2")
    path = tmp_path / "evidence" / f"{first}.json"
    os.utime(path, ns=(SECOND, SECOND))
    for number in range(10):
        newest = kept.put(f"guest-{number}", b"%d" % number, {1, 2})
    assert [item.name for item in kept.list()] == [newest, second, first]
    kept.put("guest-x", b"x")
    assert first not in [item.name for item in kept.list()]


def test_who_asks_is_told_which_bundles_are_gone(tmp_path: Path) -> None:
    kept = shelf(tmp_path, count_max=1)
    assert kept.gone([1, 2]) == (1, 2)
    kept.put("shop", b"1")
    kept.put("shop", b"2")
    assert kept.gone([2, 1]) == (1,)


def test_what_is_too_old_goes_but_never_the_newest(tmp_path: Path) -> None:
    kept = shelf(tmp_path)
    old, older = kept.put("billing", b"1"), kept.put("billing", b"2")
    for name in (old, older):
        path = tmp_path / "evidence" / f"{name}.json"
        ago_ns = path.stat().st_mtime_ns - 2 * DAY
        os.utime(path, ns=(ago_ns, ago_ns))
    new = kept.put("billing", b"3")
    assert [item.name for item in kept.list()] == [new]
    # As after a jump of the clock: the newest is from the future, or from long ago.
    path = tmp_path / "evidence" / f"{new}.json"
    os.utime(path, ns=(SECOND, SECOND))
    kept._thin()
    assert [item.name for item in kept.list()] == [new]


def test_numbers_rise_when_the_wall_clock_does_not(tmp_path: Path) -> None:
    kept = shelf(tmp_path)
    first = kept.put("billing", b"1")
    later_ns = (tmp_path / "evidence" / f"{first}.json").stat().st_mtime_ns + 10 * HOUR
    os.utime(tmp_path / "evidence" / f"{first}.json", ns=(later_ns, later_ns))
    assert kept.put("billing", b"2") == kept.find().name


def test_a_bundle_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="65536 are the most"):
        shelf(tmp_path).put("billing", bytes(BUNDLE_MAX + 1))
    assert not (tmp_path / "evidence").exists()


@pytest.mark.parametrize("content", [b"", b"other", b"x" * (BUNDLE_MAX + 1)])
def test_a_damaged_bundle_is_set_aside_and_the_next_is_found(tmp_path: Path, content: bytes) -> None:
    kept = shelf(tmp_path)
    sound, damaged = kept.put("billing", b"1"), kept.put("billing", b"2")
    (tmp_path / "evidence" / f"{damaged}.json").write_bytes(content)
    with pytest.raises(NoBundle, match=f"{damaged} was damaged, and set aside as {damaged}.json.corrupt-1"):
        kept.read("billing")
    assert kept.read("billing") == (sound, b"1")
    assert names(tmp_path) == [f"{sound}.json", f"{damaged}.json.corrupt-1"]


def test_a_link_in_place_of_a_bundle_is_not_followed(tmp_path: Path) -> None:
    kept = shelf(tmp_path)
    name = kept.put("billing", b"1")
    (tmp_path / "secret").write_bytes(b"1")
    path = tmp_path / "evidence" / f"{name}.json"
    path.unlink()
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(NoBundle, match="damaged"):
        kept.read()
    assert (tmp_path / "secret").read_bytes() == b"1"


def test_damaged_bundles_do_not_fill_the_disk(tmp_path: Path) -> None:
    kept = shelf(tmp_path)
    for number in range(KEPT_MAX + 4):
        name = kept.put("billing", b"%d" % number)
        (tmp_path / "evidence" / f"{name}.json").write_bytes(b"damaged")
        with pytest.raises(NoBundle):
            kept.read()
        # So that the number does not start again: it is the newest name that tells.
        kept.put("sound", b"%d" % number)
    assert len([name for name in names(tmp_path) if "corrupt" in name]) == KEPT_MAX


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    kept = shelf(tmp_path, count_max=1)
    kept.put("billing", b"1")
    for name in ("notes.txt", "000009-billing-zz.json", "draft.old"):
        (tmp_path / "evidence" / name).write_text("somebody's")
    kept.put("billing", b"2")
    assert names(tmp_path)[-3:] != [] and len(names(tmp_path)) == 4


def test_several_processes_share_a_shelf(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_put_many, args=(tmp_path, letter)) for letter in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    kept = shelf(tmp_path, count_max=100).list()
    assert [item.number for item in kept] == list(range(30, 0, -1))


def _put_many(directory: Path, letter: str) -> None:
    for number in range(10):
        shelf(directory, count_max=100).put(letter, b"%d" % number)


@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith("evidence-")])
def test_a_crash_leaves_a_bundle_whole_or_not_at_all(quick_disk: Path, point: str) -> None:
    kept = shelf(quick_disk)
    before = kept.put("billing", b"before")
    code = "import sys; from pathlib import Path; from hbagent.store.evidence import Shelf; \
Shelf(Path(sys.argv[1]), 5, 10**18).put('billing', b'after')"
    ended = subprocess.run(
        [sys.executable, "-c", code, str(quick_disk / "evidence")],
        env={**os.environ, "HBAGENT_FAILPOINT": point},
        cwd=Path(__file__).parents[2],
        timeout=30,
        check=False,
    )
    assert ended.returncode == EXIT_STATUS
    assert kept.read()[1] == (b"after" if point in ("evidence-renamed", "evidence-thinned") else b"before")
    assert kept.read(name=before) == (before, b"before")
    kept.put("billing", b"later")
    assert kept.read()[1] == b"later"
    assert all(name.endswith(".json") for name in names(quick_disk))

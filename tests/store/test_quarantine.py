from __future__ import annotations

from pathlib import Path

from hbagent.store.quarantine import KEPT_MAX, is_usable, set_aside


def test_numbers_rise_and_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "state"
    for text in ("first", "second"):
        path.write_text(text)
        set_aside(path)
    assert (tmp_path / "state.corrupt-1").read_text() == "first"
    assert (tmp_path / "state.corrupt-2").read_text() == "second"
    assert not path.exists()


def test_companions_go_along_under_the_same_number(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_text("main")
    (tmp_path / "state.db-wal").write_text("log")
    assert set_aside(path, ("-wal", "-shm")) == tmp_path / "state.db.corrupt-1"
    assert (tmp_path / "state.db.corrupt-1-wal").read_text() == "log"
    path.write_text("other")
    assert set_aside(path, ("-wal", "-shm")).name == "state.db.corrupt-2"


def test_a_kept_file_stays_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("content")
    aside = set_aside(path, keep=True)
    assert path.read_text() == aside.read_text() == "content"


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "state"
    for number in range(1, KEPT_MAX + 4):
        path.write_text(str(number))
        (tmp_path / "state-wal").write_text(str(number))
        set_aside(path, ("-wal",))
    names = {f"state.corrupt-{number}{suffix}" for number in range(4, KEPT_MAX + 4) for suffix in ("", "-wal")}
    assert {entry.name for entry in tmp_path.iterdir()} == names


def test_a_directory_that_was_set_aside_is_never_deleted(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.mkdir()
    (path / "somebody's").write_text("work")
    set_aside(path)
    for _ in range(KEPT_MAX + 2):
        path.write_text("")
        set_aside(path)
    assert (tmp_path / "state.corrupt-1" / "somebody's").read_text() == "work"


def test_only_a_regular_file_or_nothing_is_usable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    usable = {name: is_usable(tmp_path / name) for name in ("file", "absent", "directory", "link", "dangling")}
    assert usable == {"file": True, "absent": True, "directory": False, "link": False, "dangling": False}

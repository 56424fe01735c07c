"""Which programs may be run: those that nobody but root and the own user can have put there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hbagent.trust import distrust

#: "nobody"; whoever it is, not the one who runs the tests.
STRANGER = 65534


@pytest.fixture
def place(tmp_path: Path) -> Path:
    directory = tmp_path / "opt" / "site" / "checks"
    directory.mkdir(parents=True)
    return directory


def program(path: Path) -> str:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_a_program_of_ours_in_directories_of_ours_may_be_run(place: Path) -> None:
    assert distrust([program(place / "check")], "program") == ""


@pytest.mark.root
@pytest.mark.parametrize("up", [0, 1, 2])
def test_a_directory_of_another_user_on_the_way_forbids_it_however_far_up(place: Path, up: int) -> None:
    command = program(place / "check")
    directory = [place, *place.parents][up]
    os.chown(directory, STRANGER, -1)

    refusal = distrust([command], "program")

    assert refusal == (
        f"{command}: its directory {directory} is owned by user {STRANGER}; must be owned by root or by the user of "
        "this process: chown it to root, or put the program elsewhere"
    )


@pytest.mark.parametrize("up", [0, 1, 2])
def test_a_directory_on_the_way_in_which_everybody_may_write_forbids_it(place: Path, up: int) -> None:
    command = program(place / "check")
    directory = [place, *place.parents][up]
    directory.chmod(0o777)

    assert (
        distrust([command], "program") == f"{command}: its directory {directory} is writable by everybody; chmod o-w it"
    )


def test_a_directory_like_tmp_in_which_nobody_can_replace_what_is_not_his_is_no_hindrance(place: Path) -> None:
    command = program(place / "check")
    place.parent.chmod(0o1777)

    assert distrust([command], "program") == ""


@pytest.mark.root
def test_a_link_that_another_user_could_point_elsewhere_forbids_it(place: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "way").symlink_to(place)
    (tmp_path / "link").symlink_to("theirs/way")
    program(place / "check")
    os.chown(theirs, STRANGER, -1)

    assert f"its directory {theirs} is owned by user {STRANGER}" in distrust([str(tmp_path / "link/check")], "program")


@pytest.mark.root
def test_a_link_of_another_user_forbids_it_for_in_a_directory_like_tmp_he_can_set_another(
    place: Path, tmp_path: Path
) -> None:
    program(place / "check")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "theirs").symlink_to(place)
    (tmp_path / "link").symlink_to("shared/theirs/check")
    assert distrust([str(tmp_path / "link")], "program") == ""
    os.lchown(shared / "theirs", STRANGER, -1)

    assert distrust([str(tmp_path / "link")], "program") == (
        f"{tmp_path}/link: the link {shared}/theirs is owned by user {STRANGER}; must be owned by root or by the user "
        "of this process: chown -h it to root, or put the program elsewhere"
    )


@pytest.mark.root
@pytest.mark.parametrize("group", [0, STRANGER])
def test_a_directory_that_its_group_may_write_to_is_believed_and_a_file_is_not(place: Path, group: int) -> None:
    command = program(place / "check")
    os.chown(place, -1, group)
    place.chmod(0o2775)
    assert distrust([command], "program") == ""
    Path(command).chmod(0o775)
    assert distrust([command], "program") == f"{command}: writable by group or others; chmod go-w it"


@pytest.mark.root
def test_a_sticky_directory_of_another_user_forbids_it(place: Path) -> None:
    command = program(place / "check")
    place.chmod(0o1777)
    os.chown(place, STRANGER, -1)

    assert f"owned by user {STRANGER}" in distrust([command], "program")


def test_the_way_up_and_down_again_is_followed(place: Path) -> None:
    program(place / "check")

    assert distrust([str(place / ".." / "checks" / "check")], "program") == ""


def test_links_that_lead_to_one_another_are_no_program(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")

    assert distrust([str(tmp_path / "one")], "program").startswith(f"{tmp_path}/one: ")
    assert distrust([str(tmp_path / "one" / "check")], "program").startswith(f"{tmp_path}/one/check: ")

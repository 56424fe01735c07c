"""Calls from other threads reach the loop in order, wake it, and never touch a descriptor that is no longer ours."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator

import pytest

from hbagent.role.mailbox import Mailbox


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    made = Mailbox()
    yield made
    made.close()


def readable(mailbox: Mailbox, bound_s: float = 0.0) -> bool:
    return bool(select.select([mailbox.fileno()], [], [], bound_s)[0])


def test_calls_of_another_thread_wake_the_loop_and_are_made_in_order(mailbox: Mailbox) -> None:
    made: list[int] = []

    def post_all() -> None:
        for number in range(100):
            mailbox.post(lambda number=number: made.append(number))  # type: ignore[misc]

    assert not readable(mailbox)
    poster = threading.Thread(target=post_all)
    poster.start()
    assert readable(mailbox, 20.0)
    poster.join()
    for call in mailbox.take():
        call()
    assert made == list(range(100))
    assert not readable(mailbox)


def test_what_a_call_posts_is_left_for_the_next_turn_and_wakes_it(mailbox: Mailbox) -> None:
    def post_again() -> None:
        mailbox.post(lambda: None)

    mailbox.post(post_again)
    (call,) = mailbox.take()
    assert not readable(mailbox)
    call()
    assert readable(mailbox)
    assert len(mailbox.take()) == 1


def test_a_hundred_thousand_posts_fill_neither_the_pipe_nor_the_poster() -> None:
    mailbox = Mailbox(limit=200_000)
    for _ in range(100_000):
        assert mailbox.post(lambda: None)
    assert len(mailbox.take()) == 100_000
    assert not readable(mailbox)
    mailbox.close()


def test_a_full_mailbox_refuses_news_and_counts_them_but_never_what_it_owes() -> None:
    mailbox = Mailbox(limit=2)
    assert [mailbox.post(lambda: None) for _ in range(4)] == [True, True, False, False]
    assert mailbox.dropped == 2
    assert mailbox.post(lambda: None, owed=True)
    assert len(mailbox.take()) == 3
    mailbox.close()


def test_a_late_worker_writes_into_nobody_elses_descriptor(mailbox: Mailbox) -> None:
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK)
    mailbox.close()
    # As if the kernel had given its number to somebody else.
    mailbox._signal_fd = write_fd
    try:
        mailbox.post(lambda: None, owed=True)
        with pytest.raises(BlockingIOError):
            os.read(read_fd, 1)
    finally:
        os.close(read_fd)
        os.close(write_fd)
    mailbox.close()

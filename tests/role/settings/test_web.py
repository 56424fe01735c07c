"""Where a status page is to be served, as a config file says it, and what is wrong with a file that says so badly."""

from __future__ import annotations

import pytest

from hbagent.role.settings import Web
from hbagent.role.settings.load import read_leader, read_root
from tests.role.settings.test_load import HERE, LEADER, ROOT, problems


def test_there_is_no_page_unless_it_is_written() -> None:
    assert read_root(HERE, ROOT).web is None
    assert read_leader(HERE, LEADER).web is None


@pytest.mark.parametrize("listen", ["127.0.0.1:8780", "[::1]:8780", "*:80", "10.0.0.5:65535", "[::]:8780"])
def test_an_address_and_names_are_read(listen: str) -> None:
    lines = f'\n[web]\nlisten = "{listen}"\nhosts = ["status.example.org"]\n'
    assert read_root(HERE, ROOT + lines).web == Web(listen=listen, hosts=("status.example.org",))
    assert read_leader(HERE, LEADER + lines).web == Web(listen=listen, hosts=("status.example.org",))


@pytest.mark.parametrize(
    "listen", ['"localhost:8780"', '"127.0.0.1"', '"127.0.0.1:0"', '"::1:8780"', '"127.0.0.1:99999"', "8780", '"[x]:1"']
)
def test_what_is_no_numeric_address_and_port_is_refused(listen: str) -> None:
    (said,) = problems(read_root, f"{ROOT}\n[web]\nlisten = {listen}\n", HERE)
    assert "must be a numeric address and a port" in said


def test_a_page_must_say_where() -> None:
    (said,) = problems(read_root, f"{ROOT}\n[web]\n", HERE)
    assert 'missing key "listen"' in said

"""Readers of single values: what each takes, and what it says of everything else."""

from __future__ import annotations

from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.units import HOUR, MILLISECOND, SECOND
from hbagent.role.settings import values
from hbagent.role.settings.values import Reader
from hbagent.transport import keys

KEY = "R[&C4]+AHCkK>B<.=:zF@Vn[+Yo50-uxXD9{LoFz"
READERS: dict[str, Reader] = {
    "text": values.text,
    "argument": values.argument,
    "flag": values.flag,
    "node_name": values.node_name,
    "rack_name": values.rack_name,
    "part_name": values.part_name,
    "z85_key": values.z85_key,
    "bind_address": values.bind_address,
    "connect_address": values.connect_address,
    "query_address": values.query_address,
    "ip_address": values.ip_address,
    "duration": values.duration("100ms", "1h"),
    "whole": values.whole(1, 65535),
    "number": values.number(0.5, 100),
    "word": values.word("text", "json"),
}


@pytest.mark.parametrize(
    ("reader", "value", "setting"),
    [
        ("text", "a b", "a b"),
        ("argument", "", ""),
        ("argument", "two\nlines", "two\nlines"),
        ("flag", False, False),
        ("node_name", "dc1/rack07/host12", "dc1/rack07/host12"),
        ("rack_name", "dc1/rack07", "dc1/rack07"),
        ("part_name", "host12", "host12"),
        ("z85_key", KEY, KEY),
        ("bind_address", "tcp://*:5701", "tcp://*:5701"),
        ("bind_address", "tcp://0.0.0.0:1", "tcp://0.0.0.0:1"),
        ("bind_address", "tcp://[::]:65535", "tcp://[::]:65535"),
        ("bind_address", "tcp://eth0:5701", "tcp://eth0:5701"),
        ("bind_address", "ipc://run/x.sock", "ipc://run/x.sock"),
        ("connect_address", "tcp://rack07-leader1.dc1.example:5701", "tcp://rack07-leader1.dc1.example:5701"),
        ("connect_address", "tcp://[2001:db8::5]:5701", "tcp://[2001:db8::5]:5701"),
        ("query_address", "ipc:///run/hbagent-root/root.sock", "ipc:///run/hbagent-root/root.sock"),
        ("ip_address", "::", "::"),
        ("ip_address", "10.0.0.5", "10.0.0.5"),
        ("duration", "250ms", 250 * MILLISECOND),
        ("duration", "1h", HOUR),
        ("duration", 2, 2 * SECOND),
        ("duration", 0.5, 500 * MILLISECOND),
        ("whole", 5701, 5701),
        ("number", 8, 8.0),
        ("word", "json", "json"),
    ],
)
def test_a_right_value_is_taken(reader: str, value: Any, setting: Any) -> None:
    read = READERS[reader](value)
    assert (read, type(read)) == (setting, type(setting))


@pytest.mark.parametrize(
    ("reader", "value", "says"),
    [
        ("text", "", "not empty"),
        ("text", 5, "in quotes"),
        ("text", "a\x1b[1m", "control characters"),
        ("text", "x" * 5000, "4,096 characters"),
        ("argument", "a\0b", "zero byte"),
        ("argument", "x" * 5000, "4,096 characters"),
        ("flag", "true", "without quotes"),
        ("flag", 1, "true or false"),
        ("node_name", "dc1/rack07", "three parts"),
        ("node_name", "../../etc", "three parts"),
        ("rack_name", "dc1/rack07/host12", "two parts"),
        ("rack_name", "dc1/$(id)", "two parts"),
        ("part_name", "-x", "a letter or digit at both ends"),
        ("part_name", "dc1/rack07/host12", '"host12"'),
        ("z85_key", KEY[:-1], "40 characters"),
        ("z85_key", KEY[:-1] + "~", "40 characters"),
        ("z85_key", "#" * 40, "40 characters"),
        ("bind_address", "*:5701", "tcp://"),
        ("bind_address", "tcp://*:0", "tcp://"),
        ("bind_address", "tcp://*:65536", "tcp://"),
        ("bind_address", "tcp://*:*", "tcp://"),
        ("bind_address", "tcp://[::zz]:5701", "tcp://"),
        ("bind_address", "tcp://[1.2.3.4]:5701", "tcp://"),
        ("bind_address", "udp://10.0.0.5:5701", "tcp://"),
        ("bind_address", "ipc://*", "ipc://"),
        ("bind_address", "ipc://@abstract", "ipc://"),
        ("connect_address", "tcp://*:5701", "of one host"),
        ("connect_address", "tcp://0.0.0.0:5701", "of one host"),
        ("connect_address", "tcp://[::]:5701", "of one host"),
        ("connect_address", "tcp://10.0.0.1:1;10.0.0.2:2", "tcp://"),
        ("query_address", "tcp://127.0.0.1:5799", "unix socket"),
        ("ip_address", "localhost", "numeric"),
        ("ip_address", "10.0.0", "numeric"),
        ("duration", "99ms", "from 100ms to 1h"),
        ("duration", "2h", "from 100ms to 1h"),
        ("duration", "5", "a duration"),
        ("duration", "fast", "a duration"),
        ("duration", True, "a duration"),
        ("duration", -1, "from 100ms"),
        ("duration", float("nan"), "a duration"),
        ("duration", float("inf"), "a duration"),
        pytest.param("duration", 1 << 20_000, "a duration", id="huge"),
        ("duration", "9" * 5000 + ".5s", "a duration"),
        ("whole", 0, "from 1 to 65,535"),
        ("whole", 65536, "from 1 to 65,535"),
        ("whole", 1.0, "whole number"),
        ("whole", True, "whole number"),
        ("number", 0.4, "from 0.5 to 100"),
        ("number", float("nan"), "from 0.5 to 100"),
        ("number", True, "a number"),
        ("word", "jsn", 'text, json, did you mean "json"?'),
        ("word", ["json"], "one of text, json"),
    ],
)
def test_a_wrong_value_is_told_what_it_must_be(reader: str, value: Any, says: str) -> None:
    with pytest.raises(ValueError) as raised:
        READERS[reader](value)
    assert str(raised.value).startswith("must ")
    assert says in str(raised.value)


ANYTHING = st.one_of(
    st.text(), st.integers(), st.floats(), st.booleans(), st.lists(st.integers()), st.dates(), st.just({"a": {}})
)
NEARLY = st.from_regex(r"(tcp://|ipc://|)([0-9.\[\]:*@a-f]{0,20})(:[0-9]{0,7})?(ms|s|h|)", fullmatch=True)


@pytest.mark.parametrize("reader", READERS)
@given(value=ANYTHING | NEARLY)
def test_any_value_is_taken_or_told(reader: str, value: Any) -> None:
    try:
        READERS[reader](value)
    except ValueError as error:
        assert str(error).startswith("must ")


@given(st.text(alphabet=values._Z85, min_size=40, max_size=40) | st.text(max_size=41))
def test_a_key_here_is_a_key_for_the_transport(text: str) -> None:
    assert values.is_z85_key(text) == keys.is_key(text)


def test_every_generated_key_is_a_key() -> None:
    assert all(values.is_z85_key(zmq.curve_keypair()[0].decode()) for _ in range(50))


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("ipc:///run/x.sock", True),
        ("tcp://127.0.0.1:5701", True),
        ("tcp://127.9.8.7:5701", True),
        ("tcp://[::1]:5701", True),
        ("tcp://[0:0:0:0:0:0:0:1]:5701", True),
        ("tcp://*:5701", False),
        ("tcp://0.0.0.0:5701", False),
        ("tcp://[::]:5701", False),
        ("tcp://[::ffff:127.0.0.1]:5701", False),
        ("tcp://10.127.0.1:5701", False),
        ("tcp://127.evil.example:5701", False),
        ("tcp://localhost:5701", False),
    ],
)
def test_only_numeric_loopback_and_unix_sockets_are_local(address: str, local: bool) -> None:
    assert values.is_local(address) is local

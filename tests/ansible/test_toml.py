from __future__ import annotations

from typing import Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from tests.ansible.plugins import plugin

to_toml = plugin("filter", "toml").to_toml
SCALARS = st.one_of(st.text(), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.floats(allow_nan=False))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
DOCUMENTS = st.dictionaries(st.text(), VALUES, max_size=4)


@given(DOCUMENTS)
def test_what_is_written_is_read_as_it_was(document: dict[str, Any]) -> None:
    assert tomli.loads(to_toml(document)) == document


def test_tables_and_lists_of_tables_stand_on_their_own() -> None:
    text = to_toml({"agent": {"node": "dc1/a/h1"}, "probe": [{"name": "x", "env": {"A": "1"}}, {"name": "y"}]})
    assert text == '[agent]\nnode = "dc1/a/h1"\n\n[[probe]]\nname = "x"\nenv = { A = "1" }\n\n[[probe]]\nname = "y"\n'


def test_nothing_is_left_out_and_what_has_no_form_is_refused() -> None:
    assert to_toml({"a": None, "t": {"b": None}}) == "[t]\n"
    with pytest.raises(ValueError, match="has no form in TOML"):
        to_toml({"a": {1, 2}})

"""Where the history is kept: a wrong address is refused, and no password stands in what is said about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hbagent.core.units import DAY
from hbagent.role.settings import ConfigError, RootSettings, load_root

MINIMAL = """
[root]
name = "dc1/root"
publish = "tcp://127.0.0.1:5711"
control = "tcp://127.0.0.1:5712"
{line}
[security]
plain = true
[[rack]]
name = "dc1/rack1"
leaders = ["dc1/rack1-leader1"]
"""


def load(directory: Path, line: str = "", mode: int = 0o600) -> RootSettings:
    file = directory / "root.toml"
    file.write_text(MINIMAL.format(line=line))
    file.chmod(mode)
    return load_root(file)


def test_it_is_a_file_for_ninety_days_unless_said_otherwise(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert (settings.store, settings.retention_ns) == ("sqlite", 90 * DAY)
    settings = load(tmp_path, 'store = "postgresql://db1.example/hbagent"\nretention = "10d"')
    assert (settings.store, settings.retention_ns) == ("postgresql://db1.example/hbagent", 10 * DAY)
    assert load(tmp_path, 'store = "/srv/history.db"').store == "/srv/history.db"


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://root:secret@one:5432,two:5433/hbagent?target_session_attrs=read-write",
        "postgres:///hbagent?host=/run/postgresql&passfile=/etc/hbagent/pgpass",
        "postgresql://?service=hbagent",
    ],
)
def test_what_libpq_permits_is_taken(tmp_path: Path, address: str) -> None:
    assert load(tmp_path, f'store = "{address}"').store == address


@pytest.mark.parametrize(
    "address",
    [
        "mysql://u:secret@db1/x",
        "postgresql://u:secret@db1:port/x",
        "postgresql://u:sec ret@db1/x",
        "pg://secret@[db1/x",
    ],
)
def test_a_wrong_address_is_refused_and_not_repeated(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match=r"store.*want .*postgresql://USER@HOST") as caught:
        load(tmp_path, f'store = "{address}"')
    assert "sec" not in str(caught.value).replace("[security]", "")


def test_a_password_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    line = 'store = "postgresql://u:hidden@db1/x"'
    with pytest.raises(ConfigError, match="chmod o-r") as caught:
        load(tmp_path, line, 0o644)
    assert "hidden" not in str(caught.value)
    assert load(tmp_path, line, 0o640).store
    assert load(tmp_path, 'store = "postgresql://u@db1/x"', 0o644).store

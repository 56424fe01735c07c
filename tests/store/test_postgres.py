"""A store on a server: it may go away, hang, be claimed or be damaged, and no password is ever told."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from hbagent.core.records import Restored
from hbagent.store import postgres as postgres_module
from hbagent.store.claim import ClaimedError
from hbagent.store.history import HistoryError
from hbagent.store.postgres import PostgresHistory, name_of, parameters, sentence
from tests.store.samples import balanced, batch, restored_of, sequences
from tests.store.server import Server

pytestmark = pytest.mark.slow


@pytest.fixture
def schema(server: Server) -> str:
    return server.new_schema()


@pytest.fixture
def history(server: Server, schema: str) -> Iterator[PostgresHistory]:
    history = PostgresHistory(server.address(schema))
    history.restore()
    yield history
    history.close()


# ---- a server that is away -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restarted", "crashed"])
def test_a_server_that_went_away_is_an_error_that_passes(
    server: Server, history: PostgresHistory, how: signal.Signals
) -> None:
    history.commit(batch(1))
    server.stop(how)
    try:
        for _ in range(2):
            with pytest.raises(HistoryError, match="postgresql://"):
                history.commit(batch(2))
        with pytest.raises(HistoryError):
            history.events(10)
    finally:
        server.start()
    history.commit(batch(2))
    assert sequences(history.events(10)) == [2, 1]
    assert history.restore() == restored_of([1, 2])


def test_a_server_that_is_not_there_when_the_root_starts_is_an_error_that_passes(server: Server, schema: str) -> None:
    server.stop()
    history = PostgresHistory(server.address(schema))
    try:
        with pytest.raises(HistoryError, match="postgresql://"):
            history.restore()
    finally:
        server.start()
    history.commit(batch(1))
    assert history.restore() == restored_of([1])
    history.close()


def test_a_server_that_hangs_is_cut_off_and_comes_back(
    server: Server, history: PostgresHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.commit(batch(1))
    server.pause()
    try:
        # Nothing else would ever end it: who is paused gives up no statement.
        monkeypatch.setattr(postgres_module, "PATIENCE_S", 0.5)
        with pytest.raises(HistoryError):
            history.commit(batch(2))
        # Now it takes no connection either, and that is given up by another clock.
        monkeypatch.setattr(postgres_module, "PATIENCE_S", 300.0)
        monkeypatch.setitem(history._parameters, "connect_timeout", 2)
        with pytest.raises(HistoryError):
            history.commit(batch(2))
    finally:
        server.resume()
    monkeypatch.setattr(postgres_module, "PATIENCE_S", 15.0)
    monkeypatch.setitem(history._parameters, "connect_timeout", 20)
    history.commit(batch(2))
    assert history.restore() == restored_of([1, 2])


def test_a_lock_of_somebody_else_is_an_error_that_passes(
    server: Server, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgres_module._SETTINGS, "lock_timeout", "200ms")
    history = PostgresHistory(server.address(schema))
    history.commit(batch(1))
    with postgres_module.connect(parameters(server.address(schema))) as operator, operator.transaction():
        operator.execute("LOCK TABLE events")
        with pytest.raises(HistoryError, match="lock timeout"):
            history.commit(batch(2))
    history.commit(batch(2))
    assert sequences(history.events(10)) == [2, 1]
    assert balanced(history)
    history.close()


# ---- who may write ---------------------------------------------------------------------------------------------


def test_two_roots_cannot_use_one_store(
    server: Server, schema: str, history: PostgresHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgres_module._SETTINGS, "lock_timeout", "200ms")
    second = PostgresHistory(server.address(schema))
    with pytest.raises(HistoryError, match="another root uses this store") as caught:
        second.restore()
    assert isinstance(caught.value.__cause__, ClaimedError)
    other = PostgresHistory(server.address(server.new_schema()))
    assert other.restore() == Restored(), "of another schema it is another store"
    other.close()
    history.close()
    # A connection that was closed holds its lock for a moment.
    monkeypatch.setitem(postgres_module._SETTINGS, "lock_timeout", "20s")
    second.commit(batch(1))
    second.close()


def test_who_has_lost_the_store_to_another_cannot_write(
    server: Server, schema: str, history: PostgresHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgres_module._SETTINGS, "lock_timeout", "200ms")
    history.commit(batch(1))
    server.cut_off("hbagent root")
    second = PostgresHistory(server.address(schema))
    second.commit(batch(2))
    with pytest.raises(HistoryError):
        history.commit(batch(3))
    with pytest.raises(HistoryError, match="another root"):
        history.commit(batch(3))
    assert sequences(second.events(10)) == [2, 1]
    second.close()
    # A connection that was closed holds its lock for a moment.
    monkeypatch.setitem(postgres_module._SETTINGS, "lock_timeout", "20s")
    history.commit(batch(3))
    assert sequences(history.events(10)) == [3, 2, 1]


# ---- what is there ---------------------------------------------------------------------------------------------


def test_tables_are_made_in_a_schema_of_their_own(server: Server) -> None:
    history = PostgresHistory(f"postgresql://root@/postgres?host={server.directory}")
    history.commit(batch(1))
    history.close()
    assert server.ask("SELECT count(*) FROM hbagent.events") == [(1,)]
    server.ask("DROP SCHEMA hbagent CASCADE")


def test_another_version_is_left_alone(server: Server, schema: str, history: PostgresHistory) -> None:
    history.commit(batch(1))
    history.close()
    server.ask(f"UPDATE {schema}.store_version SET version = 4")
    with pytest.raises(HistoryError, match="version 4, not 3"):
        history.restore()
    server.ask(f"UPDATE {schema}.store_version SET version = 3")
    assert history.restore() == restored_of([1])


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("nodes", "SET node = 'dc1/rack1/phantom' WHERE node = 'dc1/rack1/node2'"),
        ("nodes", "SET crc = NULL WHERE node = 'dc1/rack1/node2'"),
        ("hook_runs", "SET state = 'done' WHERE run_id = 'event-2-page'"),
        ("troubles", "SET body = 'x' WHERE subject = 'dc1/rack1/node2'"),
    ],
)
def test_a_row_that_was_changed_is_set_aside_and_told(
    server: Server, schema: str, history: PostgresHistory, table: str, change: str
) -> None:
    for number in (1, 2, 3):
        history.commit(batch(number))
    server.ask(f"UPDATE {schema}.{table} {change}")
    restored = history.restore()
    assert f"1 rows of {table} do not match their checksum; 1 rows set aside" in restored.problems[0]
    lost = {"nodes": restored.nodes, "hook_runs": restored.runs, "troubles": restored.troubles}[table]
    assert len(lost) == (5 if table == "hook_runs" else 2)
    assert "phantom" not in str(restored.nodes)
    assert server.ask(f"SELECT place FROM {schema}.damaged") == [(table,)]
    assert history.restore().problems == ()


def test_a_commit_is_synced_whatever_the_server_thinks(server: Server, history: PostgresHistory, schema: str) -> None:
    history.close()
    server.ask("ALTER DATABASE postgres SET synchronous_commit = off")
    try:
        history.restore()
        assert history._open_database is not None
        assert history._open_database.rows("SHOW synchronous_commit") == [("on",)]
        assert history.problems == []
    finally:
        server.ask("ALTER DATABASE postgres RESET synchronous_commit")


# ---- secrets ---------------------------------------------------------------------------------------------------


def test_no_password_is_ever_told(server: Server, schema: str) -> None:
    server.ask("CREATE ROLE secretive LOGIN PASSWORD 'right-one'")
    server.ask(f"GRANT ALL ON SCHEMA {schema} TO secretive")
    history = PostgresHistory(server.address(schema, "secretive", "right-one"))
    history.commit(batch(1))
    assert history.restore() == restored_of([1])
    history.close()
    wrong = PostgresHistory(server.address(schema, "secretive", "wrong-one"))
    with pytest.raises(HistoryError, match="password authentication failed") as caught:
        wrong.restore()
    assert "-one" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "-one" not in wrong.name


def test_a_password_may_lie_in_a_file(server: Server, schema: str, history: PostgresHistory) -> None:
    history.close()
    server.ask("CREATE ROLE careful LOGIN PASSWORD 'kept'")
    server.ask(f"GRANT ALL ON SCHEMA {schema} TO careful")
    server.ask(f"DROP SCHEMA {schema} CASCADE")
    server.ask(f"CREATE SCHEMA {schema} AUTHORIZATION careful")
    passfile = server.directory / "pass"
    passfile.write_text("*:*:*:careful:kept\n")
    passfile.chmod(0o600)
    history = PostgresHistory(f"{server.address(schema, 'careful')}&passfile={passfile}")
    assert history.restore() == Restored()
    history.close()


@pytest.mark.parametrize(
    "address", ["postgresql://u:pw/d@host:x/db", "postgresql://u:hidden@[::1/db", "postgresql://u:hidden@h/d?no=1"]
)
def test_what_is_no_address_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(ValueError, match="no PostgreSQL address") as caught:
        PostgresHistory(address)
    assert "hidden" not in str(caught.value)
    assert "pw" not in str(caught.value)


def test_a_password_that_a_server_repeats_is_taken_out() -> None:
    values = parameters("postgresql://u:hidden@h/db?sslpassword=deeper")
    assert sentence(OSError("no hidden\nand no deeper"), values) == "no *** and no ***"


def test_a_store_is_named_by_its_place_alone() -> None:
    assert name_of(parameters("postgresql://u:hidden@one:1,two:2/db")) == "postgresql://one,two:1,2/db"
    assert name_of(parameters("postgresql://?service=hb")) == "postgresql:///?service=hb"


# ---- the reader ------------------------------------------------------------------------------------------------


def read(history: PostgresHistory) -> list[int]:
    with history.reader().moment():
        return sequences(history.reader().events(10))


def test_a_reader_holds_no_claim(server: Server, schema: str, history: PostgresHistory) -> None:
    history.commit(batch(1))
    second = PostgresHistory(server.address(schema))
    with history.reader().moment():
        assert sequences(history.reader().events(10)) == [1]
        history.close()
        assert second.restore() == restored_of([1])
    second.close()
    with pytest.raises(HistoryError, match="it is not open"):
        read(history)


def test_a_reader_that_was_cut_off_is_an_error_that_passes(server: Server, history: PostgresHistory) -> None:
    history.commit(batch(1))
    assert read(history) == [1]
    server.cut_off("hbagent root reader")
    with pytest.raises(HistoryError, match="postgresql://"):
        read(history)
    assert read(history) == [1]
    history.commit(batch(2))
    assert read(history) == [2, 1]


def test_a_reader_waits_for_no_lock_of_somebody_else(
    server: Server, schema: str, history: PostgresHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.commit(batch(1))
    # The history itself would wait.
    monkeypatch.setitem(postgres_module._SETTINGS, "statement_timeout", "0")
    monkeypatch.setitem(postgres_module._SETTINGS, "lock_timeout", "0")
    monkeypatch.setattr(postgres_module, "PATIENCE_S", 300.0)
    with postgres_module.connect(parameters(server.address(schema))) as operator, operator.transaction():
        operator.execute("LOCK TABLE events")
        with pytest.raises(HistoryError, match="lock timeout"):
            read(history)
    assert read(history) == [1]


def test_a_reader_asks_in_the_schema_of_its_history(server: Server) -> None:
    address = f"postgresql://root@/postgres?host={server.directory}"
    history = PostgresHistory(address)
    history.restore()
    history.commit(batch(1))
    assert read(history) == [1]
    history.close()
    server.ask("DROP SCHEMA hbagent CASCADE")

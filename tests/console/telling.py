"""A source that tells a console what a test wants it to hear: answers to "cells" made of the real structs, as the JSON
values that an asker hands out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from hbagent.cli.answers import Row
from hbagent.cli.query import Asker
from hbagent.core.states import Health, Liveness, RackState
from hbagent.core.views import (
    Cell,
    CellsView,
    IncidentView,
    LeaderView,
    RackView,
    RootView,
    SilenceView,
    count_liveness,
)

AT = "2026-11-21T12:00:13.250Z"
LONG_AGO = "2026-11-21T09:30:00.000Z"


def cell(
    node: str, liveness: str = "ALIVE", cause: str | None = None, health: str = "OK", text: str = "", **more: Any
) -> Cell:
    values: dict[str, Any] = {"since": LONG_AGO, "age_s": 0.25, "covered": "", "flapping": False} | more
    return Cell(node, Liveness(liveness), cause, Health(health), values["since"], values["age_s"], text,
                values["covered"], values["flapping"])  # fmt: skip


def rack(name: str, state: str = "OK", age_s: float | None = 0.4, nodes: int = 4, **counts: int) -> RackView:
    leader = LeaderView(leader=f"{name}-leader1", state=Liveness.ALIVE, age_s=age_s, uptime_s=7800.0, version="1.0.0")
    tally = count_liveness([]) | {"ALIVE": nodes - sum(counts.values())} | counts
    return RackView(rack=name, state=RackState(state), leaders=[leader], counts=tally)


def incident(name: str, rack: str, cause: str | None, members: list[str], **more: Any) -> IncidentView:
    whole: dict[str, Any] = {
        "state": "firing",
        "axis": "liveness",
        "kind": "node-dead",
        "opened": "2026-11-21T12:00:03.250Z",
        "resolved": None,
        "age_s": 10.0,
        "burning": len(members),
        "count": len(members),
        "text": f"{len(members)} nodes of {rack} are DEAD: {cause}",
        "acked_by": "",
        "comment": "",
        "silenced_by": [],
        "inhibited_by": "",
        "drill": False,
    }
    return IncidentView(incident=name, rack=rack, cause=cause, members=members, **(whole | more))


def silence(name: str, **more: Any) -> SilenceView:
    whole: dict[str, Any] = {
        "maintenance": False,
        "state": "active",
        "nodes": [],
        "racks": ["demo/rack2"],
        "causes": [],
        "kinds": [],
        "begins": "2026-11-21T11:00:00.000Z",
        "ends": "2026-11-21T13:00:00.000Z",
        "next": "2026-11-21T13:00:00.000Z",
        "every": "",
        "length_s": 7200.0,
        "reason": "the switch is swapped",
        "author": "alice (uid 1000)",
        "ended_by": "",
        "covers": 1,
    }
    return SilenceView(silence=name, **(whole | more))


def answer(
    cells: list[Cell],
    racks: list[RackView],
    version: int = 1,
    whole: bool = True,
    incidents: list[IncidentView] | None = None,
    silences: list[SilenceView] | None = None,
    gone: list[str] | None = None,
    life: str = "1f",
    **root: Any,
) -> Row:
    about: dict[str, Any] = {
        "name": "demo/root",
        "role": "root",
        "version": "1.0.0",
        "at": AT,
        "uptime_s": 7805.0,
    } | root
    view = CellsView(
        life=life,
        version=version,
        whole=whole,
        root=RootView(**about),
        racks=racks,
        cells=cells,
        gone=gone or [],
        incidents=incidents or [],
        silences=silences or [],
    )
    document: Row = msgspec.json.decode(msgspec.json.encode(view))
    return document


def troubled(**more: Any) -> Row:
    """A bit of everything in three racks."""
    cells = [cell(f"demo/rack{r}/node{n}") for r in (1, 2, 3) for n in range(1, 13)]
    worse = [
        cell("demo/rack1/node1", "DEAD", "process-exit", "UNKNOWN", since="2026-11-21T12:00:03.250Z", age_s=14.75),
        cell("demo/rack1/node2", "SUSPECT", "silence", since="2026-11-21T12:00:12.950Z", age_s=1.45),
        cell("demo/rack1/node3", health="DEADLOCKED", text="billing: payer and refunder wait for each other"),
        cell("demo/rack1/node10", "ALIVE", "link-cut"),
        cell("demo/rack2/node4", health="WARNING", text="disk: 93% used", covered="silence"),
        cell("demo/rack2/node5", "LEFT", "left", "UNKNOWN", age_s=90000.0, since="2026-11-20T11:00:00.000Z"),
        cell("demo/rack3/node7", health="CRITICAL", text="pg: no answer on 5432", flapping=True),
    ]
    changed = {one.node: one for one in worse}
    incidents = [
        incident("i17", "demo/rack1", "process-exit", ["demo/rack1/node1"]),
        incident("i18", "demo/rack3", None, ["demo/rack3/node7"], axis="health", kind="health-changed",
                 state="acknowledged", acked_by="alice (uid 1000)", comment="the database is restarted",
                 text="1 node of demo/rack3 is CRITICAL"),
        incident("i19", "demo/rack2", None, ["demo/rack2/node4"], axis="health", silenced_by=["s3"],
                 text="1 node of demo/rack2 is WARNING"),
    ]  # fmt: skip
    racks = [
        rack("demo/rack1", "DEGRADED", nodes=12, DEAD=1, SUSPECT=1),
        rack("demo/rack2", nodes=12, LEFT=1),
        rack("demo/rack3", age_s=12.5, nodes=12),
    ]
    told = answer([changed.get(one.node, one) for one in cells], racks, incidents=incidents,
                  silences=[silence("s3")], **more)  # fmt: skip
    return told


def large(nodes: int = 10_000, per_rack: int = 40, bad: int = 0) -> Row:
    """A whole datacenter; the first `bad` nodes are dead."""
    names = [f"dc1/rack{at // per_rack + 1:03d}/host{at % per_rack + 1:02d}" for at in range(nodes)]
    cells = [cell(name, *(("DEAD", "host-gone", "UNKNOWN") if at < bad else ())) for at, name in enumerate(names)]
    racks = [rack(f"dc1/rack{at + 1:03d}", nodes=per_rack) for at in range(-(-nodes // per_rack))]
    return answer(cells, racks)


class Teller:
    """In the place of a feed: tells when it is told to, and notes what was asked of it."""

    def __init__(self, told: Callable[[Row | None, str], None]) -> None:
        self.told = told
        self.begun = self.closed = False
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.asked: list[dict[str, Any]] = []
        #: What is answered to an errand, by what is asked for; what is not here is refused.
        self.answers: dict[str, Row] = {}

    def start(self) -> None:
        self.begun = True

    def close(self) -> None:
        self.closed = True

    def ask_now(self) -> None:
        """Nothing comes by itself."""

    def run(
        self, errand: Callable[[Asker], Any], told: Callable[[Row | None, str], None], patience_ns: int = 0
    ) -> None:
        what = ""
        teller = self

        class Noting:
            """Takes what a real connection would send."""

            target: Any = None

            def ask(self, kind: str, **fields: Any) -> Row | None:
                nonlocal what
                what = kind
                teller.asked.append({"what": kind, **fields})
                return teller.answers.get(kind)

            def order(self, kind: str, **fields: Any) -> Row | None:
                nonlocal what
                what = kind
                teller.orders.append((kind, fields))
                return teller.answers.get(kind)

        answer = errand(Noting())  # type: ignore[arg-type]
        told(answer, "" if answer is not None else f"you may not {what}")

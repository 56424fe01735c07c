"""The root's desk: whoever has a question or an order comes here, and nothing here changes a verdict.

Questions are answered from what the core knows now, or handed on: to the store, for what has been; to a leader, for
what only a node has. Orders come from people who may give them (`messages.Ordered` names them, see `role.questions`);
each is answered with what it made, or with a sentence that says why it made nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from . import drills
from .alertviews import incident_view, incident_views, markings, silence_view, silence_views, unsent_view
from .bundles import Bundle, Bundles, bundle_of, too_many
from .config import RootConfig
from .dispatch import revived as again
from .effects import Answer, Effect, Effects, Fetch, Note, Revive, Send
from .hooktest import HookTests
from .matcher import fits_nobody
from .messages import (
    DrillBegun,
    DrillWanted,
    EvidencePage,
    EvidenceWanted,
    HookFinished,
    Ordered,
    Query,
    Revived,
)
from .records import HookRun
from .rootviews import accuracy_view, brief_view, cells_view, explain_view, status_view
from .states import Kind
from .views import SCHEMA, EvidenceView

if TYPE_CHECKING:
    from .root import RootCore


class Desk:
    """Questions and orders of one root."""

    def __init__(self, root: RootCore, life: int) -> None:
        self._root = root
        #: Evidence bundles under way from leaders.
        self._bundles = Bundles(life)
        self._drills = drills.Drills(life, drills.ROOT_TIME_NS)
        self._hook_tests = HookTests()
        #: Answers to orders whose outcome has no batch yet, and those of the batch with this token.
        self._unwritten: list[tuple[Note, Answer]] = []
        self._writing: dict[int, list[tuple[Note, Answer]]] = {}

    @property
    def _config(self) -> RootConfig:
        return self._root.config

    def deadline(self) -> int | None:
        """When `expired` has something to do."""
        due = [at for at in (self._bundles.deadline(), self._drills.deadline()) if at is not None]
        return min(due, default=None)

    def expired(self, now: int) -> Effects:
        """What was asked of a node and not answered in time."""
        fetches = [self._fetched(fetch) for fetch in self._bundles.expired(now)]
        errands = [
            denied(errand.asker, errand.query, drills.unanswered(errand)) for errand in self._drills.expired(now)
        ]
        return (*fetches, *errands)

    # ---- questions ---------------------------------------------------------------------------------------

    def query(self, sender: str, query: Query, now: int) -> Effects:
        """Somebody asks."""
        answer = self._QUERIES.get(query.what)
        if answer is None:
            return (denied(sender, query.id, f"cannot answer {query.what!r}"),)
        given = answer(self, sender, query, now)
        if isinstance(given, tuple):
            return given
        return (Answer(sender.encode("latin-1"), query.id, given),)

    def _ping(self, sender: str, query: Query, now: int) -> Any:
        return {"name": self._config.name, "role": "root"}

    def _status(self, sender: str, query: Query, now: int) -> Any:
        if query.brief:
            return brief_view(self._root, self._config, now, markings(self._root, now))
        return status_view(self._root, self._config, now)

    def _cells(self, sender: str, query: Query, now: int) -> Any:
        root = self._root
        marks, incidents = markings(root, now), incident_views(root, now)
        return cells_view(root, self._config, query, now, marks, incidents, silence_views(root, now))

    def _incidents(self, sender: str, query: Query, now: int) -> Any:
        views = incident_views(self._root, now)
        if query.limit <= 0:
            return {"schema": SCHEMA, "incidents": views}
        # The resolved ones are the store's.
        return (_fetch(sender, query, "incidents", {"schema": SCHEMA, "incidents": views}),)

    def _silences(self, sender: str, query: Query, now: int) -> Any:
        return {"schema": SCHEMA, "silences": silence_views(self._root, now)}

    def _hooks(self, sender: str, query: Query, now: int) -> Any:
        return self._root.dispatch.view()

    def _accuracy(self, sender: str, query: Query, now: int) -> Any:
        return accuracy_view(self._root, now)

    def _why_silent(self, sender: str, query: Query, now: int) -> Any:
        root = self._root
        if query.node and query.node not in root.nodes:
            return (denied(sender, query.id, f"no node {query.node!r} is known; see: hbagent nodes"),)
        # Leaders and the root have names like those of racks.
        if query.rack and query.rack not in (*root.racks, *root.leaders, root.config.name):
            return (denied(sender, query.id, f"no rack {query.rack!r} is known; see: hbagent racks"),)
        return (_fetch(sender, query, "unsent", unsent_view(root, query, now)),)

    def _dead_letters(self, sender: str, query: Query, now: int) -> Any:
        return (_fetch(sender, query, "dead-letters", {"schema": SCHEMA}),)

    def _runs(self, sender: str, query: Query, now: int) -> Any:
        if not query.event:
            return (denied(sender, query.id, "of which event?"),)
        return (Fetch(sender.encode("latin-1"), query.id, query.limit, 0, "", event=query.event),)

    def _events(self, sender: str, query: Query, now: int) -> Any:
        return (Fetch(sender.encode("latin-1"), query.id, min(query.limit, 10_000), query.after, query.node),)

    def _explain(self, sender: str, query: Query, now: int) -> Any:
        record = self._root.nodes.get(query.node)
        if record is None:
            return (denied(sender, query.id, f"no node {query.node!r} is known; see: hbagent nodes"),)
        view = explain_view(self._root, record, now)
        return (Fetch(sender.encode("latin-1"), query.id, self._config.story_length, 0, query.node, view),)

    def _evidence(self, sender: str, query: Query, now: int) -> Any:
        leader, error = self._hearer(query.node)
        fetch = None if error else self._bundles.begin(query.node, leader, sender, query.id, now)
        if fetch is None:
            return (denied(sender, query.id, error or too_many()),)
        wanted = EvidenceWanted(number=fetch.number, node=query.node, app=query.app, bundle=query.bundle)
        return (Send(leader, wanted),)

    def _drill(self, sender: str, query: Query, now: int) -> Any:
        leader, error = self._hearer(query.node)
        number = None if error else self._drills.begin(query.node, leader, sender, query.id, now)
        if number is None:
            return (denied(sender, query.id, error or drills.too_many()),)
        wanted = DrillWanted(number=number, node=query.node, drill=query.drill, app=query.app)
        return (Note("warning", "drill", {"node": query.node, "drill": query.drill}), Send(leader, wanted))

    def _hearer(self, node: str) -> tuple[str, str]:
        """The leader that heard a node last, or why nobody can ask that node."""
        root = self._root
        record = root.nodes.get(node)
        if record is None:
            return "", f"no node {node!r} is known; see: hbagent nodes"
        hearing = [view for view in root.datacenter.observers(record) if view.hears and view.heard_at is not None]
        if not hearing:
            shown = root.shown(record)
            why = f" ({shown.cause.value})" if shown.cause is not None else ""
            return "", f"{record.name} is {shown.liveness.value}{why}: no leader hears it, so it cannot be asked"
        return max(hearing, key=lambda view: view.heard_at or 0).leader, ""

    def drill_begun(self, sender: str, begun: DrillBegun) -> Effects | None:
        """A node was asked for a drill, and answers; None when nobody asked."""
        errand = self._drills.take(sender, begun)
        if errand is None:
            return None
        if begun.error:
            return (denied(errand.asker, errand.query, begun.error),)
        view = {"schema": SCHEMA, "node": errand.node}
        return (Answer(errand.asker.encode("latin-1"), errand.query, view),)

    def evidence_page(self, sender: str, page: EvidencePage) -> Effects | None:
        """A slice of a bundle; None when nobody asked."""
        fetch = self._bundles.take(sender, page)
        if fetch is None:
            return None
        return (self._fetched(fetch),) if fetch.error or page.last else ()

    @staticmethod
    def _fetched(fetch: Bundle) -> Effect:
        """A fetch is over."""
        bundle, error = (None, fetch.error) if fetch.error else bundle_of(fetch)
        if bundle is None:
            return denied(fetch.asker, fetch.query, error)
        view = EvidenceView(node=fetch.node, leader=fetch.peer, size_bytes=fetch.size, bundle=bundle)
        return Answer(fetch.asker.encode("latin-1"), fetch.query, view)

    # ---- orders ------------------------------------------------------------------------------------------

    def order(self, sender: str, ordered: Ordered, now: int) -> Effects:
        """Somebody who may changes something. Who, what and why are logged.

        He is answered when it is on disk: what was accepted is never lost.
        """
        order = ordered.order
        act = self._ORDERS.get(order.what)
        if act is None:
            return (denied(sender, order.id, f"cannot do {order.what!r}"),)
        try:
            given = act(self, sender, ordered, now)
        except (ValueError, KeyError) as refusal:
            return (denied(sender, order.id, str(refusal.args[0] if refusal.args else refusal)),)
        made = given["silence"].silence if isinstance(given, dict) and "silence" in given else ""
        globs = (*order.nodes, *order.racks, *order.causes, *order.kinds)
        fields = {
            "by": ordered.by,
            "did": "maintenance" if order.maintenance else order.what,
            "to": order.target or made,
            "covers": " ".join(globs),
            "reason": order.reason,
        }
        note = Note("info", "operator", {name: value for name, value in fields.items() if value})
        if isinstance(given, tuple):
            return (note, *given)
        self._unwritten.append((note, Answer(sender.encode("latin-1"), order.id, given)))
        degraded = self._root.ledger.degraded
        return self.not_kept(0, degraded) if degraded else ()

    def written(self, token: int) -> None:
        """What was ordered until now is in the batch with this token, which is on its way to the disk."""
        if self._unwritten:
            self._writing[token], self._unwritten = self._unwritten, []

    def kept(self, token: int) -> Effects:
        """A batch is on disk: whoever ordered something that is in it is answered."""
        return tuple(effect for both in self._writing.pop(token, ()) for effect in both)

    def not_kept(self, token: int, reason: str) -> Effects:
        """The disk fails: what was ordered holds, as long as this process lives; that is said."""
        told: list[Effect] = []
        owed = [*self._writing.pop(token, ()), *self._unwritten]
        self._unwritten.clear()
        for note, answer in owed:
            view = {**answer.view, "not_kept": reason}
            told.extend((note, Answer(answer.asker, answer.id, view)))
        return tuple(told)

    def _silence(self, sender: str, ordered: Ordered, now: int) -> Any:
        root = self._root
        silence = root.alerts.objections.silences.add(ordered.order, ordered.by, root.wall.at(now))
        root.ledger.silence(silence)
        root.alerts.silences_changed(now)
        view = {"schema": SCHEMA, "silence": silence_view(root, silence, now)}
        note = fits_nobody(silence.matcher, root.nodes, root.racks, root.leaders)
        return {**view, "note": note} if note else view

    def _unsilence(self, sender: str, ordered: Ordered, now: int) -> Any:
        root = self._root
        silence = root.alerts.objections.silences.end(ordered.order.target, ordered.by, root.wall.at(now))
        root.ledger.silence(silence)
        root.alerts.silences_changed(now)
        return {"schema": SCHEMA, "silence": silence_view(root, silence, now)}

    def _ack(self, sender: str, ordered: Ordered, now: int) -> Any:
        root, order = self._root, ordered.order
        incident = root.alerts.incidents.acknowledge(order.target, ordered.by, order.reason, root.wall.at(now))
        if incident is None:
            raise ValueError(f"no incident {order.target!r} is open; see: hbagent incidents")
        return {"schema": SCHEMA, "incident": incident_view(root, incident, now)}

    def _forget(self, sender: str, ordered: Ordered, now: int) -> Any:
        self._root.forget(ordered.order.target, ordered.by, now)
        return {"schema": SCHEMA, "forgotten": ordered.order.target}

    def _hook_test(self, sender: str, ordered: Ordered, now: int) -> Any:
        order = ordered.order
        hook = next((hook for hook in self._config.hooks if hook.name == order.target), None)
        if hook is None:
            names = ", ".join(hook.name for hook in self._config.hooks) or "none"
            raise ValueError(f"no hook {order.target!r} in the config; there are: {names}")
        kind = Kind(order.kinds[0]) if order.kinds else None
        return (self._hook_tests.begin(sender.encode("latin-1"), order.id, hook, self._root.wall.at(now), kind),)

    def hook_tested(self, result: HookFinished) -> Effects | None:
        """What came of a test; None when this run was none."""
        answer = self._hook_tests.finished(result)
        return None if answer is None else (answer,)

    def _hook_retry(self, sender: str, ordered: Ordered, now: int) -> Any:
        return (Revive(sender.encode("latin-1"), ordered.order.id, ordered.order.target),)

    def revived(self, revived: Revived, now: int) -> Effects:
        """Runs that were given up are owed again; of all of them, those that are still true."""
        if revived.error:
            return (Answer(revived.asker, revived.id, None, revived.error),)
        retried, over = [], []
        for run in revived.runs:
            assert isinstance(run, HookRun)
            if revived.named or self._root.alerts.holds(run):
                self._root.alerts.letters.forget(run)
                self._root.ledger.run(again(run, self._root.wall.at(now)))
                retried.append(run.run_id)
            else:
                over.append(run.run_id)
        return (Answer(revived.asker, revived.id, {"schema": SCHEMA, "retried": retried, "over": over}),)

    _QUERIES: ClassVar[dict[str, Callable[[Any, str, Query, int], Any]]] = {
        "ping": _ping,
        "status": _status,
        "cells": _cells,
        "incidents": _incidents,
        "silences": _silences,
        "hooks": _hooks,
        "accuracy": _accuracy,
        "why-silent": _why_silent,
        "dead-letters": _dead_letters,
        "runs": _runs,
        "events": _events,
        "explain": _explain,
        "evidence": _evidence,
        "drill": _drill,
    }
    _ORDERS: ClassVar[dict[str, Callable[[Any, str, Ordered, int], Any]]] = {
        "silence": _silence,
        "unsilence": _unsilence,
        "ack": _ack,
        "forget": _forget,
        "hook-test": _hook_test,
        "hook-retry": _hook_retry,
    }


def denied(asker: str, id: int, why: str) -> Answer:
    """An answer that says why there is none."""
    return Answer(asker.encode("latin-1"), id, None, why)


def _fetch(sender: str, query: Query, what: str, view: Any) -> Fetch:
    return Fetch(
        sender.encode("latin-1"),
        query.id,
        query.limit,
        0,
        query.node or query.rack,
        view,
        what=what,
        incident=query.incident,
    )

"""hbagent watches hosts by heartbeat and says within seconds that one is gone, and why.

Agents beat to the leaders of their rack, leaders judge the silence, one root tells people::

    host agent --beats--> rack leader --summaries, transitions--> root --> hooks, Alertmanager, consoles

The code stands on floors, and an import goes down only (`tests/test_tidy.py` reads the imports and keeps it so)::

    3  cli              one command a file; text and exit codes
       console          the whole datacenter on one screen, for whoever watches it all day
       demo, bench      whole datacenters on loopback; figures
    2  role             the one driver loop that owns sockets and clock, and what each daemon is made of
       sim              the same cores in one process, under a virtual clock with seeded faults
    1  transport        ZeroMQ sockets, keys, who may speak
       probes           what a host says of itself
       diagnosis        what a process is doing, found from outside
       hooks            running an operator's script
       web              the status page, JSON and the live feed, over HTTP
       store            journal, history and evidence on disk
       offspring        disposable processes for whatever may hang, and the end of whole trees of them
    0  core             every decision; pure: no clock, socket, file, thread or log
       wire             messages to bytes and back; pure

Floor 1: each part touches one piece of the world and none imports another. Floor 2: `role` and `sim` never import
one another; both turn the same crank::

    core.receive(message, now) -> effects      something arrived
    core.wake(now)             -> effects      the deadline came
    core.deadline()            -> int | None   when to wake me if nothing arrives

`now` is integer nanoseconds of the local monotonic clock. Effects are frozen orders; what comes of one returns as
a message.

Where a new thing goes: a noun of the field is a file of that name. A rule of judgement goes into `core`, a message
into `core.messages` and `wire.codec`, a socket into `transport`, a probe into `probes`, a word of the command line
into `cli/<word>_cmd.py`; each with its test at the mirrored path below `tests`.
"""

__version__ = "0.1.0"

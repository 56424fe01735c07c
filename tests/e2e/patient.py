"""Settings of leaders for rows that are about something else than suspicion.

A busy machine keeps a process, or itself, from running for up to a second now and then. A node whose beats stay away
for so long is rightly suspected at the beats and margins of these tests, and told of; so a row that says who is told
of, and who is not, has leaders that bear more. What is proved and not waited for (an end, a host that nobody reaches)
is told as soon as ever.
"""

from __future__ import annotations

MARGIN_SECONDS = 2.0
#: Tables of a leader: this late a beat may be, whatever was learned of its node.
PATIENT = f'[detector]\nmargin = "{MARGIN_SECONDS:g}s"\nmargin_min = "{MARGIN_SECONDS:g}s"\n'
#: A line of a leader: a host without a sign is gone this much more than an interval after the last. Half a second is
#: the default, and no more than a pause: who stands still behind a link that is cut in one direction gives no sign.
GONE_SECONDS = 1.5
GONE_SLACK = f'host_gone_slack = "{GONE_SECONDS * 1000:.0f}ms"'

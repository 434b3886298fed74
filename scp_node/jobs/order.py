"""In which order waiting instances are analysed: urgent ones first; among equals the callers take turns.

Each instance gets a place when it arrives: one after the last that its caller has waiting, but never before the place
that is next for anybody. Whoever sends five thousand has the places from 0 to 4999; three that come from somebody else
when 100 of those are done have the places 100 to 102, and wait for a handful instead of all. Who never stops sending
gets one turn for each of the others' (start-time fair queueing, Goyal et al. 1996).

The durable engine runs jobs by place, see `queues.rank`, and by age where two have the same.
"""

import sqlalchemy as sa

from scp_node.jobs.queues import LAST_PLACE
from scp_node.jobs.tables import instance

# The word and not a parameter: the indexes hold waiting instances only.
_WAITS = sa.text("state = 'received'")


def next_place(connection: sa.Connection, calling_ae_title: str) -> int:
    """Return the place of an instance that arrives now from this caller."""
    front, own = connection.execute(_PLACES, {"caller": calling_ae_title}).one()
    if front is None:
        return 0
    return int(front) if own is None else min(max(int(front), int(own) + 1), LAST_PLACE - 1)


_WAITING = sa.and_(_WAITS, instance.c.place < LAST_PLACE)
_PLACES = sa.select(
    sa.select(sa.func.min(instance.c.place)).where(_WAITING).scalar_subquery(),
    sa.select(sa.func.max(instance.c.place))
    .where(_WAITING, instance.c.calling_ae_title == sa.bindparam("caller"))
    .scalar_subquery(),
)
"""The place that is next for anybody, and the last of one caller: each is one look into its index."""

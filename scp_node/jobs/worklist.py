"""What the worklist is searched by beside the instances themselves: what the models said of them, and whom from."""

import sqlalchemy as sa

from scp_node.jobs.records import Finding
from scp_node.jobs.tables import instance, prediction


def senders(connection: sa.Connection, *, limit: int = 100) -> tuple[str, ...]:
    """Calling AE Titles that objects came from, in alphabetical order."""
    # One look into the index per title, not one per instance: 100,000 of them come from a handful of devices.
    found: list[str] = []
    last = ""
    while len(found) < limit:
        query = sa.select(sa.func.min(instance.c.calling_ae_title)).where(instance.c.calling_ae_title > last)
        title = connection.execute(query).scalar_one()
        if title is None:
            break
        found.append(str(title))
        last = str(title)
    return tuple(found)


def said(finding: Finding) -> sa.ColumnElement[bool]:
    """The condition that the models said this of an instance."""

    def some(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
        return sa.exists().where(prediction.c.instance_id == instance.c.id, *conditions)

    positive, negative = some(prediction.c.is_positive), some(sa.not_(prediction.c.is_positive))
    match finding:
        case Finding.POSITIVE:
            return positive
        case Finding.NEGATIVE:
            return sa.and_(negative, sa.not_(positive))
        case Finding.DISAGREEMENT:
            return sa.and_(positive, negative)

"""What people did, at the console above all: who, from where, what, and what it was before and after.

Only ever added to. The trace tells what happened to an instance; this tells who asked for it, refusals and log-ins
included. The audit trail has both, see `auditing`. No patient data.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from scp_node.jobs import database, tables

LOG_IN, LOG_OUT, STORE, RESUME = "log_in", "log_out", "store", "resume"
COMMAND_LINE = "command line"
"""In place of a role: the operating system has let this user in."""
REFUSED = "refused: "
REFUSED_BY_ROLE = REFUSED + "needs the role "
"""How ``after`` begins when nothing was done."""

user_action = sa.Table(
    "user_action",
    tables.metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("user_name", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("before", sa.Text, nullable=False),
    sa.Column("after", sa.Text, nullable=False),
    sa.Column("is_audited", sa.Boolean, nullable=False, server_default=sa.false()),
)
"""``is_audited``: the audit trail has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserAction:
    """One thing that one person asked for.

    Parameters
    ----------
    action
        ``retry``, ``cancel``, ``echo``, ``log_in`` and so on.
    subject
        What it was about: a SOP Instance UID, the name of a destination; empty for a log-in.
    before, after
        State before and after it; ``refused: ...`` when it was not done.
    """

    at: datetime
    user_name: str
    role: str
    address: str
    action: str
    subject: str = ""
    before: str = ""
    after: str = ""


def record(
    engine: sa.Engine,
    *,
    user_name: str,
    role: str,
    address: str,
    action: str,
    subject: str = "",
    before: str = "",
    after: str = "",
) -> None:
    """Add one record, and log it: the log may be kept elsewhere."""
    # Imported here: a command that acts without a console has no log.
    import structlog

    values = {
        "user_name": user_name,
        "role": role,
        "address": address,
        "action": action,
        "subject": subject,
        "before": before,
        "after": after,
    }
    structlog.get_logger(__name__).info("user action", **values)
    with database.write(engine) as connection:
        connection.execute(sa.insert(user_action).values(at=time.time(), **values))


def add_resume(connection: sa.Connection, *, user_name: str, destination: str) -> None:
    """Add to a transaction that somebody at this machine has deliveries attempted again."""
    connection.execute(
        sa.insert(user_action).values(
            at=time.time(),
            user_name=user_name,
            role=COMMAND_LINE,
            address="",
            action=RESUME,
            subject=destination,
            before="",
            after="",
        )
    )


def recent(connection: sa.Connection, *, limit: int = 100, before_id: int | None = None) -> tuple[UserAction, ...]:
    """The latest records, newest first."""
    query = sa.select(user_action).order_by(user_action.c.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(user_action.c.id < before_id)
    return tuple(
        UserAction(
            at=datetime.fromtimestamp(row.at, UTC),
            user_name=row.user_name,
            role=row.role,
            address=row.address,
            action=row.action,
            subject=row.subject,
            before=row.before,
            after=row.after,
        )
        for row in connection.execute(query)
    )

"""Whether spool folder and database belong together: a disk that is not mounted is an empty folder, a database that is
named wrongly an empty one.

With an empty folder everything that waits would be a dead letter, and what is acknowledged meanwhile would lie under
the mount point, out of sight once the disk is there. With an empty database everything in the spool would be what no
row names.
"""

import os
import secrets
import uuid

import sqlalchemy as sa

from scp_node.durability import synchronise
from scp_node.errors import StartError
from scp_node.jobs import database
from scp_node.jobs.tables import instance, spool_identity
from scp_node.spool.incoming import open_private
from scp_node.spool.store import Spool

FILE = "spool.id"


def settle(engine: sa.Engine, spool: Spool) -> None:
    """Make the spool's folders, of one that belongs to the database or of a new one; several processes may at once.

    Raises
    ------
    StartError
        They do not belong together.
    OSError
        The folders cannot be made.
    """
    file = spool.folder / FILE
    with database.exclusive(engine, spool_identity) as connection:
        expected = connection.execute(sa.select(spool_identity.c.value)).scalar_one_or_none()
        found = file.read_text(encoding="ascii", errors="replace").strip() if file.exists() else None
        has_rows = connection.execute(sa.select(instance.c.id).limit(1)).first() is not None
        if (fault := _fault(spool, expected, found, has_rows=has_rows)) is not None:
            raise StartError(fault)
        value = expected or found or str(uuid.uuid4())
        if expected is None:
            connection.execute(sa.insert(spool_identity).values(value=value))
    # After the database has it: who is killed in between finds a database without rows, and goes on here.
    spool.create()
    if found is None:
        _write(spool, value)


def _fault(spool: Spool, expected: str | None, found: str | None, *, has_rows: bool) -> str | None:
    if expected is not None and found is None and has_rows:
        return (
            f"spool.folder {spool.folder} is not the spool of this database: it has no file {FILE}. Is the disk "
            f"mounted? To go on with a folder that lost all files, make that file there, with the line {expected}"
        )
    if expected is not None and found not in (None, expected):
        return (
            f"spool.folder {spool.folder} belongs to another database: its file {FILE} says {found}, and this database "
            f"{expected}. Are database.url and spool.folder those of one node?"
        )
    if expected is None and not has_rows and (found is not None or _has_objects(spool)):
        return (
            f"spool.folder {spool.folder} holds files of another database, and this one is new. Is database.url right?"
            f" To go on with the new one, move objects, results and {FILE} out of the folder; objects can be sent again"
        )
    return None


def _has_objects(spool: Spool) -> bool:
    objects = spool.folder / "objects"
    return objects.is_dir() and any(True for _ in objects.rglob("*.dcm"))


def _write(spool: Spool, value: str) -> None:
    # Another process that starts at this moment writes the same.
    temporary = spool.folder / f".{FILE}.{secrets.token_hex(6)}"
    with os.fdopen(open_private(temporary), "w", encoding="ascii") as file:
        file.write(f"{value}\n")
    synchronise(temporary)
    temporary.rename(spool.folder / FILE)
    synchronise(spool.folder)

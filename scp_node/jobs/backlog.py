"""How much waits for analysis, so that a receiver says busy before the disk is full."""

import threading
import time

import sqlalchemy as sa

from config.storage import SpoolSettings
from scp_node.errors import BusyError
from scp_node.jobs.tables import instance

_ASKED_EVERY_S = 1.0


class Backlog:
    """How much waits for analysis; asked of the database once a second, and counted on in between."""

    def __init__(self, engine: sa.Engine, limits: SpoolSettings) -> None:
        self._engine = engine
        self._limits = limits
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._instances = self._bytes = 0

    def require_room(self, size_bytes: int) -> None:
        """Count one more.

        Raises
        ------
        BusyError
            There would be too many, or too much.
        """
        if not (self._limits.maximum_waiting_instances or self._limits.maximum_waiting_bytes):
            return
        with self._lock:
            if time.monotonic() - self._asked_at >= _ASKED_EVERY_S:
                self._ask()
            if 0 < self._limits.maximum_waiting_instances <= self._instances:
                raise BusyError("too many instances wait for analysis")
            if 0 < self._limits.maximum_waiting_bytes < self._bytes + size_bytes:
                raise BusyError("too much waits for analysis")
            self._instances += 1
            self._bytes += size_bytes

    def _ask(self) -> None:
        waiting = sa.text("state = 'received'")
        total = sa.func.coalesce(sa.func.sum(instance.c.size_bytes), 0)
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(sa.func.count(), total).select_from(instance).where(waiting)).one()
        self._instances, self._bytes = int(row[0]), int(row[1])
        self._asked_at = time.monotonic()

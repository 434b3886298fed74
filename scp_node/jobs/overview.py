"""What command line and console see of destinations, and what they do; imports no durable engine."""

from typing import Self

from config.settings import NodeSettings
from scp_node.jobs import database
from scp_node.jobs.breaker import Breakers, DestinationHealth, health
from scp_node.jobs.migrations import require_current


class Overview:
    """What command line and console see and do of destinations; use it as a context manager.

    Raises
    ------
    DatabaseError
        No node has made the database yet, or it is of another version.
    """

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._engine = database.open_engine(settings.database.url, create_folder=False)
        require_current(self._engine, settings.database.url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()

    def health(self) -> list[DestinationHealth]:
        """See `health`."""
        with self._engine.connect() as connection:
            return health(connection, [one.name for one in self._settings.destinations])

    def resume(self, name: str) -> int:
        """Attempt everything that waits for a destination now; a running node does it. Return how much that is."""
        with database.write(self._engine) as connection:
            Breakers(self._settings.delivery).close(connection, name)
            return next(one.waiting for one in health(connection, [name]))

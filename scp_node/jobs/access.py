"""A way into a node's database from outside the node; imports neither torch nor the durable engine."""

from types import TracebackType
from typing import Self

from config.settings import NodeSettings
from scp_node.jobs import database
from scp_node.jobs.migrations import require_current


class Access:
    """An open database; use it as a context manager.

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

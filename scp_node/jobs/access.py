"""A way into a node's database from outside the node; imports neither torch nor the durable engine."""

from types import TracebackType
from typing import Self

import sqlalchemy as sa

from config.settings import NodeSettings
from scp_node.errors import DatabaseError
from scp_node.jobs import database
from scp_node.jobs.migrations import require_current


class Access:
    """An open database; use it as a context manager. What the driver reports inside it is a `DatabaseError` outside.

    Raises
    ------
    DatabaseError
        No node has made the database yet, it is of another version, or it is away or damaged.
    """

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        try:
            self._engine = database.open_engine(settings.database.url, create_folder=False)
        except (sa.exc.ArgumentError, ValueError) as error:
            raise DatabaseError("database.url is no URL that can be understood") from error
        try:
            require_current(self._engine, settings.database.url)
        except (sa.exc.DBAPIError, OSError) as error:
            self._engine.dispose()
            raise DatabaseError(database.unusable(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, sa.exc.DBAPIError):
            raise DatabaseError(database.unusable(error)) from error

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

"""What command line and console see of destinations, and what they do; imports no durable engine."""

from scp_node.jobs import database, user_actions
from scp_node.jobs.access import Access
from scp_node.jobs.acting import system_user
from scp_node.jobs.breaker import Breakers
from scp_node.jobs.health import DestinationHealth, health


class Overview(Access):
    """What command line and console see and do of destinations; opened and closed as `Access`."""

    def health(self) -> list[DestinationHealth]:
        """See `health`."""
        with self._engine.connect() as connection:
            return health(connection, [one.name for one in self._settings.destinations])

    def resume(self, name: str) -> int:
        """Attempt everything that waits for a destination now; a running node does it. Return how much that is."""
        with database.write(self._engine) as connection:
            user_actions.add_resume(connection, user_name=system_user(), destination=name)
            Breakers(self._settings.delivery).close(connection, name)
            return next(one.waiting for one in health(connection, [name]))

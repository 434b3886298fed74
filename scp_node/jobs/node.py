"""A whole node in one process: database, workers, child processes, receiver, in that order; stopped in reverse."""

from config.settings import NodeSettings


class Node:
    """Receives, analyses and delivers until it is stopped; one per process, since the durable engine is one.

    Parameters
    ----------
    settings
        The whole configuration.
    receiver_port
        Listen here instead of on ``settings.receiver.port``; 0 lets the operating system choose, for tests and demos.
    checkpoint_check
        Whether to compare the weights with their manifests before anything starts.
    """

    def __init__(self, settings: NodeSettings, *, receiver_port: int | None = None) -> None:
        self._settings = settings
        self._receiver_port = receiver_port

    @property
    def port(self) -> int:
        """The port the receiver listens on; only while it runs."""
        raise NotImplementedError

    def start(self) -> None:
        """Start everything; returns when associations are accepted. Models may still be loading.

        Raises
        ------
        StartError
            Something is not as configured; whatever had started is stopped again.
        """
        raise NotImplementedError

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until the models are loaded; False when that takes longer.

        Raises
        ------
        StartError
            They cannot be loaded.
        """
        raise NotImplementedError

    def stop(self, timeout_s: float = 30.0) -> None:
        """Accept nothing more, let running work end within the limit, leave the rest to the next start."""
        raise NotImplementedError

"""What can become of a request to a child process."""

from scp_node.errors import NodeError


class ChildCrashError(NodeError):
    """The child died on this request."""


class ModelsFailedError(ChildCrashError):
    """The process in which the models run for all children died, hung or failed on what a child asked.

    It is given pictures of one size and nothing else of a file: device or machine are to blame, and a repeat later may
    succeed.
    """


class ChildTimeLimitError(NodeError):
    """The child took longer than allowed and was ended."""


class ChildFailedError(NodeError):
    """The child reports that it could not answer, and lives.

    Parameters
    ----------
    kind
        ``memory`` or ``internal``.
    causes
        The errors behind it.
    """

    def __init__(self, kind: str, detail: str, causes: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.causes = causes


class PoolStoppedError(BaseException):
    """The pool is being stopped: the job stays unfinished and is taken up at the next start.

    Not an Exception, on purpose: the durable engine records exceptions as the job's outcome, and this is none.
    """

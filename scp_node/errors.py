"""Errors of the node; each carries what is needed to act on it and no patient data."""


class NodeError(Exception):
    """Root of all errors of this package."""


class SpoolFullError(NodeError):
    """Free space is below the low-water mark, or the disk refused a write."""


class BusyError(NodeError):
    """Too much waits already, or something is in the way for a moment; whoever asked should ask again later."""


class ResultError(NodeError):
    """A result object cannot be built; carries the source's SOP Instance UID."""

    def __init__(self, sop_instance_uid: str, detail: str) -> None:
        super().__init__(f"results of {sop_instance_uid}: {detail}")
        self.sop_instance_uid = sop_instance_uid
        self.detail = detail


class UnknownJobError(NodeError):
    """No instance has this id or SOP Instance UID."""


class JobStateError(NodeError):
    """What an operator asks of an instance does not fit the state it is in."""


class DatabaseError(NodeError):
    """The database is missing, unreachable or of another version."""


class UnpreparedError(NodeError):
    """Models are not compiled yet, and this process may not compile them."""


class StartError(NodeError):
    """The node cannot start: a checkpoint, a folder or a port is not as configured."""


class RefusedError(NodeError):
    """The parent of a child process has no answer to what the child asked."""

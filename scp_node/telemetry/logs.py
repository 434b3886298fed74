"""Log configuration: structlog to standard error, escaped, without patient data; holds no logger of its own.

Modules log events with ``structlog.get_logger(__name__).info("instance filed", sop_instance_uid=...)``. Records of
libraries arrive through the standard library's root logger and pass the same chain. What DICOM libraries say at DEBUG
and INFO are dumps of data sets; what they say in exceptions and warnings can quote element values. Neither is written.
"""

import logging
import sys
import traceback
import warnings
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from config.settings import LoggingSettings
from inference.errors import InferenceError
from scp_node.errors import NodeError
from scp_node.telemetry.escape import escape

WITHHELD = "[withheld]"

_PATIENT_KEYS = frozenset(
    {
        "accession_number",
        "birth_date",
        "dataset",
        "patient",
        "patient_age",
        "patient_birth_date",
        "patient_id",
        "patient_name",
        "patient_sex",
        "referring_physician_name",
        "study_description",
        "study_id",
    }
)
_DICOM_LIBRARIES = ("pydicom", "pynetdicom", "highdicom")
_QUIET_LIBRARIES = ("sqlalchemy", "PIL", "matplotlib", "asyncio", "urllib3", "httpx")
_TALKATIVE_LIBRARIES = ("dbos", "uvicorn")
"""Their events at INFO (sixty migrations at the first start, praise of another database) are no operator's."""
_NAMELESS = "pynetdicom.transport"
"""Says that a connection failed and not whose; the deliveries say it with the destination's name."""


def configure(settings: LoggingSettings, stream: TextIO | None = None, *, libraries: bool = True) -> None:
    """Send every log record of this process to ``stream`` (standard error).

    Parameters
    ----------
    libraries
        False: only warnings and errors of this project's own packages. For short commands, which say in one sentence of
        their own what a library would report first.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        without_patient_data,
        exceptions_without_values,
        escaped,
    ]
    out = stream if stream is not None else sys.stderr
    renderer: Processor
    if settings.format == "json":
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=out.isatty(), sort_keys=False)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_LibraryFilter(libraries=libraries))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level if libraries else logging.WARNING)
    for name in (*_DICOM_LIBRARIES, *_QUIET_LIBRARIES):
        logger = logging.getLogger(name)
        # No handler of its own (pydicom.config.debug adds one) and never below WARNING: see the module's docstring.
        logger.handlers[:] = []
        logger.setLevel(logging.WARNING)
        logger.propagate = True
    # The durable engine prints to its own handler unless its logger has one by the time it starts.
    logging.getLogger("dbos").handlers[:] = [logging.NullHandler()]
    logging.getLogger("dbos").propagate = True
    warnings.showwarning = _show_warning


class _LibraryFilter(logging.Filter):
    """Drops or strips records of libraries before they are formatted."""

    def __init__(self, *, libraries: bool) -> None:
        super().__init__()
        self._libraries = libraries
        self._root = logging.getLogger()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is written; a text that may quote element values is replaced."""
        package = record.name.partition(".")[0]
        own = package in ("scp_node", "inference", "config")
        if not own and not self._libraries:
            return False
        # Not by the level of their loggers, which they set themselves when they start.
        if package in _TALKATIVE_LIBRARIES and record.levelno < logging.WARNING and self._root.level > logging.DEBUG:
            return False
        if package not in _DICOM_LIBRARIES:
            return True
        if record.name == _NAMELESS and self._root.level > logging.DEBUG:
            return False
        if record.levelno < logging.WARNING:
            return False
        # pynetdicom's own sentences name states and peers; an exception as text may quote the element it is about.
        if package != "pynetdicom" or record.exc_info or not isinstance(record.msg, str):
            record.msg = f"{WITHHELD} {package} {record.module}:{record.lineno}"
            record.args = None
        return True


def _show_warning(  # noqa: PLR0917 - the signature is Python's
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Log a Python warning by its place only: pydicom quotes the value that it warns about."""
    del message, file, line
    path = Path(filename)
    logging.getLogger("py.warnings").warning("%s at %s/%s:%d", category.__name__, path.parent.name, path.name, lineno)


def without_patient_data(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace values under names of patient attributes, and values that are data sets or elements."""
    for key, value in event.items():
        if key.lower() in _PATIENT_KEYS or _is_dicom(value):
            event[key] = WITHHELD
    return event


def _is_dicom(value: object) -> bool:
    if type(value).__qualname__ == "UID":  # of pydicom, which takes half a second to import
        return False
    if isinstance(value, list | tuple | set):
        return any(_is_dicom(item) for item in value)
    return type(value).__module__.partition(".")[0] in _DICOM_LIBRARIES


def exceptions_without_values(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace ``exc_info`` by type and places; only this project's errors, free of patient data, keep their message."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    elif isinstance(info, BaseException):
        info = (type(info), info, info.__traceback__)
    if isinstance(info, tuple) and info[1] is not None:
        event["exception"] = _describe(info[1])
    return event


def _describe(error: BaseException) -> str:
    own = isinstance(error, NodeError | InferenceError | OSError)
    text = f"{type(error).__name__}: {error}" if own else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return f"{text} at {places}" + (f" caused by {_describe(cause)}" if cause is not None else "")


def escaped(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape control characters in every key and string: nothing from the network can start a line or move a cursor."""
    return {escape(str(key)): _escape_value(value) for key, value in event.items()}


def _escape_value(value: object) -> object:
    if isinstance(value, logging.LogRecord) or value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return escape(str(value))
    if isinstance(value, Mapping | MutableMapping):
        return {escape(str(key)): _escape_value(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_escape_value(item) for item in value]
    return escape(str(value))

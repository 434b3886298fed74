"""Logs: one escaped line per event, no patient data from our own or any library's records."""

import io
import json
import logging
import sys
import warnings

import pydicom
import pytest
import structlog
from pydicom.dataset import Dataset
from pydicom.uid import UID

from config.settings import LoggingSettings
from scp_node.errors import ResultError
from scp_node.telemetry import logs

NAME = "Hong^Gildong"


@pytest.fixture(autouse=True)
def _restore_logging():
    """Give pytest its handlers back."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, warnings.showwarning)
    yield
    root.handlers[:], _, warnings.showwarning = before
    root.setLevel(before[1])
    structlog.reset_defaults()
    logging.getLogger("dbos").handlers[:] = []


def fail(error: Exception):
    raise error


def configured(**settings) -> io.StringIO:
    stream = io.StringIO()
    libraries = settings.pop("libraries", True)
    logs.configure(LoggingSettings(**{"format": "json", "level": "DEBUG"} | settings), stream, libraries=libraries)
    return stream


def events(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(("level", "written"), [("INFO", ["away"]), ("DEBUG", ["migration 1", "away"])])
def test_what_the_durable_engine_and_the_web_server_report_is_written_at_debug_only(level, written):
    """Sixty migrations at the first start, and that another database were better: a newcomer read that as a fault."""
    stream = configured(level=level)
    for name in ("dbos", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)  # as each does when it starts
        logger.info("migration 1")
        logger.warning("away")
    assert [event["event"] for event in events(stream)] == written * 2


def test_json_is_one_object_a_line_with_time_level_and_logger():
    stream = configured()
    structlog.get_logger("scp_node.scp").info("instance filed", sop_instance_uid=UID("1.2.3"), size_bytes=5)
    (event,) = events(stream)
    assert event["event"] == "instance filed"
    assert event["sop_instance_uid"] == "1.2.3"
    assert event["size_bytes"] == 5
    assert event["level"] == "info"
    assert event["logger"] == "scp_node.scp"
    assert event["timestamp"].endswith("Z")


@pytest.mark.parametrize("format_", ["console", "json"])
def test_no_value_can_start_a_line_or_send_a_terminal_command(format_):
    stream = configured(format=format_)
    structlog.get_logger("x").warning("rejected", calling_ae_title="EVIL\r\nfake line\x1b[2J\x85\u2028", items=["a\nb"])
    logging.getLogger("lib").warning("peer %s", "said\nso\x1b[31m")
    text = stream.getvalue()
    assert text.count("\n") == 2
    assert len(text.splitlines()) == 2
    assert not set(text) & set("\r\x1b\x85\u2028")
    assert "fake line" in text


def test_level_comes_from_the_settings():
    stream = configured(level="WARNING")
    structlog.get_logger("x").info("quiet")
    logging.getLogger("x").info("quiet")
    assert stream.getvalue() == ""
    structlog.get_logger("x").warning("loud")
    assert len(events(stream)) == 1


@pytest.mark.parametrize("library", ["pydicom", "pynetdicom", "pynetdicom.dimse", "highdicom"])
def test_dicom_libraries_never_log_data_sets(library):
    """Also after somebody switched their debugging on."""
    stream = configured()
    pydicom.config.logger.setLevel(logging.WARNING)
    logger = logging.getLogger(library)
    before = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        logger.debug("(0010,0010) Patient's Name PN: %s", NAME)
        logger.info("(0010,0010) Patient's Name PN: %s", NAME)
        assert stream.getvalue() == ""
        try:
            fail(ValueError(f"invalid value {NAME}"))
        except ValueError as error:
            logger.exception("failed")
            logger.log(logging.ERROR, error)
    finally:
        logger.setLevel(before)
    assert NAME not in stream.getvalue()
    assert len(events(stream)) == 2


def test_pydicom_debugging_does_not_bypass_the_filter(capsys):
    stream = configured()
    pydicom.config.debug(True)
    logs.configure(LoggingSettings(format="json", level="DEBUG"), stream)
    try:
        logging.getLogger("pydicom").debug("value %s", NAME)
        logging.getLogger("pydicom").warning("value %s", NAME)
    finally:
        pydicom.config.debug(False)
    assert NAME not in stream.getvalue() + "".join(capsys.readouterr())
    assert "withheld" in stream.getvalue()


def test_what_pynetdicom_says_of_associations_is_kept():
    stream = configured()
    logging.getLogger("pynetdicom.acse").error("Association Aborted")
    assert events(stream)[0]["event"] == "Association Aborted"


@pytest.mark.parametrize(("level", "written"), [("WARNING", 0), ("INFO", 0), ("DEBUG", 3)])
def test_a_connection_that_fails_is_told_by_who_knows_the_destination(level, written):
    """pynetdicom says it too, on three lines, and names nobody."""
    stream = configured(level=level)
    logger = logging.getLogger("pynetdicom.transport")
    logger.error("Association request failed: unable to connect to remote")
    logger.error("TCP Initialisation Error: [Errno 111] Connection refused")
    try:
        fail(OSError(111, "Connection refused"))
    except OSError as error:
        logger.error(error, exc_info=True)
    assert len(events(stream)) == written


def test_python_warnings_are_logged_by_place_only(monkeypatch):
    stream = configured()
    with warnings.catch_warnings():
        # catch_warnings put Python's own function back
        warnings.showwarning = logs._show_warning
        warnings.simplefilter("always")
        warnings.warn(f"Invalid value for VR PN: {NAME}", UserWarning, stacklevel=1)
    (event,) = events(stream)
    assert NAME not in stream.getvalue()
    assert "UserWarning at telemetry/test_logs.py" in event["event"]


def test_patient_attributes_and_data_sets_are_withheld():
    stream = configured()
    dataset = Dataset()
    dataset.PatientName = NAME
    structlog.get_logger("x").error(
        "built", patient_name=NAME, Patient_ID="4711", source=dataset, element=dataset["PatientName"], many=[dataset]
    )
    assert NAME not in stream.getvalue()
    assert "4711" not in stream.getvalue()


def test_exceptions_keep_type_and_place_but_no_foreign_message():
    stream = configured()
    try:
        fail(ValueError(NAME))
    except ValueError:
        structlog.get_logger("x").exception("job failed")
    try:
        fail(ResultError("1.2.3", "no Rows (0028,0010)"))
    except ResultError as error:
        structlog.get_logger("x").error("job failed", exc_info=error)
    foreign, own = events(stream)
    assert NAME not in foreign["exception"]
    assert foreign["exception"].startswith("ValueError at test_logs.py:")
    assert "results of 1.2.3: no Rows (0028,0010)" in own["exception"]


def test_short_commands_hear_only_our_own_warnings():
    stream = configured(libraries=False)
    logging.getLogger("pynetdicom").error("Association Aborted")
    logging.getLogger("dbos").warning("recovering")
    logging.getLogger("scp_node.delivery").info("sent")
    assert stream.getvalue() == ""
    logging.getLogger("scp_node.delivery").warning("refused")
    assert events(stream)[0]["event"] == "refused"


def test_the_default_stream_is_standard_error(capsys):
    logs.configure(LoggingSettings())
    structlog.get_logger("x").info("hello")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "hello" in captured.err
    assert logging.getLogger().handlers[0].stream is sys.stderr

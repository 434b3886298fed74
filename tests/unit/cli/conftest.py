"""Fixtures of the tests of commands."""

import logging
import warnings

import pytest
import structlog


@pytest.fixture
def restore_logging():
    """Undo what a command's `logs.configure` did to this process."""
    root = logging.getLogger()
    handlers, level, show = root.handlers[:], root.level, warnings.showwarning
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    warnings.showwarning = show
    structlog.reset_defaults()
    logging.getLogger("dbos").handlers[:] = []
    for name in ("pydicom", "pynetdicom"):
        logging.getLogger(name).setLevel(logging.NOTSET)

"""Loads the models in a child process. Loaded in children only: imports torch."""

from typing import Any

import cv2

from config.analysis import AnalysisSettings
from inference.engine import Engine
from inference.runtime.compiled import NotCompiledError
from scp_node.errors import UnpreparedError


def open_engine(arguments: dict[str, Any]) -> Engine:
    """Load what ``arguments["analysis"]`` configures.

    Raises
    ------
    UnpreparedError
        Something is to be compiled first, and this child may not.
    """
    # What is done at once is decided here (`together`) and by the runtime; OpenCV's own threads would come on top.
    cv2.setNumThreads(1)
    settings = AnalysisSettings.model_validate(arguments["analysis"])
    try:
        return Engine(settings, may_compile=arguments.get("may_compile", True))
    except NotCompiledError as error:
        raise UnpreparedError(str(error)) from error

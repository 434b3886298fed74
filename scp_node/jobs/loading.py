"""Loads what a child process works with. Loaded in children only: may import torch."""

from typing import Any

import cv2

from config.analysis import AnalysisSettings
from inference.engine import Engine
from inference.ensemble import LoadedEnsemble
from inference.runtime.compiled import NotCompiledError
from scp_node.errors import UnpreparedError
from scp_node.jobs.model_messages import Ask, AskedEnsemble


def open_engine(arguments: dict[str, Any], ask: Ask | None = None) -> Engine:
    """Load what ``arguments["analysis"]`` configures.

    Parameters
    ----------
    ask
        Of a child that has the models run elsewhere; None: they are loaded here.

    Raises
    ------
    UnpreparedError
        Something is to be compiled first, and this child may not.
    """
    # What is done at once is decided here (`together`) and by the runtime; OpenCV's own threads would come on top.
    cv2.setNumThreads(1)
    settings = AnalysisSettings.model_validate(arguments["analysis"])
    return Engine(settings, open_ensemble(arguments) if ask is None else AskedEnsemble(ask))


def open_ensemble(arguments: dict[str, Any]) -> LoadedEnsemble:
    """Load the models that ``arguments["analysis"]`` names; raises as `open_engine`."""
    settings = AnalysisSettings.model_validate(arguments["analysis"])
    try:
        return LoadedEnsemble(settings, may_compile=arguments.get("may_compile", True))
    except NotCompiledError as error:
        raise UnpreparedError(str(error)) from error

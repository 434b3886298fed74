"""The explorer's page: drop radiographs, see what the models say. All work is done by its script and the API."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from inference.errors import CheckpointError
from scp_node.console.pages import language_of, render
from scp_node.console.reading import models_of
from scp_node.console.requests import AnyVisitor, OpenServices
from scp_node.console.texts import sentences

router = APIRouter(include_in_schema=False)


@router.get("/")
def first(_visitor: AnyVisitor) -> Response:
    """The first page."""
    return RedirectResponse("/explorer", status_code=303)


@router.get("/explorer")
def explorer(request: Request, services: OpenServices, _visitor: AnyVisitor, instance: int | None = None) -> Response:
    """The page; ``instance``: begin with a received instance."""
    problem = ""
    try:
        models = models_of(services.settings)
    except CheckpointError as error:
        models, problem = (), str(error)
    return render(
        request,
        "explorer.html",
        {
            "models": models,
            "sentences": sentences(language_of(request)),
            "problem": problem,
            "instance": instance,
            "settings": services.settings,
            "alpha": services.settings.results.secondary_capture.alpha,
            "colormap": services.settings.results.secondary_capture.colormap,
        },
    )

"""The console as an ASGI application: which parts it is made of, what each error becomes, and its pages' frame."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

import sqlalchemy as sa
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from inference.errors import CheckpointError
from scp_node.console.analyze_api import router as analyze_api_router
from scp_node.console.explorer import ExplorerError
from scp_node.console.explorer_pages import router as explorer_pages_router
from scp_node.console.guard import HEADERS, BodyTooLargeError, Guard, problem
from scp_node.console.health import router as health_router
from scp_node.console.instance_pages import router as instance_pages_router
from scp_node.console.instances_api import router as instances_api_router
from scp_node.console.login import router as login_router
from scp_node.console.multipart import MultipartError
from scp_node.console.operations_api import router as operations_api_router
from scp_node.console.operations_pages import router as operations_pages_router
from scp_node.console.pages import FOLDER, render_problem, wants_page
from scp_node.console.reading import DamagedError
from scp_node.console.services import BusyError, Services
from scp_node.console.stow import router as stow_router
from scp_node.console.uploads import UploadError
from scp_node.errors import DatabaseError, JobStateError, UnknownJobError

_log = structlog.get_logger(__name__)

_DESCRIPTION = """
What the console shows, for programs. Log in with HTTP Basic when users are configured. Programs that change something
need the role *operator*. **Research software, not a medical device.**
"""

_STATUS: dict[type[Exception], int] = {
    BodyTooLargeError: 413,
    BusyError: 503,
    CheckpointError: 503,
    # Nobody is there any more to read it; without it each upload that is given up would be an error in the log.
    ClientDisconnect: 400,
    DamagedError: 500,
    DatabaseError: 503,
    ExplorerError: 503,
    JobStateError: 409,
    MultipartError: 400,
    UnknownJobError: 404,
    UploadError: 503,
    # Away, or busy with something else for too long.
    sa.exc.InterfaceError: 503,
    sa.exc.OperationalError: 503,
    sa.exc.TimeoutError: 503,
}


_ROUTERS = (
    health_router,
    instances_api_router,
    operations_api_router,
    analyze_api_router,
    stow_router,
    login_router,
    explorer_pages_router,
    instance_pages_router,
    operations_pages_router,
)


def create_app(services: Services) -> FastAPI:
    """Make the application.

    Parameters
    ----------
    services
        Opened by the caller; closed when the application is shut down.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        services.start()
        yield
        services.close()

    app = FastAPI(
        title="scp-node",
        version=version("scp-node"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        # The interactive documentation would load its scripts from elsewhere; the document itself is served.
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    app.state.services = services
    for router in _ROUTERS:
        app.include_router(router)
    app.mount("/assets", StaticFiles(directory=FOLDER / "assets"), name="assets")
    for kind, status in _STATUS.items():
        app.add_exception_handler(kind, _answering(status))
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(Guard, settings=services.settings.console, access=services.access, record=services.record_log_in)
    return app


def _answering(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, sa.exc.SQLAlchemyError):
            _log.warning("database not usable", error=str(getattr(error, "orig", None) or error))
        return _say(request, status, _words(error))

    return answer


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    return _say(request, error.status_code, str(error.detail), dict(error.headers or {}))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    # Names and rules only: the values may be anybody's.
    faults = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
    return _say(request, 422, "; ".join(faults))


async def _failed(request: Request, _error: Exception) -> Response:
    """Say that something went wrong that nobody foresaw; the log has it. Outside of the guard, hence its headers."""
    response = _say(request, 500, "an error of the program: its log says more")
    response.headers.update(HEADERS)
    response.headers["cache-control"] = "no-store"
    return response


def _say(request: Request, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    if wants_page(request):
        return render_problem(request, status, detail)
    if status == 503:
        headers = {"retry-after": "10", **(headers or {})}
    return problem(status, detail, headers)


def _words(error: Exception) -> str:
    match error:
        case BodyTooLargeError():
            return "the request is larger than this console takes"
        case BusyError():
            return "too many files wait for the explorer, try again in a moment"
        case sa.exc.SQLAlchemyError():
            # What a driver says may hold addresses and statements.
            return "the database does not answer, try again in a moment"
        case _:
            return str(error) or type(error).__name__

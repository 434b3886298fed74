"""Logging in and out; the only plain forms of the console."""

from typing import Annotated
from urllib.parse import urlsplit

import anyio.to_thread
from fastapi import APIRouter, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from scp_node.console import guard
from scp_node.console.access import TooManyAttemptsError, Visitor
from scp_node.console.guard import cookie_name
from scp_node.console.pages import render
from scp_node.console.requests import OpenServices, is_own_form
from scp_node.jobs.user_actions import LOG_OUT

router = APIRouter(include_in_schema=False)

_LONGEST_TARGET = 500
"""Characters of the page that a log-in leads to."""


@router.get("/login")
def show(request: Request, services: OpenServices, next: str = "/") -> Response:
    """The form; nobody who needs no log-in sees it."""
    if services.access.is_open or request.state.visitor is not None:
        return RedirectResponse("/", status_code=303)
    return render(request, "login.html", {"next": _own(next), "problem": ""})


@router.post("/login")
async def log_in(
    request: Request,
    services: OpenServices,
    name: Annotated[str, Form(max_length=64)] = "",
    password: Annotated[str, Form(max_length=1024)] = "",
    next: Annotated[str, Form(max_length=_LONGEST_TARGET)] = "/",
) -> Response:
    """Begin a session, or say that it was wrong; never what was wrong."""
    address: str = request.state.address
    try:
        user = await anyio.to_thread.run_sync(
            guard.log_in, services.access, services.record_log_in, name, password, address
        )
    except TooManyAttemptsError as error:
        shown = {"next": _own(next), "problem": "Too many attempts. Try again later."}
        refused = render(request, "login.html", shown, status_code=429)
        refused.headers["retry-after"] = str(round(error.retry_after_s) + 1)
        return refused
    if user is None:
        shown = {"next": _own(next), "problem": "Name or password is wrong."}
        return render(request, "login.html", shown, status_code=401)
    session = services.access.begin(user)
    response = RedirectResponse(_own(next), status_code=303)
    is_https = request.scope["scheme"] == "https"
    response.set_cookie(
        cookie_name(request.scope["scheme"]),
        session.token,
        httponly=True,
        secure=is_https,
        samesite="strict",
        path="/",
    )
    return response


@router.post("/logout")
async def log_out(
    request: Request, services: OpenServices, csrf: Annotated[str, Form(max_length=200)] = ""
) -> Response:
    """End the session."""
    visitor: Visitor | None = request.state.visitor
    if visitor is not None and visitor.session is not None:
        if not is_own_form(visitor, csrf):
            return RedirectResponse("/", status_code=303)
        services.access.end(visitor.session.token)
        await anyio.to_thread.run_sync(services.record_log_in, visitor, LOG_OUT, "")
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(
        cookie_name(request.scope["scheme"]),
        httponly=True,
        secure=request.scope["scheme"] == "https",
        samesite="strict",
        path="/",
    )
    return response


def _own(target: str) -> str:
    """A page of this console; anything else becomes the first one."""
    try:
        parts = urlsplit(target)
    except ValueError:  # half an IPv6 address, say
        return "/"
    is_own = not parts.scheme and not parts.netloc and parts.path.startswith("/") and not target.startswith("//")
    if not is_own or "\\" in target or len(target) > _LONGEST_TARGET:
        return "/"
    return f"{parts.path}?{parts.query}" if parts.query else parts.path

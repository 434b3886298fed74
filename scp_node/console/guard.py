"""What every request passes first, as ASGI middleware: host, origin, log-in, sizes; and the headers of every answer."""

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote

import anyio.to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response

from config.console import ConsoleSettings, ConsoleUser, Role
from scp_node.console.access import Access, TooManyAttemptsError, Visitor
from scp_node.jobs.user_actions import LOG_IN, REFUSED

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Record = Callable[[Visitor, str, str], None]
"""Writes down that somebody logged in, or why not: visitor, action, how it ended."""

PUBLIC = ("/health/live", "/login", "/assets/")
"""What may be asked without a log-in: whether the process lives, the log-in page, and what that page looks like."""
PROGRAMS = ("/api/", "/dicom-web/", "/health/", "/metrics")
"""Asked by programs: they are told 401 and may log in with HTTP Basic."""
UPLOADS = ("/api/v1/analyze", "/dicom-web/studies")
"""Paths that take as much as is configured; all others take `SMALL_BODY_BYTES`."""
SMALL_BODY_BYTES = 65536
CHANGE_HEADER = "x-csrf-token"
LOCAL_USER = "local"

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_FORMS = frozenset({"/login", "/logout", "/worklist"})
"""Plain forms: their handlers compare the token, which is a field there."""

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    # Not no-referrer: browsers then send forms with "Origin: null", which cannot be told from a foreign page.
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class BodyTooLargeError(Exception):
    """The request's body is larger than this path takes; the application answers 413."""


class Guard:
    """Lets a request through, with its `Visitor` in ``scope["state"]``, or answers it."""

    def __init__(self, app: App, *, settings: ConsoleSettings, access: Access, record: Record) -> None:
        self._app = app
        self._record = record
        self._settings = settings
        self._access = access
        self._proxies = [ipaddress.ip_network(one, strict=False) for one in settings.trusted_proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Guard one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_from_proxy = self._read_proxy(scope)
        sending = _with_headers(scope, send, is_https=scope["scheme"] == "https")
        refusal = self._refusal(scope, is_from_proxy=is_from_proxy) or await self._log_in(scope, is_from_proxy)
        if refusal is not None:
            await refusal(scope, receive, sending)
            return
        if scope["method"] == "HEAD" and not scope["path"].startswith("/api/"):
            # As GET; the server leaves the body out (RFC 9110 9.3.2). Not where it would count as a download.
            scope = {**scope, "method": "GET"}
        await self._app(scope, self._limited(scope, receive), sending)

    def _read_proxy(self, scope: Scope) -> bool:
        """Take scheme and address from a trusted proxy; the last address is the one it saw itself."""
        client = scope.get("client")
        address = client[0] if client else ""
        scope.setdefault("state", {})["address"] = address
        if not self._is_proxy(address):
            return False
        headers = Headers(scope=scope)
        if (scheme := _last(headers, "x-forwarded-proto")) in ("http", "https"):
            scope["scheme"] = scheme
        if forwarded := _last(headers, "x-forwarded-for"):
            scope["state"]["address"] = forwarded[:64]
        return True

    def _is_proxy(self, address: str) -> bool:
        try:
            return any(ipaddress.ip_address(address) in network for network in self._proxies)
        except ValueError:
            return False

    def _refusal(self, scope: Scope, *, is_from_proxy: bool) -> Response | None:
        settings = self._settings
        headers = Headers(scope=scope)
        if scope["scheme"] == "http" and not settings.is_loopback and not is_from_proxy:
            return problem(403, "passwords are not taken over plain HTTP: come through the reverse proxy")
        host = headers.get("host", "")
        # Any page in a browser may reach loopback under a name of its own choice (DNS rebinding).
        if not self._is_own_host(host):
            return problem(421, "this console is not called that: see console.host_names")
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            # No name has one, and PostgreSQL takes none.
            return problem(400, "an address with a character that no name has")
        if scope["method"] in _SAFE:
            return None
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "same-origin")
        if (origin is not None and origin != f"{scope['scheme']}://{host}") or site not in ("same-origin", "none"):
            return problem(403, "changes are taken from this console's own pages only")
        return None

    def _is_own_host(self, host: str) -> bool:
        name = host.rsplit(":", 1)[0] if host.rpartition(":")[2].isdigit() else host
        name = name.strip("[]").lower()
        settings = self._settings
        if name in {one.lower() for one in settings.host_names} or name == settings.bind.lower():
            return True
        try:
            # An address cannot be rebound to another one.
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return name == "localhost" and settings.is_loopback

    async def _log_in(self, scope: Scope, is_from_proxy: bool) -> Response | None:
        path, address = scope["path"], scope["state"]["address"]
        headers = Headers(scope=scope)
        visitor: Visitor | None = None
        if self._access.is_open:
            visitor = Visitor(name=LOCAL_USER, role=Role.ADMINISTRATOR, address=address)
        else:
            visitor = self._by_proxy(headers, address) if is_from_proxy else None
            visitor = visitor or self._by_session(scope, address)
            if visitor is None and headers.get("authorization", "").lower().startswith("basic "):
                try:
                    visitor = await self._by_basic(headers["authorization"], address)
                except TooManyAttemptsError as error:
                    return problem(429, str(error), {"retry-after": str(round(error.retry_after_s) + 1)})
        scope["state"]["visitor"] = visitor
        if visitor is None:
            return None if is_public(path) else self._ask_to_log_in(scope)
        if visitor.session is not None and scope["method"] not in _SAFE and path not in _FORMS:
            sent = headers.get(CHANGE_HEADER, "")
            if not hmac.compare_digest(sent.encode(), visitor.session.change_token.encode()):
                return problem(403, "the page is out of date: load it again")
        return None

    def _by_proxy(self, headers: Headers, address: str) -> Visitor | None:
        # A proxy that adds its header to the visitor's own instead of replacing it names nobody.
        named = headers.getlist(self._settings.user_header) if self._settings.user_header else []
        user = self._access.user(named[0]) if len(named) == 1 else None
        return None if user is None else Visitor(name=user.name, role=user.role, address=address)

    def _by_session(self, scope: Scope, address: str) -> Visitor | None:
        token = HTTPConnection(scope).cookies.get(cookie_name(scope["scheme"]), "")
        session = self._access.session(token) if token else None
        if session is None:
            return None
        return Visitor(name=session.user.name, role=session.user.role, address=address, session=session)

    async def _by_basic(self, authorization: str, address: str) -> Visitor | None:
        try:
            text = base64.b64decode(authorization[6:], validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            return None
        name, _, password = text.partition(":")
        user = self._access.remembered(name, password, address)
        if user is None:
            user = await anyio.to_thread.run_sync(log_in, self._access, self._record, name, password, address)
            if user is not None:
                self._access.remember(name, password, address)
        return None if user is None else Visitor(name=user.name, role=user.role, address=address)

    @staticmethod
    def _ask_to_log_in(scope: Scope) -> Response:
        path = scope["path"]
        headers = Headers(scope=scope)
        if headers.get("hx-request"):
            # A part of a page cannot show the log-in page: the whole page is loaded again.
            return Response(status_code=401, headers={"hx-refresh": "true"})
        if CHANGE_HEADER in headers:
            # A page's own script, whose session is over: a browser would ask for the password in a window of its own.
            return problem(401, "log in")
        if scope["method"] not in _SAFE and path in _FORMS and "text/html" in headers.get("accept", ""):
            return RedirectResponse("/login", status_code=303)
        if path.startswith(PROGRAMS) or scope["method"] not in _SAFE:
            return problem(401, "log in", {"www-authenticate": 'Basic realm="scp-node", charset="UTF-8"'})
        asked = scope["query_string"].decode("latin-1")
        return RedirectResponse(f"/login?next={quote(f'{path}?{asked}' if asked else path)}", status_code=303)

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        limit = self._settings.maximum_upload_bytes if is_upload(scope["path"]) else SMALL_BODY_BYTES
        taken = 0

        async def receive_limited() -> Message:
            nonlocal taken
            message = await receive()
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                if taken > limit:
                    raise BodyTooLargeError
            return message

        return receive_limited


def _last(headers: Headers, name: str) -> str:
    """The last entry of a list that every proxy on the way adds to: what comes before is anybody's word."""
    return ",".join(headers.getlist(name)).rsplit(",", 1)[-1].strip()


def log_in(access: Access, record: Record, name: str, password: str, address: str) -> ConsoleUser | None:
    """Return the user if name and password are right, and write down how it ended; blocks.

    Raises
    ------
    TooManyAttemptsError
    """
    known = access.user(name)
    # A name that nobody has may be a password typed into the wrong field: it is not written down.
    who = Visitor(
        name=known.name if known else "?", role=known.role if known else Role.VIEWER, address=address, session=None
    )
    try:
        user = access.verify(name, password, address)
    except TooManyAttemptsError as error:
        if error.is_first:
            record(who, LOG_IN, f"{REFUSED}too many attempts")
        raise
    record(who, LOG_IN, "" if user is not None else f"{REFUSED}wrong name or password")
    return user


def is_public(path: str) -> bool:
    """Whether a path needs no log-in."""
    return any(path == one or (one.endswith("/") and path.startswith(one)) for one in PUBLIC)


def is_upload(path: str) -> bool:
    """Whether a path takes files."""
    return path.startswith(UPLOADS)


def cookie_name(scheme: str) -> str:
    """Name of the session's cookie; ``__Host-`` makes browsers refuse it from anywhere else (RFC 6265bis)."""
    return "__Host-scp-node" if scheme == "https" else "scp-node"


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An answer that says in one sentence what is wrong."""
    return JSONResponse({"detail": detail}, status_code=status, headers=headers)


def _with_headers(scope: Scope, send: Send, *, is_https: bool) -> Send:
    is_asset = scope["path"].startswith("/assets/")

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if not is_asset:
                headers.setdefault("cache-control", "no-store")
            if is_https:
                headers.setdefault("strict-transport-security", "max-age=31536000")
        await send(message)

    return send_with_headers

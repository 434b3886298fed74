"""Who may use the console, and what a hostile request meets."""

import base64
import html
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from config.console import ConsoleSettings, ConsoleUser, Role
from scp_node.console.access import Access, TooManyAttemptsError, hash_password
from scp_node.console.guard import SMALL_BODY_BYTES, is_public
from scp_node.console.multipart import display_name

pytestmark = pytest.mark.timeout(1200)
"""A busy machine loads the models slowly."""

PASSWORD = "a long enough password"  # noqa: S105 - of no user but these tests


@pytest.fixture
def guarded_client(guarded):
    with httpx.Client(base_url=guarded, timeout=240) as client:
        yield client


def basic(name, password=PASSWORD):
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def routes(node):
    """Every method and path of the console, with numbers and names in place of parameters."""
    from scp_node.console.app import _ROUTERS

    for router in _ROUTERS:
        for route in router.routes:
            for method in sorted(route.methods):
                yield method, re.sub(r"\{[^}]*\}", "1", route.path)


def test_without_a_log_in_nothing_answers(guarded_client, node):
    asked = list(routes(node))
    assert len(asked) > 30
    for method, path in [*asked, ("GET", "/api/v1/openapi.json"), ("GET", "/nothing"), ("PUT", "/worklist")]:
        answer = guarded_client.request(method, path)
        if is_public(path):
            assert answer.status_code < 500, path
        elif method == "GET" and not path.startswith(("/api", "/dicom-web", "/health", "/metrics")):
            assert answer.status_code == 303, path
            assert answer.headers["location"].startswith("/login?next="), path
        else:
            assert answer.status_code == 401, (method, path)


def test_a_page_whose_session_is_over_leads_to_the_log_in(guarded_client):
    """And no browser asks for the password in a window of its own, as it does when it is told of Basic."""
    part = guarded_client.post("/instances/1/retry", headers={"hx-request": "true"})
    assert (part.status_code, part.headers.get("hx-refresh")) == (401, "true")
    script = guarded_client.post("/api/v1/analyze", headers={"x-csrf-token": "x" * 43})
    form = guarded_client.post("/worklist", data={"uid": "1.2"}, headers={"accept": "text/html"})
    assert script.status_code == 401
    assert (form.status_code, form.headers.get("location")) == (303, "/login")
    for one in (part, script, form):
        assert "www-authenticate" not in one.headers
    assert "www-authenticate" in guarded_client.post("/api/v1/analyze").headers


def test_a_log_in_leads_to_the_page_that_was_asked_for_with_its_filter(guarded_client):
    asked = "/worklist?state=dead_letter&uid=1.2"
    sent = guarded_client.get(asked).headers["location"]
    [to] = re.findall(r'name="next" value="([^"]+)"', guarded_client.get(sent).text)
    too_long = guarded_client.get(f"/worklist?uid={'1' * 2000}").headers["location"]
    assert 'name="next" value="/"' in guarded_client.get(too_long).text
    assert 'name="next" value="/"' in guarded_client.get("/login?next=//[").text
    answer = guarded_client.post("/login", data={"name": "viewer", "password": PASSWORD, "next": html.unescape(to)})
    assert answer.headers["location"] == asked


def test_monitors_may_ask_for_the_head_only(node):
    for path in ("/health/live", "/health/ready", "/metrics", "/worklist"):
        answer = node.client.head(path)
        assert answer.status_code in (200, 503), path
        assert answer.content == b""


def test_programs_log_in_with_each_request(guarded_client):
    assert guarded_client.get("/api/v1/instances", headers=basic("viewer")).status_code == 200
    assert guarded_client.get("/metrics", headers=basic("viewer")).status_code == 200
    assert guarded_client.get("/api/v1/configuration", headers=basic("viewer")).status_code == 403
    assert guarded_client.get("/api/v1/configuration", headers=basic("administrator")).status_code == 200
    assert guarded_client.post("/api/v1/instances/1/retry", headers=basic("viewer")).status_code == 403
    assert guarded_client.get("/api/v1/instances", headers={"authorization": "Basic %%%"}).status_code == 401


def test_a_change_needs_the_sessions_token_and_the_pages_own_origin(guarded_client, guarded):
    answer = guarded_client.post("/login", data={"name": "operator", "password": PASSWORD, "next": "//evil.example/"})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    page = guarded_client.get("/worklist").text
    [token] = re.findall(r'data-csrf="([^"]+)"', page)
    retry = "/api/v1/instances/999999/retry"
    assert guarded_client.post(retry).status_code == 403
    assert guarded_client.post(retry, headers={"x-csrf-token": "x" * 43}).status_code == 403
    good = {"x-csrf-token": token}
    assert guarded_client.post(retry, headers=good).status_code == 404
    assert guarded_client.post(retry, headers={**good, "origin": guarded}).status_code == 404
    for foreign in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        assert guarded_client.post(retry, headers={**good, **foreign}).status_code == 403
    guarded_client.post("/logout", data={"csrf": token})
    assert guarded_client.get("/worklist").status_code == 303


def test_a_page_of_another_site_cannot_use_a_console_without_users(node):
    """DNS rebinding and plain cross-site posts: loopback is no protection against a browser."""
    assert node.client.get("/worklist", headers={"host": "evil.example"}).status_code == 421
    assert node.client.post("/api/v1/instances/1/retry", headers={"origin": "http://evil.example"}).status_code == 403


def test_every_answer_has_the_headers(node):
    for path in ("/explorer", "/api/v1/queues", "/assets/console.css", "/nothing", "/health/live"):
        headers = node.client.get(path).headers
        policy = headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "server" not in headers


def test_no_page_has_script_or_style_in_it(node):
    for path in ("/explorer", "/worklist", "/operations", "/findings", "/models", "/instances/1"):
        page = node.client.get(path).text
        assert "style=" not in page
        assert "<style" not in page
        assert re.findall(r"\son[a-z]+=", page) == []
        assert re.findall(r"<script(?! src=| type=\"application/json\")", page) == []
        assert re.findall(r"(?:src|href)=\"(?:https?:)?//", page) == []


@pytest.mark.parametrize(
    "path",
    [
        "/assets/..%2f..%2fapp.py",
        "/assets/../app.py",
        "/instances/..%2f1",
        "/instances/1/pictures/..%2f..%2f1.png",
        "/api/v1/models/..%2f..%2fetc/card",
    ],
)
def test_no_path_leads_to_another_file(node, path):
    assert node.client.get(path).status_code in (404, 405, 422)


def test_large_requests_are_refused_while_they_arrive(node):
    def endless():
        for _ in range(4 * SMALL_BODY_BYTES // 1024):
            yield b"x" * 1024

    assert node.client.post(
        "/login", content=endless(), headers={"content-type": "application/x-www-form-urlencoded"}
    ).status_code in (400, 413)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "multipart/form-data; boundary=b"),
        (b"--b\r\n", "multipart/form-data; boundary=b"),
        (b"--b--\r\n", "multipart/form-data; boundary=b"),
        (b"rubbish", "multipart/form-data; boundary=b"),
        (b"{}", "application/json"),
        (
            b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
        ),
        (b"--b\r\n" + b"X: " + b"y" * 1_000_000 + b"\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b"),
        (
            b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n' * 10_001 + b"--b--\r\n",
            "multipart/form-data; boundary=b",
        ),
        (b"--b--\r\n", "multipart/form-data; boundary=" + "b" * 5000),
    ],
    ids=["empty", "cut", "no part", "rubbish", "json", "other field", "long header", "10001 parts", "long boundary"],
)
def test_damaged_forms_are_refused(node, body, kind):
    assert node.client.post("/api/v1/analyze", content=body, headers={"content-type": kind}).status_code == 400


def test_a_password_cannot_be_guessed_quickly():
    now = [0.0]
    user = ConsoleUser(name="anna", role=Role.VIEWER, password_hash=hash_password(PASSWORD))
    access = Access(ConsoleSettings(users=(user,)), clock=lambda: now[0])
    for _ in range(5):
        assert access.verify("anna", "wrong", "192.0.2.1") is None
    with pytest.raises(TooManyAttemptsError):
        access.verify("anna", PASSWORD, "192.0.2.2")
    with pytest.raises(TooManyAttemptsError):
        access.verify("berta", PASSWORD, "192.0.2.1")
    now[0] += 301
    assert access.verify("anna", PASSWORD, "192.0.2.1") == user


def test_a_password_cannot_be_guessed_by_many_at_once():
    user = ConsoleUser(name="anna", role=Role.VIEWER, password_hash=hash_password(PASSWORD))
    access = Access(ConsoleSettings(users=(user,)))
    ready = threading.Barrier(12)

    def guess(_):
        ready.wait()
        try:
            return access.verify("anna", "a wrong password", "192.0.2.1")
        except TooManyAttemptsError:
            return "wait"

    with ThreadPoolExecutor(12) as pool:
        said = list(pool.map(guess, range(12)))
    assert said.count(None) == 5
    assert said.count("wait") == 7


def test_sessions_end():
    now = [0.0]
    settings = ConsoleSettings(users=(ConsoleUser(name="anna", role=Role.VIEWER),), session_idle_s=60)
    access = Access(settings, clock=lambda: now[0])
    session = access.begin(settings.users[0])
    now[0] += 50
    assert access.session(session.token) == session
    now[0] += 50
    assert access.session(session.token) == session
    now[0] += 61
    assert access.session(session.token) is None
    busy = access.begin(settings.users[0])
    for _ in range(13 * 60):
        now[0] += 59
        alive = access.session(busy.token)
    assert alive is None
    assert access.session("") is None


def test_a_user_without_a_password_cannot_log_in_with_one():
    access = Access(ConsoleSettings(users=(ConsoleUser(name="anna"),)))
    assert access.verify("anna", "", "192.0.2.1") is None


@pytest.mark.parametrize("password", ["short", "x" * 2000])
def test_passwords_of_unfit_length_are_refused(password):
    with pytest.raises(ValueError, match="a password needs"):
        hash_password(password)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"bind": "192.0.2.1"}, "needs users"),
        ({"bind": "192.0.2.1", "users": [{"name": "a"}]}, "needs tls_certificate"),
        ({"user_header": "X-User"}, "needs trusted_proxies"),
        ({"tls_key": "key.pem"}, "need each other"),
        ({"users": [{"name": "a"}, {"name": "a"}]}, "same name"),
    ],
)
def test_unsafe_settings_are_refused(values, words):
    with pytest.raises(ValueError, match=words):
        ConsoleSettings.model_validate(values)


def test_names_of_files_are_only_shown():
    assert display_name("../../etc/passwd") == "passwd"
    assert display_name("C:\\x\\chest\r\n.dcm") == "chest.dcm"
    assert len(display_name("x" * 500)) == 120


def behind_proxy(client, headers=(), **settings):
    """What the guard of a console behind a proxy answers to a request from ``client``."""
    import anyio

    from scp_node.console.guard import Guard

    console = ConsoleSettings.model_validate(
        {
            "bind": "10.1.2.3",
            "host_names": ["cxr.hospital.example"],
            "trusted_proxies": ["10.1.2.1"],
            "user_header": "X-User",
            "users": [{"name": "anna", "role": "operator"}],
            **settings,
        }
    )

    async def inner(scope, receive, send):
        visitor = scope["state"]["visitor"]
        text = f"{visitor.name} {visitor.role} {visitor.address} {scope['scheme']}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text})

    async def ask():
        app = Guard(inner, settings=console, access=Access(console), record=lambda *_: None)
        transport = httpx.ASGITransport(app=app, client=(client, 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://cxr.hospital.example") as asking:
            return await asking.get("/api/v1/queues", headers=headers)

    return anyio.run(ask)


PROXIED = {"x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.9, 192.0.2.7", "x-user": "anna"}


def test_a_trusted_proxy_names_user_address_and_scheme():
    answer = behind_proxy("10.1.2.1", PROXIED)
    # The last address is the one that the proxy saw itself; those before it anybody may have made up.
    assert answer.text == "anna operator 192.0.2.7 https"
    assert "max-age" in answer.headers["strict-transport-security"]


def test_what_a_visitor_says_of_himself_is_not_what_the_proxy_says():
    """A proxy may add its header below the visitor's own (HAProxy's forwardfor does) instead of replacing that."""
    own = [("x-forwarded-for", "192.0.2.66"), ("x-forwarded-proto", "http")]
    assert behind_proxy("10.1.2.1", [*own, *PROXIED.items()]).text == "anna operator 192.0.2.7 https"
    assert behind_proxy("10.1.2.1", [("x-user", "anna"), ("x-user", "berta")]).status_code == 401


def test_nobody_else_can_name_a_user():
    assert behind_proxy("192.0.2.7", PROXIED).status_code == 403
    assert behind_proxy("10.1.2.1", {**PROXIED, "x-user": "berta"}).status_code == 401
    assert behind_proxy("10.1.2.1", PROXIED, user_header="").status_code == 401


def test_another_host_name_is_refused():
    assert behind_proxy("10.1.2.1", {**PROXIED, "host": "evil.example"}).status_code == 421

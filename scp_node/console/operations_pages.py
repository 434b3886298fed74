"""The pages of operations: how the node does, its models, its configuration, what people did."""

import time
from datetime import UTC, datetime

import anyio.to_thread
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from config.write import in_use
from scp_node.console.operations_api import echo_destination, health_of, storage_of
from scp_node.console.pages import render
from scp_node.console.reading import card_of, models_of
from scp_node.console.requests import Administrator, AnyVisitor, OpenServices, Operator
from scp_node.console.services import Services
from scp_node.jobs import statistics, user_actions
from scp_node.jobs.readiness import readiness
from scp_node.jobs.records import InstanceFilter
from scp_node.records import InstanceState
from scp_node.security.certificates import CertificateInUse, certificates_in_use

router = APIRouter(include_in_schema=False)

_DEAD_LETTERS = 20
_ACTIONS = 200
_SPANS = {"hour": (3600.0, 60), "day": (86400.0, 96)}


@router.get("/operations")
def operations(request: Request, services: OpenServices, _visitor: AnyVisitor, span: str = "hour") -> Response:
    """How the node does."""
    span = span if span in _SPANS else "hour"
    span_s, buckets = _SPANS[span]
    with services.reading() as connection:
        waiting = statistics.backlog(connection)
        busy = statistics.activity(connection, span_s=span_s, buckets=buckets)
        reasons = statistics.reasons(connection)
    dead = services.admin.page(InstanceFilter(states=(InstanceState.DEAD_LETTER,)), limit=_DEAD_LETTERS)
    values = {
        "span": span,
        "checks": readiness(services.engine, services.settings),
        "backlog": waiting,
        "activity": busy,
        "reasons": reasons,
        "destinations": health_of(services),
        "configured": {one.name: one for one in services.settings.destinations},
        "dead_letters": dead.records,
        "has_more_dead": dead.next_after is not None,
        "storage": storage_of(services),
        "settings": services.settings,
        "certificates": _certificates(services),
        "started_at": services.started_at,
    }
    is_part = request.headers.get("hx-request") == "true"
    return render(request, "_operations.html" if is_part else "operations.html", values)


@router.post("/operations/destinations/{name}/echo")
async def echo(request: Request, name: str, services: OpenServices, visitor: Operator) -> Response:
    """Ask a destination, and say in the page what it answered."""
    outcome = await echo_destination(name, services, visitor)
    return render(request, "_echo.html", {"outcome": outcome, "name": name})


@router.get("/findings")
def findings(request: Request, services: OpenServices, _visitor: AnyVisitor, days: int = 30) -> Response:
    """What the models said over time."""
    days = days if days in (7, 30, 90) else 30
    found = services.findings(days)
    first_day = int(time.time() // 86400) - days + 1
    return render(request, "findings.html", {"findings": found, "days": days, "first_day": first_day})


@router.get("/models")
def models(request: Request, services: OpenServices, _visitor: AnyVisitor) -> Response:
    """The models in use, with their cards."""
    manifests = models_of(services.settings)
    values = {
        "models": [(one, card_of(services.settings, one.name)) for one in manifests],
        "thresholds": services.settings.analysis.thresholds,
    }
    return render(request, "models.html", values)


@router.get("/configuration")
def configuration(request: Request, services: OpenServices, _visitor: Administrator) -> Response:
    """The configuration in use; secrets are hidden."""
    return render(request, "configuration.html", {"text": in_use(services.settings)})


@router.get("/activity")
async def activity(request: Request, services: OpenServices, _visitor: Administrator) -> Response:
    """What people did through the console."""

    def read() -> tuple[user_actions.UserAction, ...]:
        with services.reading() as connection:
            return user_actions.recent(connection, limit=_ACTIONS + 1)

    found = await anyio.to_thread.run_sync(read)
    return render(request, "activity.html", {"actions": found[:_ACTIONS], "has_more": len(found) > _ACTIONS})


def _certificates(services: Services) -> list[tuple[CertificateInUse, str]]:
    """The certificates that the configuration names, each with what is wrong with it; empty: nothing."""
    now, days = datetime.now(UTC), services.settings.receiver.tls.expiry_warning_days
    return [(used, used.warning(now, days)) for used in certificates_in_use(services.settings)]

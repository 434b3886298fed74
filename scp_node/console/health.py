"""Health and metrics, for whatever watches the node."""

from typing import Annotated

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from scp_node.console.requests import OpenServices
from scp_node.jobs.readiness import Check, readiness
from scp_node.telemetry.metrics import CONTENT_TYPE, exposition

router = APIRouter(tags=["health"])


class Live(BaseModel):
    """The process answers."""

    status: Annotated[str, Field(examples=["alive"])]


class Readiness(BaseModel):
    """Whether the node does its work, and what says so."""

    is_ready: bool
    checks: list[Check]


@router.get("/health/live")
def live() -> Live:
    """Whether this process lives; asks nothing else, needs no log-in."""
    return Live(status="alive")


@router.get("/health/ready", responses={503: {"model": Readiness, "description": "Something does not work."}})
def ready(services: OpenServices) -> Response:
    """Whether work gets done: database, workers, disk, and that nothing waits too long."""
    checks = readiness(services.engine, services.settings)
    is_ready = all(check.is_ok for check in checks)
    body = Readiness(is_ready=is_ready, checks=list(checks)).model_dump(mode="json")
    return JSONResponse(body, status_code=200 if is_ready else 503)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(services: OpenServices) -> Response:
    """Metrics of the whole node in Prometheus' text format, read from the database."""
    return Response(exposition(services.metrics), media_type=CONTENT_TYPE)

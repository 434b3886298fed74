"""The JSON API of operations: destinations, queues, numbers over time, models, configuration, and who did what."""

from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query
from starlette.exceptions import HTTPException
from starlette.responses import Response

from config.write import in_use
from scp_node.console.answers import (
    Model,
    Queues,
    Reached,
    Storage,
)
from scp_node.console.reading import card_of, models_of
from scp_node.console.requests import Administrator, AnyVisitor, OpenServices, Operator
from scp_node.console.services import Services
from scp_node.delivery.catalog import echo
from scp_node.jobs import health, statistics, user_actions
from scp_node.jobs.findings import Findings
from scp_node.jobs.health import DestinationHealth
from scp_node.jobs.statistics import Activity
from scp_node.jobs.user_actions import UserAction

router = APIRouter(prefix="/api/v1", tags=["operations"])

_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"description": "No such thing."}}
_ACTS: dict[int | str, dict[str, Any]] = {
    **_UNKNOWN,
    403: {"description": "The role does not allow it."},
}


@router.get("/destinations")
def destinations(services: OpenServices, _visitor: AnyVisitor) -> list[DestinationHealth]:
    """How destinations do."""
    return health_of(services)


@router.post("/destinations/{name}/echo", responses=_ACTS)
async def echo_destination(name: str, services: OpenServices, visitor: Operator) -> Reached:
    """Ask a destination whether it answers: C-ECHO, or a trial file."""
    found = next((one for one in services.settings.destinations if one.name == name), None)
    if found is None:
        raise HTTPException(404, "there is no destination of that name")
    title = services.settings.receiver.ae_title
    outcome = await anyio.to_thread.run_sync(echo, found, title)
    await anyio.to_thread.run_sync(
        lambda: services.record(visitor, "echo", subject=name, after="answers" if outcome.is_reachable else "silent")
    )
    return Reached(is_reachable=outcome.is_reachable, detail=outcome.detail, duration_s=outcome.duration_s)


@router.get("/queues")
def queues(services: OpenServices, _visitor: AnyVisitor) -> Queues:
    """What waits."""
    with services.reading() as connection:
        found = statistics.backlog(connection)
    deliveries: dict[str, dict[str, int]] = {}
    for (destination, state), count in found.deliveries.items():
        deliveries.setdefault(destination, {})[state] = count
    return Queues(
        instances={state.value: count for state, count in found.instances.items()},
        deliveries=deliveries,
        oldest_waiting_s=found.oldest_s,
    )


@router.get("/activity")
def activity(
    services: OpenServices,
    _visitor: AnyVisitor,
    hours: Annotated[float, Query(gt=0, le=24 * 31)] = 1,
    buckets: Annotated[int, Query(ge=1, le=500)] = 60,
) -> Activity:
    """Throughput and latency of the last hours."""
    with services.reading() as connection:
        return statistics.activity(connection, span_s=hours * 3600, buckets=buckets)


@router.get("/findings")
def findings(services: OpenServices, _visitor: AnyVisitor, days: Annotated[int, Query(ge=1, le=366)] = 30) -> Findings:
    """What the models said in the last days: positivity per day, distribution of probabilities, disagreement."""
    return services.findings(days)


@router.get("/storage")
def storage(services: OpenServices, _visitor: AnyVisitor) -> Storage:
    """What is kept, and how much room there is."""
    return storage_of(services)


@router.get("/models")
def models(services: OpenServices, _visitor: AnyVisitor) -> list[Model]:
    """The models in use."""
    thresholds = services.settings.analysis.thresholds
    return [
        Model(
            name=one.name,
            title=one.title,
            version=one.version,
            architecture=one.architecture,
            threshold=one.threshold,
            site_threshold=thresholds.get(one.name),
            rule=one.rule.value,
            preprocessing=one.preprocessing,
            weights_sha256=one.weights_sha256,
            training_data=one.training_data,
            created=one.created.isoformat(),
        )
        for one in models_of(services.settings)
    ]


@router.get("/models/{name}/card", response_class=Response, responses=_UNKNOWN)
def card(name: str, services: OpenServices, _visitor: AnyVisitor) -> Response:
    """The card of a model, as Markdown."""
    text = card_of(services.settings, name)
    if text is None:
        raise HTTPException(404, "there is no such model in use")
    return Response(text, media_type="text/markdown; charset=utf-8")


@router.get("/configuration", response_class=Response, responses={200: {"content": {"application/toml": {}}}})
def configuration(services: OpenServices, _visitor: Administrator) -> Response:
    """The configuration in use, as TOML; secrets are hidden."""
    return Response(in_use(services.settings), media_type="application/toml")


@router.get("/user-actions")
def actions(
    services: OpenServices, _visitor: Administrator, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[UserAction]:
    """What people did through the console, newest first."""
    with services.reading() as connection:
        return list(user_actions.recent(connection, limit=limit))


def health_of(services: Services) -> list[DestinationHealth]:
    """How the configured destinations do, and others for which something waits."""
    with services.reading() as connection:
        return health.health(connection, [one.name for one in services.settings.destinations])


def storage_of(services: Services) -> Storage:
    """What is kept, and how much room there is."""
    with services.reading() as connection:
        received = statistics.stored_bytes(connection)
    return Storage(
        free_bytes=services.spool.free_bytes(),
        minimum_free_bytes=services.settings.spool.minimum_free_bytes,
        received_bytes=received,
        retention_days=services.settings.spool.retention_days,
    )

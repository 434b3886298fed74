"""The JSON API: what the worklist and the operations pages show, and what an operator does."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query
from fastapi import Path as InPath
from pydantic import AwareDatetime
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response

from config.write import in_use
from scp_node.console.access import Visitor
from scp_node.console.answers import (
    Details,
    Happened,
    InstanceList,
    Listed,
    Model,
    Queues,
    Reached,
    Result,
    Storage,
)
from scp_node.console.reading import card_of, models_of
from scp_node.console.requests import Administrator, AnyVisitor, OpenServices, Operator
from scp_node.console.services import Services
from scp_node.delivery.catalog import echo
from scp_node.errors import JobStateError
from scp_node.jobs import breaker, rows, statistics, user_actions
from scp_node.jobs.breaker import DestinationHealth
from scp_node.jobs.records import (
    Finding,
    InstanceDetail,
    InstanceFilter,
    InstanceRecord,
)
from scp_node.jobs.statistics import Activity, Findings
from scp_node.jobs.user_actions import UserAction
from scp_node.records import InstanceState

router = APIRouter(prefix="/api/v1", tags=["node"])

LARGEST_ID = 2**63 - 1
InstanceId = Annotated[int, InPath(ge=1, le=LARGEST_ID)]
_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"description": "No such thing."}}
_ACTS: dict[int | str, dict[str, Any]] = {
    **_UNKNOWN,
    403: {"description": "The role does not allow it."},
    409: {"description": "The instance is in a state in which this cannot be done."},
}


@router.get("/instances")
def instances(  # noqa: PLR0917 - FastAPI passes them by name
    services: OpenServices,
    _visitor: AnyVisitor,
    state: InstanceState | None = None,
    finding: Finding | None = None,
    sender: Annotated[str | None, Query(max_length=16)] = None,
    uid: Annotated[str, Query(max_length=64, description="Beginning of the SOP Instance UID.")] = "",
    received_from: AwareDatetime | None = None,
    received_before: AwareDatetime | None = None,
    after: Annotated[int | None, Query(ge=0, le=LARGEST_ID)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> InstanceList:
    """Received instances, newest first."""
    which = InstanceFilter(
        states=(state,) if state else (),
        uid_prefix=uid,
        calling_ae_title=sender or None,
        received_from=received_from,
        received_before=received_before,
        finding=finding,
    )
    return list_of(services, which, after=after, limit=limit)


@router.get("/instances/{instance_id}", responses=_UNKNOWN)
def instance(instance_id: InstanceId, services: OpenServices, _visitor: AnyVisitor) -> Details:
    """All that is known of one instance."""
    return details_of(services.admin.show(str(instance_id)))


@router.get("/instances/{instance_id}/history", responses=_UNKNOWN)
def history(instance_id: InstanceId, services: OpenServices, _visitor: AnyVisitor) -> list[Happened]:
    """What happened to one instance, oldest first."""
    return [
        Happened(id=one.id, at=one.at, event=one.event.value, detail=one.detail)
        for one in services.admin.history(str(instance_id))
    ]


@router.post("/instances/{instance_id}/retry", responses=_ACTS)
def retry(instance_id: InstanceId, services: OpenServices, visitor: Operator) -> InstanceRecord:
    """Take up again what was given up; a delivery that waits is tried now."""
    return act(services, visitor, "retry", instance_id, services.admin.retry)


@router.post("/instances/{instance_id}/cancel", responses=_ACTS)
def cancel(instance_id: InstanceId, services: OpenServices, visitor: Operator) -> InstanceRecord:
    """Give up: no more analysis, no more attempts."""
    return act(services, visitor, "cancel", instance_id, services.admin.cancel)


@router.post("/instances/{instance_id}/resend", responses=_ACTS)
def resend(instance_id: InstanceId, services: OpenServices, visitor: Operator) -> InstanceRecord:
    """Send results again that were confirmed, to destinations that have lost them."""
    return act(services, visitor, "resend", instance_id, services.admin.resend)


@router.get(
    "/instances/{instance_id}/results/{number}",
    response_class=Response,
    responses={**_UNKNOWN, 200: {"content": {"application/dicom": {}}}},
)
def result(
    instance_id: InstanceId,
    number: Annotated[int, InPath(ge=0, le=999)],
    services: OpenServices,
    visitor: AnyVisitor,
) -> Response:
    """One result object, as the node sends it."""
    detail = services.admin.show(str(instance_id))
    if number >= len(detail.results):
        raise HTTPException(404, "there is no such result")
    found = detail.results[number]
    return _dicom(services, visitor, detail, found.file, "_".join(filter(None, (found.kind.value, found.model))))


@router.get(
    "/instances/{instance_id}/source",
    response_class=Response,
    responses={**_UNKNOWN, 200: {"content": {"application/dicom": {}}}},
)
def source(instance_id: InstanceId, services: OpenServices, visitor: Operator) -> Response:
    """The object as it was received."""
    detail = services.admin.show(str(instance_id))
    return _dicom(services, visitor, detail, detail.file, "source")


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


def list_of(services: Services, which: InstanceFilter, *, after: int | None, limit: int) -> InstanceList:
    """One page of the worklist."""
    page = services.admin.page(which, after=after, limit=limit)
    with services.reading() as connection:
        said = rows.predictions_of(connection, [one.id for one in page.records])
    return InstanceList(
        entries=[Listed(instance=one, predictions=said.get(one.id, ())) for one in page.records],
        next_after=page.next_after,
    )


def details_of(detail: InstanceDetail) -> Details:
    """An instance without the places of its files."""
    return Details(
        instance=detail.instance,
        sha256=detail.sha256,
        size_bytes=detail.size_bytes,
        transfer_syntax_uid=detail.transfer_syntax_uid,
        called_ae_title=detail.called_ae_title,
        analysed_at=detail.analysed_at,
        duration_s=detail.duration_s,
        window=detail.window,
        notes=detail.notes,
        predictions=detail.predictions,
        results=[
            Result(
                sop_instance_uid=one.sop_instance_uid,
                sop_class_uid=one.sop_class_uid,
                transfer_syntax_uid=one.transfer_syntax_uid,
                kind=one.kind,
                model=one.model,
                size_bytes=one.size_bytes,
                confirmations=one.confirmations,
            )
            for one in detail.results
        ],
        deliveries=detail.instance.deliveries,
    )


def health_of(services: Services) -> list[DestinationHealth]:
    """How the configured destinations do, and others for which something waits."""
    with services.reading() as connection:
        return breaker.health(connection, [one.name for one in services.settings.destinations])


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


def act(
    services: Services,
    visitor: Visitor,
    action: str,
    instance_id: int,
    change: Callable[[str], InstanceRecord],
) -> InstanceRecord:
    """Do something with an instance, and write down who asked for it, what it was before and after."""
    before = services.admin.show(str(instance_id)).instance
    try:
        changed = change(str(instance_id))
    except JobStateError as error:
        services.record(
            visitor,
            action,
            subject=before.sop_instance_uid,
            before=before.state.value,
            after=f"refused: {error}",
        )
        raise
    services.record(
        visitor, action, subject=before.sop_instance_uid, before=before.state.value, after=changed.state.value
    )
    return changed


def _dicom(services: Services, visitor: Visitor, detail: InstanceDetail, file: Path, name: str) -> Response:
    if not file.exists():
        raise HTTPException(404, "the file is gone: retention has removed it")
    services.record(visitor, "download", subject=detail.instance.sop_instance_uid, after=name)
    stamp = datetime.now(UTC).strftime("%Y%m%d")
    return FileResponse(file, media_type="application/dicom", filename=f"{detail.instance.id}-{name}-{stamp}.dcm")

"""The JSON API of the worklist: received instances, what is known of each, and what an operator does with one."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi import Path as InPath
from pydantic import AwareDatetime
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response

from scp_node.console.access import Visitor
from scp_node.console.answers import LARGEST_ID, Details, Happened, InstanceList, Listed, Result, Search
from scp_node.console.reading import content_of
from scp_node.console.requests import AnyVisitor, OpenServices, Operator
from scp_node.console.services import Services
from scp_node.errors import JobStateError
from scp_node.jobs import rows
from scp_node.jobs.acting import acting_as
from scp_node.jobs.patients import accession_number
from scp_node.jobs.records import Finding, InstanceDetail, InstanceFilter, InstanceRecord, ResultRecord
from scp_node.jobs.user_actions import REFUSED
from scp_node.records import InstanceState

router = APIRouter(prefix="/api/v1", tags=["instances"])

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
    uid: Annotated[
        str, Query(max_length=64, description="Beginning of the SOP Instance UID or of the Study Instance UID.")
    ] = "",
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


@router.post("/instances/search")
def search(asked: Search, services: OpenServices, _visitor: AnyVisitor) -> InstanceList:
    """Received instances of one Accession Number, newest first; a POST, since addresses are written to logs."""
    which = InstanceFilter(
        states=(asked.state,) if asked.state else (), accession_pseudonym=pseudonym_of(services, asked.accession_number)
    )
    return list_of(services, which, after=asked.after, limit=asked.limit)


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
    return _dicom(services, visitor, detail, found)


@router.get(
    "/instances/{instance_id}/source",
    response_class=Response,
    responses={**_UNKNOWN, 200: {"content": {"application/dicom": {}}}},
)
def source(instance_id: InstanceId, services: OpenServices, visitor: Operator) -> Response:
    """The object as it was received."""
    detail = services.admin.show(str(instance_id))
    return _dicom(services, visitor, detail, None)


def pseudonym_of(services: Services, accession_number: str) -> str:
    """What the database has in place of an Accession Number; something that it does not have for an empty one."""
    try:
        return services.pseudonyms.of(accession_number) or "none"
    except OSError as error:
        raise HTTPException(503, f"the spool cannot be used: {error.strerror or error}") from error


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
        accession_number=accession_number(detail.file, detail.transfer_syntax_uid),
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
                is_superseded=one.is_superseded,
                confirmations=one.confirmations,
            )
            for one in detail.results
        ],
        deliveries=detail.instance.deliveries,
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
        with acting_as(visitor.name, visitor.address):
            changed = change(str(instance_id))
    except JobStateError as error:
        services.record(
            visitor,
            action,
            subject=before.sop_instance_uid,
            before=before.state.value,
            after=f"{REFUSED}{error}",
        )
        raise
    services.record(
        visitor, action, subject=before.sop_instance_uid, before=before.state.value, after=changed.state.value
    )
    return changed


def _dicom(services: Services, visitor: Visitor, detail: InstanceDetail, found: ResultRecord | None) -> Response:
    file = detail.file if found is None else found.file
    name = "source" if found is None else "_".join(filter(None, (found.kind.value, found.model)))
    if not file.exists():
        raise HTTPException(404, "the file is gone: retention has removed it")
    if found is not None:
        content_of(found)
    with acting_as(visitor.name, visitor.address):
        services.admin.note_download(detail, found)
    services.record(visitor, "download", subject=detail.instance.sop_instance_uid, after=name)
    stamp = datetime.now(UTC).strftime("%Y%m%d")
    return FileResponse(file, media_type="application/dicom", filename=f"{detail.instance.id}-{name}-{stamp}.dcm")

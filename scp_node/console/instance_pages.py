"""The worklist and the page of each instance."""

from datetime import UTC, datetime, time, timedelta
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query
from pydicom.uid import UID
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from scp_node.console.answers import LARGEST_ID
from scp_node.console.instances_api import InstanceId, act, list_of, pseudonym_of
from scp_node.console.pages import render
from scp_node.console.reading import picture, report
from scp_node.console.requests import AnyVisitor, OpenServices, Operator, is_own_form
from scp_node.console.services import Services
from scp_node.errors import JobStateError
from scp_node.jobs import worklist
from scp_node.jobs.accession import is_pseudonym
from scp_node.jobs.patients import accession_number
from scp_node.jobs.records import Finding, InstanceFilter, ResultRecord
from scp_node.records import InstanceState, ResultKind

router = APIRouter(include_in_schema=False)

_LINES = 50
_PICTURE_SIZE = 1200
_THUMBNAIL_SIZE = 480
_DAY = timedelta(days=1)
_PICTURES = (ResultKind.MONTAGE, ResultKind.SINGLE)


@router.get("/worklist")
def show_worklist(  # noqa: PLR0917 - FastAPI passes them by name
    request: Request,
    services: OpenServices,
    _visitor: AnyVisitor,
    state: str = "",
    finding: str = "",
    sender: str = "",
    uid: Annotated[str, Query(max_length=100)] = "",
    day: str = "",
    accession: Annotated[str, Query(max_length=64)] = "",
    after: Annotated[int | None, Query(ge=0, le=LARGEST_ID)] = None,
) -> Response:
    """What arrived, newest first; ``accession``: the pseudonym of an Accession Number, see `search_worklist`."""
    begins = _day(day)
    which = InstanceFilter(
        states=(InstanceState(state),) if state in set(InstanceState) else (),
        uid_prefix=uid.strip(),
        calling_ae_title=sender or None,
        finding=Finding(finding) if finding in set(Finding) else None,
        received_from=begins,
        received_before=None if begins is None else begins + _DAY,
        # An address may hold anything; what can be no pseudonym finds nothing.
        accession_pseudonym=(accession if is_pseudonym(accession) else "none") if accession else None,
    )
    page = list_of(services, which, after=after, limit=_LINES)
    with services.reading() as connection:
        senders = worklist.senders(connection)
    chosen = _chosen(state=state, finding=finding, sender=sender, uid=uid, day=day, accession=accession)
    values = {
        "entries": page.entries,
        "older": None if page.next_after is None else urlencode({**chosen, "after": page.next_after}),
        "is_first": after is None,
        "chosen": chosen,
        "query": urlencode(chosen | ({} if after is None else {"after": after})),
        "senders": senders,
        "states": list(InstanceState),
        "findings": list(Finding),
        "receiver": services.settings.receiver,
    }
    is_part = request.headers.get("hx-request") == "true"
    return render(request, "_worklist_lines.html" if is_part else "worklist.html", values)


@router.post("/worklist")
def search_worklist(  # noqa: PLR0917 - FastAPI passes them by name
    services: OpenServices,
    visitor: AnyVisitor,
    accession_number: Annotated[str, Form(max_length=64)] = "",
    state: Annotated[str, Form(max_length=20)] = "",
    finding: Annotated[str, Form(max_length=20)] = "",
    sender: Annotated[str, Form(max_length=16)] = "",
    uid: Annotated[str, Form(max_length=100)] = "",
    day: Annotated[str, Form(max_length=20)] = "",
    accession: Annotated[str, Form(max_length=64)] = "",
    csrf: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """Take what is searched by and lead to the list of it.

    An Accession Number comes in the body and goes on as its pseudonym: an address ends up in histories and logs.
    """
    if not is_own_form(visitor, csrf):
        return RedirectResponse("/worklist", status_code=303)
    if accession_number.strip():
        accession = pseudonym_of(services, accession_number)
    chosen = _chosen(state=state, finding=finding, sender=sender, uid=uid, day=day, accession=accession)
    return RedirectResponse(f"/worklist{'?' if chosen else ''}{urlencode(chosen)}", status_code=303)


def _chosen(**filters: str) -> dict[str, str]:
    return {name: value.strip() for name, value in filters.items() if value.strip()}


@router.get("/instances/{instance_id}")
def show_instance(request: Request, instance_id: InstanceId, services: OpenServices, _visitor: AnyVisitor) -> Response:
    """All that is known of one instance."""
    return _page(request, services, instance_id)


@router.get("/instances/{instance_id}/pictures/{number}.png")
def show_picture(
    instance_id: InstanceId, number: int, services: OpenServices, _visitor: AnyVisitor, small: bool = False
) -> Response:
    """A result picture as PNG.

    Pages name its digest too: a browser keeps what it was given, and after a recall the number is another picture's.
    """
    detail = services.admin.show(str(instance_id))
    if not 0 <= number < len(detail.results) or detail.results[number].kind not in _PICTURES:
        raise HTTPException(404, "there is no such picture")
    found = detail.results[number]
    if not found.file.exists():
        raise HTTPException(404, "the file is gone: retention has removed it")
    content = picture(found, _THUMBNAIL_SIZE if small else _PICTURE_SIZE)
    return Response(content, media_type="image/png", headers={"cache-control": "private, max-age=300"})


@router.post("/instances/{instance_id}/{action}")
def change(
    request: Request, instance_id: InstanceId, action: str, services: OpenServices, visitor: Operator
) -> Response:
    """Do something with an instance and show its page as it is then."""
    actions = {"retry": services.admin.retry, "cancel": services.admin.cancel, "resend": services.admin.resend}
    if action not in actions:
        raise HTTPException(404, "there is no such action")
    try:
        act(services, visitor, action, instance_id, actions[action])
    except JobStateError as error:
        return _page(request, services, instance_id, problem=str(error))
    return _page(request, services, instance_id, done=action)


def _page(request: Request, services: Services, instance_id: int, *, problem: str = "", done: str = "") -> Response:
    detail = services.admin.show(str(instance_id))
    reports = [
        (number, one, report(one))
        for number, one in enumerate(detail.results)
        if one.kind not in _PICTURES and one.file.exists() and _is_first(detail.results, number)
    ]
    values = {
        "detail": detail,
        "instance": detail.instance,
        "pictures": [(number, one) for number, one in enumerate(detail.results) if one.kind in _PICTURES],
        "reports": reports,
        "accession_number": accession_number(detail.file, detail.transfer_syntax_uid),
        "history": services.admin.history(str(instance_id)),
        "names": {uid: UID(uid).name for uid in (detail.instance.sop_class_uid, detail.transfer_syntax_uid)},
        "problem": problem,
        "done": done,
    }
    is_part = request.headers.get("hx-request") == "true"
    return render(request, "_instance.html" if is_part else "instance.html", values)


def _is_first(results: tuple[ResultRecord, ...], number: int) -> bool:
    """Alternatives of one report say the same: one of them is shown. What an earlier analysis said is another one."""

    def report_of(one: ResultRecord) -> tuple[ResultKind, str | None, bool]:
        return one.kind, one.model, one.is_superseded

    return report_of(results[number]) not in map(report_of, results[:number])


def _day(text: str) -> datetime | None:
    """Beginning of a day; None for what is none, and for the last one that there is: it has no end."""
    try:
        begins = datetime.combine(datetime.strptime(text, "%Y-%m-%d").date(), time.min, UTC)  # noqa: DTZ007 - a date only
    except ValueError:
        return None
    return begins if begins < datetime.max.replace(tzinfo=UTC) - _DAY else None

"""Results to a Storage SCP: one association for all objects of an analysis, and for the next while more wait."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification

from config.destinations import DicomDestination
from scp_node.delivery.association import NoAssociationError, open_association
from scp_node.delivery.folder import alternatives
from scp_node.delivery.keeping import Associations
from scp_node.delivery.records import ContextOutcome, EchoOutcome, IsWanted, Report
from scp_node.delivery.statuses import Status, verdict_on
from scp_node.delivery.transmission import DirectMessages
from scp_node.records import ObjectOutcome, Outgoing, Verdict

Contexts = dict[str, int]
"""Transfer Syntax UID -> id of the context in which it was accepted."""
Accepted = dict[str, Contexts]
"""SOP Class UID -> what is accepted for it."""

_UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


def send(
    objects: Sequence[Outgoing],
    destination: DicomDestination,
    *,
    calling_ae_title: str,
    report: Report,
    is_wanted: IsWanted,
    associations: Associations,
    is_more: Callable[[], bool],
) -> list[ObjectOutcome]:
    """Send objects by C-STORE (PS3.4 B.2), of alternatives the first whose SOP Class the peer accepts.

    A compressed object whose transfer syntax the peer refuses is sent uncompressed, under its UID: it is the same
    picture.
    """
    outcomes: list[ObjectOutcome] = []

    def note(
        item: Outgoing, verdict: Verdict, status: int | None = None, detail: str = "", *, is_reached: bool = True
    ) -> None:
        outcome = ObjectOutcome(
            sop_instance_uid=item.sop_instance_uid,
            verdict=verdict,
            status=status,
            detail=detail,
            is_reached=is_reached,
        )
        outcomes.append(outcome)
        report(outcome)

    proposed = sorted({(item.sop_class_uid, syntax) for item in objects for syntax in _syntaxes(item)})

    def attempt(*, is_fresh: bool) -> None:
        with associations.open(destination, calling_ae_title, proposed, is_more=is_more, is_fresh=is_fresh) as opened:
            association = opened.connection.association
            accepted = _accepted(association)

            def hear(item: Outgoing, verdict: Verdict, status: int | None = None, detail: str = "") -> None:
                if opened.is_kept and not outcomes and verdict is Verdict.TRANSIENT and status is None:
                    raise _StaleError
                note(item, verdict, status, detail)

            for group in alternatives(objects):
                if is_wanted(group[0]):
                    _send_group(association, accepted, group, destination, hear)

    try:
        try:
            attempt(is_fresh=False)
        except _StaleError:
            attempt(is_fresh=True)
    except NoAssociationError as error:
        for item in objects:
            if all(outcome.sop_instance_uid != item.sop_instance_uid for outcome in outcomes):
                note(item, Verdict.TRANSIENT, None, str(error), is_reached=False)
    return outcomes


def _send_group(
    association: Association,
    accepted: Accepted,
    group: Sequence[Outgoing],
    destination: DicomDestination,
    note: Any,  # noqa: ANN401 - the closure of send
) -> None:
    takers = [item for item in group if not accepted.get(item.sop_class_uid, {}).keys().isdisjoint(_syntaxes(item))]
    if not takers:
        for item in group:
            name = UID(item.sop_class_uid).name
            note(item, Verdict.NOT_TAKEN, None, f"{destination.ae_title} accepts no presentation context for {name}")
        return
    for item in takers:
        verdict, status, detail = _send_one(association, item, accepted[item.sop_class_uid], destination)
        note(item, verdict, status, detail)
        if verdict is Verdict.CONFIRMED:
            for other in group:
                if other is not item:
                    note(other, Verdict.NOT_NEEDED)
            return
        # Some peers accept every context and find out when they look: then the next alternative has its turn.
        if verdict is not Verdict.NOT_TAKEN:
            return


class _StaleError(Exception):
    """An association that was open already has ended before anything was answered on it."""


_Word = tuple[Verdict, int | None, str]


def _send_one(association: Association, item: Outgoing, contexts: Contexts, destination: DicomDestination) -> _Word:
    try:
        status = _store(association, item, contexts)
    except (InvalidDicomError, OSError, ValueError, AttributeError, KeyError, RuntimeError) as error:
        return _not_sent(error, destination)
    if status is None and association.dimse.has_gone_astray:
        what = "gave an answer to something else, the association was ended"
        return Verdict.TRANSIENT, None, f"{destination.ae_title} {what}"
    if status is None:
        what = f"did not answer within {destination.timeout_s:g} s or ended the association"
        return Verdict.TRANSIENT, None, f"{destination.ae_title} {what}"
    verdict, words = verdict_on(status)
    if status == Status.SUCCESS:
        return verdict, status, ""
    return verdict, status, f"{destination.ae_title} answered 0x{status:04X}: {words}"


def _not_sent(error: Exception, destination: DicomDestination) -> _Word:
    if isinstance(error, FileNotFoundError):
        return Verdict.PERMANENT, None, "the result's file is missing from the spool"
    if isinstance(error, OSError):
        return Verdict.TRANSIENT, None, f"the result's file cannot be read: {error.strerror or type(error).__name__}"
    if isinstance(error, RuntimeError):
        return Verdict.TRANSIENT, None, f"{destination.ae_title} ended the association before this object"
    return Verdict.PERMANENT, None, f"the result's file is damaged: {type(error).__name__}"


def _store(association: Association, item: Outgoing, contexts: Contexts) -> int | None:
    """Send one object, the file where it can be sent as it is, else encoded anew; None: no answer."""
    content: Path | Dataset = item.file
    context_id = contexts.get(item.transfer_syntax_uid)
    if context_id is None:
        content = dcmread(item.file)
        if UID(item.transfer_syntax_uid).is_compressed:
            # The object keeps its UID and its lossy flags: nothing but the encoding changes.
            content.decompress(generate_instance_uid=False)
    elif item.size_bytes is not None and item.file.stat().st_size != item.size_bytes:
        raise ValueError("not the size that was written")
    elif isinstance(association.dimse, DirectMessages):
        return association.dimse.store(item, context_id)
    answer = association.send_c_store(content)
    return int(answer.Status) if "Status" in answer else None


def _syntaxes(item: Outgoing) -> tuple[str, ...]:
    """Transfer syntaxes an object can be sent in, its own first."""
    return (item.transfer_syntax_uid, *(s for s in _UNCOMPRESSED if s != item.transfer_syntax_uid))


def _accepted(association: Association) -> Accepted:
    accepted: Accepted = {}
    for context in association.accepted_contexts:
        contexts = accepted.setdefault(str(context.abstract_syntax), {})
        contexts.setdefault(str(context.transfer_syntax[0]), context.context_id)
    return accepted


def echo(destination: DicomDestination, *, calling_ae_title: str) -> EchoOutcome:
    """Verify a peer by C-ECHO (PS3.4 A.4)."""
    started = time.monotonic()
    is_reachable, is_present = False, True
    try:
        with open_association(
            destination, calling_ae_title, [(str(Verification), str(ImplicitVRLittleEndian))]
        ) as association:
            if not association.is_established or not association.accepted_contexts:
                detail = f"{destination.ae_title} accepts no C-ECHO"
            else:
                answer = association.send_c_echo()
                is_reachable = "Status" in answer and int(answer.Status) == Status.SUCCESS
                status = f"0x{int(answer.Status):04X}" if "Status" in answer else "nothing"
                detail = f"{destination.ae_title} at {destination.host}:{destination.port} answered {status}"
    except NoAssociationError as error:
        detail, is_present = str(error), error.is_present
    return EchoOutcome(
        is_reachable=is_reachable, is_present=is_present, duration_s=time.monotonic() - started, detail=detail
    )


def negotiate(
    destination: DicomDestination, proposed: Sequence[tuple[str, str]], *, calling_ae_title: str
) -> tuple[ContextOutcome, ...]:
    """Ask a peer which SOP Classes it takes in which transfer syntaxes, without sending anything.

    Parameters
    ----------
    proposed
        Pairs of SOP Class UID and Transfer Syntax UID, at most 128.

    Raises
    ------
    ConnectionError
        There is no association; the message says why.
    """
    try:
        with open_association(destination, calling_ae_title, proposed) as association:
            accepted = _accepted(association)
    except NoAssociationError as error:
        raise ConnectionError(str(error)) from error
    return tuple(
        ContextOutcome(
            sop_class_uid=sop_class,
            transfer_syntax_uid=syntax,
            is_accepted=syntax in accepted.get(sop_class, {}),
        )
        for sop_class, syntax in proposed
    )

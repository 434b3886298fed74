"""Results into a folder: one file per object, under another name until it is complete."""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path

from config.destinations import FolderDestination
from scp_node.delivery.records import EchoOutcome, IsWanted, Report
from scp_node.durability import synchronise
from scp_node.records import ObjectOutcome, Outgoing, Verdict


def send(
    objects: Sequence[Outgoing],
    destination: FolderDestination,
    *,
    calling_ae_title: str,
    report: Report,
    is_wanted: IsWanted,
    associations: object,
    is_more: Callable[[], bool],
) -> list[ObjectOutcome]:
    """Write the objects as ``<SOP Instance UID>.dcm``; of alternatives the first.

    A file that is there already is replaced: its name says that it is the same object.
    """
    del calling_ae_title, associations, is_more  # a folder is not called
    outcomes: list[ObjectOutcome] = []

    def note(outcome: ObjectOutcome) -> None:
        outcomes.append(outcome)
        report(outcome)

    for first, *others in alternatives(objects):
        if not is_wanted(first):
            continue
        outcome = _write(first, destination.folder)
        note(outcome)
        if outcome.verdict is Verdict.CONFIRMED:
            for other in others:
                note(ObjectOutcome(sop_instance_uid=other.sop_instance_uid, verdict=Verdict.NOT_NEEDED, status=None))
    return outcomes


def alternatives(objects: Iterable[Outgoing]) -> list[list[Outgoing]]:
    """Return the objects by group, in order of appearance; within a group the preferred one first."""
    order: dict[str, int] = {}
    for item in objects:
        order.setdefault(item.group, len(order))
    ranked = sorted(objects, key=lambda item: (order[item.group], item.rank))
    return [list(group) for _, group in groupby(ranked, key=lambda item: item.group)]


def _write(item: Outgoing, folder: Path) -> ObjectOutcome:
    # The UID is one of this node's own making: digits and dots.
    name = f"{item.sop_instance_uid}.dcm"
    part = folder / f".{name}.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with item.file.open("rb") as source, part.open("wb") as target:
            shutil.copyfileobj(source, target, 2**20)
            target.flush()
            os.fsync(target.fileno())
        part.replace(folder / name)
        synchronise(folder)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        if not item.file.exists():
            return ObjectOutcome(
                sop_instance_uid=item.sop_instance_uid,
                verdict=Verdict.PERMANENT,
                status=None,
                detail="the result's file is missing from the spool",
            )
        # A folder may be on a share that is away, or full: both mend.
        return ObjectOutcome(
            sop_instance_uid=item.sop_instance_uid,
            verdict=Verdict.TRANSIENT,
            status=None,
            detail=f"cannot write into {folder}: {error.strerror or type(error).__name__}",
            is_reached=False,
        )
    return ObjectOutcome(sop_instance_uid=item.sop_instance_uid, verdict=Verdict.CONFIRMED, status=None)


def echo(destination: FolderDestination, *, calling_ae_title: str) -> EchoOutcome:
    """Try whether the folder can be written."""
    del calling_ae_title
    started = time.monotonic()
    probe = destination.folder / f".echo.{os.getpid()}"
    try:
        destination.folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        detail = f"cannot write into {destination.folder}: {error.strerror or type(error).__name__}"
        return EchoOutcome(is_reachable=False, is_present=False, duration_s=time.monotonic() - started, detail=detail)
    return EchoOutcome(
        is_reachable=True,
        is_present=True,
        duration_s=time.monotonic() - started,
        detail=f"{destination.folder} can be written",
    )

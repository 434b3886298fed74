"""The one place a kind of destination is added: how objects are sent to it and how it is asked whether it is there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from config.destinations import Destination
from scp_node.delivery import dicom, folder
from scp_node.delivery.keeping import Associations
from scp_node.delivery.records import EchoOutcome, IsWanted, Report
from scp_node.records import ObjectOutcome, Outgoing


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """A kind of destination.

    Parameters
    ----------
    send
        ``send(objects, destination, calling_ae_title=, report=, is_wanted=, associations=, is_more=)``: one attempt
        for all objects. Never raises for what the destination does; every object dealt with has an outcome, told to
        ``report`` as soon as it is known.
    echo
        ``echo(destination, calling_ae_title=)``: whether the destination would answer now.
    """

    send: Callable[..., list[ObjectOutcome]]
    echo: Callable[..., EchoOutcome]


SENDERS: dict[str, Sender] = {
    "dicom": Sender(send=dicom.send, echo=dicom.echo),
    "folder": Sender(send=folder.send, echo=folder.echo),
}


def _ignore(_outcome: ObjectOutcome) -> None:
    pass


def _always(_item: Outgoing) -> bool:
    return True


def _nothing() -> bool:
    return False


def send(
    objects: Sequence[Outgoing],
    destination: Destination,
    *,
    calling_ae_title: str,
    report: Report = _ignore,
    is_wanted: IsWanted = _always,
    associations: Associations | None = None,
    is_more: Callable[[], bool] = _nothing,
) -> list[ObjectOutcome]:
    """Make one attempt to send objects to a destination of any kind.

    Parameters
    ----------
    calling_ae_title
        Of this node, unless the destination has its own.
    report
        Told of each outcome as soon as it is known, so that a confirmed object is remembered even if the process dies
        with the next one.
    is_wanted
        Asked right before each object; one that is not wanted any more has no outcome.
    associations
        Those that stay open between attempts; None: none does.
    is_more
        Whether more waits for this destination; asked when all is sent.
    """
    return SENDERS[destination.kind].send(
        objects,
        destination,
        calling_ae_title=title(destination, calling_ae_title),
        report=report,
        is_wanted=is_wanted,
        associations=associations or Associations(),
        is_more=is_more,
    )


def echo(destination: Destination, calling_ae_title: str) -> EchoOutcome:
    """Ask a destination of any kind whether it would take objects now."""
    return SENDERS[destination.kind].echo(destination, calling_ae_title=title(destination, calling_ae_title))


def title(destination: Any, calling_ae_title: str) -> str:  # noqa: ANN401 - only some kinds have a title of their own
    """Return the title that this node calls a destination with."""
    own: str | None = getattr(destination, "calling_ae_title", None)
    return own or calling_ae_title

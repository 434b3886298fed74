"""What a record of the trace, or of what users did, is as a message of PS3.15 A.5.3; reads, and writes nothing."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from config.destinations import DicomDestination, FolderDestination
from config.settings import NodeSettings
from scp_node.audit.building import Node, Objects, Peer
from scp_node.audit.messages import Action, Message, Outcome
from scp_node.jobs import user_actions
from scp_node.jobs.patients import patient_id
from scp_node.jobs.tables import delivered_object, instance, result, trace
from scp_node.jobs.trace import Event
from scp_node.records import DeliveryState, Person, Verdict
from scp_node.spool.store import Spool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """One record of the trace, and the received object that it is about."""

    at: datetime
    detail: dict[str, Any]
    sop_instance_uid: str
    instance_id: int | None
    objects: Objects

    @property
    def user(self) -> Person | None:
        """Who asked for it; None: the node itself."""
        name = self.detail.get("by")
        return Person(name=str(name), address=str(self.detail.get("by_address", ""))) if name else None


class Building:
    """Makes a message of a record; None for one that PS3.15 has no message for, or that another one implies."""

    def __init__(self, settings: NodeSettings, spool: Spool) -> None:
        self._node = Node(ae_title=settings.receiver.ae_title)
        self._spool = spool
        self._names_patients = settings.audit.patient_ids
        self._destinations = {one.name: one for one in settings.destinations}
        self._by_event: dict[Event, Callable[[sa.Connection, _Record], Message | None]] = {
            Event.RECEIVED: self._received(Action.CREATE),
            # Received although it was there (PS3.15 A.5.3.7, R).
            Event.DUPLICATE: self._received(Action.READ, what="the same object again"),
            Event.OWN_RESULT: self._received(Action.READ, what="a result of this node that came back; dropped"),
            Event.CONFLICT: self._received(
                Action.CREATE, Outcome.MINOR_FAILURE, "another object under a known UID; set aside, not analysed"
            ),
            Event.ANALYSED: self._analysed,
            Event.NOT_ELIGIBLE: self._ended("not eligible", Outcome.SUCCESS),
            Event.GIVEN_UP: self._ended("given up", Outcome.MINOR_FAILURE),
            Event.DELIVERY_ENDED: self._delivery_ended,
            Event.RETRIED: self._accessed(Action.UPDATE, "taken up again by an operator"),
            Event.CANCELLED: self._accessed(Action.UPDATE, "given up by an operator"),
            Event.RESENT: self._accessed(Action.UPDATE, "results sent again by an operator"),
            Event.SUPERSEDED: self._accessed(Action.UPDATE, "results recalled: a new analysis was ordered"),
            Event.EXPORTED: self._exported,
            Event.REMOVED: self._removed,
        }

    def message(self, connection: sa.Connection, record: sa.Row[Any]) -> Message | None:
        """Return the message about a row of the trace."""
        build = self._by_event.get(Event(record.event))
        if build is None:
            return None
        detail = json.loads(record.detail)
        return build(
            connection,
            _Record(
                at=datetime.fromtimestamp(record.at, UTC),
                detail=detail,
                sop_instance_uid=record.sop_instance_uid,
                instance_id=record.instance_id,
                objects=self._objects(connection, record.sop_instance_uid, detail),
            ),
        )

    def user_message(self, connection: sa.Connection, row: sa.Row[Any]) -> Message | None:
        """Return the message about a user's action.

        None for one that changed nothing, and for one that changed an instance: the trace tells of that, with the
        user's name. What was refused stands nowhere else.
        """
        at = datetime.fromtimestamp(row.at, UTC)
        person = Person(name=row.user_name, address=row.address)
        refused = row.after if row.after.startswith(user_actions.REFUSED) else ""
        if row.action in (user_actions.LOG_IN, user_actions.LOG_OUT):
            return self._node.authentication(
                at,
                person,
                is_login=row.action == user_actions.LOG_IN,
                outcome=Outcome.MINOR_FAILURE if refused else Outcome.SUCCESS,
                description=refused,
            )
        what = f"{row.action.replace('_', ' ')}: {refused}"
        if refused.startswith(user_actions.REFUSED_BY_ROLE):
            return self._node.restricted(at, person, description=what)
        if refused:
            return self._node.access(
                at,
                self._objects(connection, row.subject, {}),
                action=Action.CREATE if row.action == user_actions.STORE else Action.UPDATE,
                what=what,
                outcome=Outcome.MINOR_FAILURE,
                user=person,
            )
        if row.action == user_actions.RESUME:
            return self._node.resumed(at, person, description=f"deliveries to {row.subject} are attempted again")
        return None

    def _objects(self, connection: sa.Connection, sop_instance_uid: str, detail: dict[str, Any]) -> Objects:
        """The received object: what its arrival left in the trace, for the record may outlive row and file."""
        if "study_instance_uid" not in detail:
            arrival = connection.execute(_ARRIVAL, {"uid": sop_instance_uid}).scalar_one_or_none()
            detail = json.loads(arrival) if arrival else {}
        sop_class_uid = detail.get("sop_class_uid")
        return Objects(
            study_instance_uid=detail.get("study_instance_uid", ""),
            instances=((sop_class_uid, (sop_instance_uid,)),) if sop_class_uid else (),
            patient_id=self._patient_id(connection, sop_instance_uid),
        )

    def _patient_id(self, connection: sa.Connection, sop_instance_uid: str) -> str:
        if not self._names_patients:
            return ""
        row = connection.execute(
            sa.select(instance.c.file, instance.c.transfer_syntax_uid).where(
                instance.c.sop_instance_uid == sop_instance_uid
            )
        ).one_or_none()
        return "" if row is None else patient_id(self._spool.path(row.file), row.transfer_syntax_uid)

    def _received(
        self, action: Action, outcome: Outcome = Outcome.SUCCESS, what: str = ""
    ) -> Callable[[sa.Connection, _Record], Message]:
        def build(_: sa.Connection, record: _Record) -> Message:
            peer = Peer(
                ae_title=record.detail.get("calling_ae_title", ""), address=record.detail.get("peer_address", "")
            )
            return self._node.transfer(
                record.at,
                record.objects,
                peer=peer,
                is_received=True,
                action=action,
                outcome=outcome,
                description=what,
                user=record.user,
            )

        return build

    def _analysed(self, _: sa.Connection, record: _Record) -> Message:
        models = [
            ("model", f"{one['model']} {one['version']} sha256={one['weights_sha256']} threshold={one['threshold']:g}")
            for one in record.detail.get("predictions", ())
        ]
        return self._node.access(record.at, record.objects, action=Action.READ, what="analysed", details=models)

    def _ended(self, what: str, outcome: Outcome) -> Callable[[sa.Connection, _Record], Message]:
        def build(_: sa.Connection, record: _Record) -> Message:
            reason = record.detail.get("reason") or "no reason"
            return self._node.access(
                record.at,
                record.objects,
                action=Action.READ,
                what=f"{what}: {reason}",
                outcome=outcome,
                user=record.user,
            )

        return build

    def _accessed(self, action: Action, what: str) -> Callable[[sa.Connection, _Record], Message]:
        def build(_: sa.Connection, record: _Record) -> Message:
            return self._node.access(record.at, record.objects, action=action, what=what, user=record.user)

        return build

    def _removed(self, _: sa.Connection, record: _Record) -> Message:
        what = f"removed: {record.detail.get('why', 'no reason')}"
        return self._node.access(record.at, record.objects, action=Action.DELETE, what=what, user=record.user)

    def _exported(self, _: sa.Connection, record: _Record) -> Message:
        to = str(record.detail.get("to") or "a file of the operator's")
        objects = record.objects
        if taken := record.detail.get("result"):
            objects = replace(objects, instances=((taken["sop_class_uid"], (taken["sop_instance_uid"],)),))
        return self._node.export(record.at, objects, to=to, user=record.user)

    def _delivery_ended(self, connection: sa.Connection, record: _Record) -> Message | None:
        name = record.detail.get("destination", "")
        state = DeliveryState(record.detail["state"])
        if state is DeliveryState.CANCELLED:
            # The operator's act has a message of its own.
            return None
        is_good = state is not DeliveryState.REFUSED
        objects = Objects(
            study_instance_uid=record.objects.study_instance_uid,
            instances=_sent(connection, record.instance_id, name),
            patient_id=record.objects.patient_id,
        )
        outcome = Outcome.SUCCESS if is_good else Outcome.SERIOUS_FAILURE
        description = "" if is_good else f"delivery to {name} was given up"
        match self._destinations.get(name):
            case FolderDestination() as folder:
                return self._node.export(
                    record.at, objects, to=str(folder.folder), outcome=outcome, description=description
                )
            case DicomDestination() as peer:
                to = Peer(ae_title=peer.ae_title, address=peer.host)
            case _:
                to = Peer(ae_title=name)
        return self._node.transfer(
            record.at, objects, peer=to, is_received=False, outcome=outcome, description=description
        )


def _sent(
    connection: sa.Connection, instance_id: int | None, destination: str
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """SOP Class UID -> SOP Instance UIDs of the results that a destination has confirmed."""
    rows: Sequence[Any] = connection.execute(_SENT, {"instance": instance_id, "name": destination}).all()
    return tuple(
        (sop_class_uid, tuple(row.sop_instance_uid for row in group))
        for sop_class_uid, group in groupby(rows, key=lambda row: str(row.sop_class_uid))
    )


# Built once: putting such a statement together costs more than the database's answer.
_ARRIVAL = (
    sa.select(trace.c.detail)
    .where(trace.c.sop_instance_uid == sa.bindparam("uid"), trace.c.event == Event.RECEIVED.value)
    .order_by(trace.c.id.desc())
    .limit(1)
)
_SENT = (
    sa.select(result.c.sop_class_uid, result.c.sop_instance_uid)
    .join(
        delivered_object,
        sa.and_(
            delivered_object.c.instance_id == result.c.instance_id,
            delivered_object.c.sop_instance_uid == result.c.sop_instance_uid,
        ),
    )
    .where(
        result.c.instance_id == sa.bindparam("instance"),
        delivered_object.c.destination == sa.bindparam("name"),
        delivered_object.c.verdict == Verdict.CONFIRMED.value,
    )
    .order_by(result.c.sop_class_uid, result.c.position)
)

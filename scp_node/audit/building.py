"""What happened, as audit messages of PS3.15 A.5.3: one function for each kind. Reads no file and no database."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from scp_node.audit.messages import (
    APPLICATION_ACTIVITY,
    APPLICATION_START,
    APPLICATION_STOP,
    DELIVERIES_RESUMED,
    EXPORT,
    INSTANCES_ACCESSED,
    INSTANCES_TRANSFERRED,
    LOGIN,
    LOGOUT,
    MEDIA_URI,
    NETWORK_CONFIGURATION,
    NODE_AUTHENTICATION,
    NODE_ID,
    PATIENT_NUMBER,
    RESTRICTED_FUNCTION,
    ROLE_APPLICATION,
    ROLE_DESTINATION,
    ROLE_DESTINATION_MEDIA,
    ROLE_LAUNCHER,
    ROLE_SOURCE,
    SECURITY_ALERT,
    SECURITY_CONFIGURATION,
    STUDY_INSTANCE_UID,
    USER_AUTHENTICATION,
    Action,
    Code,
    Message,
    Outcome,
    Participant,
    Subject,
)
from scp_node.records import Person
from scp_node.security.events import EventKind, SecurityEvent

WITHHELD = "withheld"
"""Instead of a Patient ID: the patient stands in the message, as the standard asks, and is not named."""
UNKNOWN = "unknown"
"""Instead of a Study Instance UID that the object does not have or that is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The other side of a transfer."""

    ae_title: str
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """SOP Instances of one study and patient.

    Parameters
    ----------
    study_instance_uid, patient_id
        Empty: not known, or not to be named.
    instances
        SOP Class UID -> SOP Instance UIDs.
    """

    study_instance_uid: str
    instances: tuple[tuple[str, tuple[str, ...]], ...]
    patient_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Node:
    """How this node appears in its own messages."""

    ae_title: str

    @cached_property
    def host(self) -> str:
        """Host name."""
        return socket.gethostname()

    def participant(self, *roles: Code, is_requestor: bool) -> Participant:
        """The process that this runs in."""
        return Participant(
            user_id=str(os.getpid()),
            ae_titles=(self.ae_title,),
            user_name="scp-node",
            is_requestor=is_requestor,
            roles=roles,
            address=self.host,
        )

    def person(self, person: Person, *roles: Code) -> Participant:
        """Somebody who asks this node for something."""
        return Participant(user_id=person.name, is_requestor=True, roles=roles, address=person.address or self.host)

    def activity(self, at: datetime, *, is_start: bool, user: str) -> Message:
        """The node starts or stops (PS3.15 A.5.3.1)."""
        launcher = self.person(Person(name=user), ROLE_LAUNCHER)
        return Message(
            event=APPLICATION_ACTIVITY,
            types=(APPLICATION_START if is_start else APPLICATION_STOP,),
            action=Action.EXECUTE,
            at=at,
            outcome=Outcome.SUCCESS,
            participants=(self.participant(ROLE_APPLICATION, is_requestor=False), launcher),
        )

    def alert(self, event: SecurityEvent) -> Message:
        """Somebody was turned away, or who may come in has changed (PS3.15 A.5.3.11)."""
        code, outcome = _ALERTS[event.kind]
        parts = [event.kind.value.replace("_", " ")]
        if event.reason:
            parts.append(event.reason)
        if event.subject:
            parts.append(f"certificate {event.subject}")
        participants = [self.participant(ROLE_APPLICATION, is_requestor=False)]
        if event.address or event.calling_ae_title:
            titles = (event.calling_ae_title,) if event.calling_ae_title else ()
            participants.append(
                Participant(
                    user_id=event.calling_ae_title or event.address,
                    ae_titles=titles,
                    is_requestor=True,
                    address=event.address,
                )
            )
        node = Subject(id=event.address or self.host, id_type=NODE_ID, kind=2, role=13, name="node")
        return Message(
            event=SECURITY_ALERT,
            types=(code,),
            action=Action.EXECUTE,
            at=event.occurred_at,
            outcome=outcome,
            description=": ".join(parts),
            participants=tuple(participants),
            subjects=(node,),
        )

    def authentication(
        self, at: datetime, person: Person, *, is_login: bool, outcome: Outcome = Outcome.SUCCESS, description: str = ""
    ) -> Message:
        """Somebody logged in or out, or tried to (PS3.15 A.5.3.12)."""
        return Message(
            event=USER_AUTHENTICATION,
            types=(LOGIN if is_login else LOGOUT,),
            action=Action.EXECUTE,
            at=at,
            outcome=outcome,
            description=description,
            participants=(self.person(person), self.participant(ROLE_APPLICATION, is_requestor=False)),
        )

    def restricted(self, at: datetime, person: Person, *, description: str) -> Message:
        """Somebody asked for what his role does not allow, and did not get it (PS3.15 A.5.3.11)."""
        node = Subject(id=self.host, id_type=NODE_ID, kind=2, role=13, name="node")
        return Message(
            event=SECURITY_ALERT,
            types=(RESTRICTED_FUNCTION,),
            action=Action.EXECUTE,
            at=at,
            outcome=Outcome.SERIOUS_FAILURE,
            description=description,
            participants=(self.participant(ROLE_APPLICATION, is_requestor=False), self.person(person)),
            subjects=(node,),
        )

    def resumed(self, at: datetime, person: Person, *, description: str) -> Message:
        """An operator had deliveries attempted that waited; an activity of a kind that PS3.15 does not name."""
        return Message(
            event=APPLICATION_ACTIVITY,
            types=(DELIVERIES_RESUMED,),
            action=Action.EXECUTE,
            at=at,
            outcome=Outcome.SUCCESS,
            description=description,
            participants=(self.participant(ROLE_APPLICATION, is_requestor=False), self.person(person)),
        )

    def transfer(
        self,
        at: datetime,
        objects: Objects,
        *,
        peer: Peer,
        is_received: bool,
        action: Action = Action.CREATE,
        outcome: Outcome = Outcome.SUCCESS,
        description: str = "",
        user: Person | None = None,
    ) -> Message:
        """Instances came in, or went out (PS3.15 A.5.3.7).

        Parameters
        ----------
        user
            Who sent them, where the peer is a program that somebody has logged in with.
        """
        other = Participant(
            user_id=peer.ae_title,
            ae_titles=(peer.ae_title,),
            is_requestor=is_received,
            roles=(ROLE_SOURCE if is_received else ROLE_DESTINATION,),
            address=peer.address,
        )
        own = self.participant(ROLE_DESTINATION if is_received else ROLE_SOURCE, is_requestor=not is_received)
        return Message(
            event=INSTANCES_TRANSFERRED,
            action=action,
            at=at,
            outcome=outcome,
            description=description,
            participants=(
                *((other, own) if is_received else (own, other)),
                *(() if user is None else (self.person(user),)),
            ),
            subjects=_subjects(objects),
        )

    def access(
        self,
        at: datetime,
        objects: Objects,
        *,
        action: Action,
        user: Person | None = None,
        what: str = "",
        outcome: Outcome = Outcome.SUCCESS,
        details: Sequence[tuple[str, str]] = (),
    ) -> Message:
        """Instances were read, changed or removed, by this node or by a person (PS3.15 A.5.3.6).

        Parameters
        ----------
        user
            The operator; None: the node itself.
        what
            In words.
        """
        participants = [self.participant(ROLE_APPLICATION, is_requestor=user is None)]
        if user is not None:
            participants.append(self.person(user))
        return Message(
            event=INSTANCES_ACCESSED,
            action=action,
            at=at,
            outcome=outcome,
            description=what,
            participants=tuple(participants),
            subjects=_subjects(objects, details),
        )

    def export(
        self,
        at: datetime,
        objects: Objects,
        *,
        to: str,
        user: Person | None = None,
        outcome: Outcome = Outcome.SUCCESS,
        description: str = "",
    ) -> Message:
        """Instances went to a folder or into somebody's hands, from where they may go anywhere (PS3.15 A.5.3.8)."""
        participants = [self.participant(ROLE_SOURCE, is_requestor=user is None)]
        if user is not None:
            participants.append(self.person(user))
        media = Participant(user_id=to, is_requestor=False, roles=(ROLE_DESTINATION_MEDIA,), media=MEDIA_URI)
        return Message(
            event=EXPORT,
            action=Action.READ,
            at=at,
            outcome=outcome,
            description=description,
            participants=(*participants, media),
            subjects=_subjects(objects),
        )


_ALERTS = {
    # An unknown or unwelcome peer is IHE ATNA's "Node Authentication failure".
    EventKind.ASSOCIATION_REJECTED: (NODE_AUTHENTICATION, Outcome.SERIOUS_FAILURE),
    EventKind.ASSOCIATION_ABORTED: (NODE_AUTHENTICATION, Outcome.MINOR_FAILURE),
    EventKind.LIMIT_REACHED: (NODE_AUTHENTICATION, Outcome.MINOR_FAILURE),
    EventKind.TLS_FAILED: (NODE_AUTHENTICATION, Outcome.SERIOUS_FAILURE),
    EventKind.CERTIFICATE_EXPIRES: (SECURITY_CONFIGURATION, Outcome.MINOR_FAILURE),
    EventKind.CREDENTIALS_RELOADED: (SECURITY_CONFIGURATION, Outcome.SUCCESS),
    EventKind.CREDENTIALS_REFUSED: (SECURITY_CONFIGURATION, Outcome.SERIOUS_FAILURE),
    EventKind.CALLERS_RELOADED: (NETWORK_CONFIGURATION, Outcome.SUCCESS),
}


def _subjects(objects: Objects, details: Sequence[tuple[str, str]] = ()) -> tuple[Subject, Subject]:
    study = Subject(
        id=objects.study_instance_uid or UNKNOWN,
        id_type=STUDY_INSTANCE_UID,
        kind=2,
        role=3,
        name="study",
        instances=objects.instances,
        details=tuple(details),
    )
    patient = Subject(id=objects.patient_id or WITHHELD, id_type=PATIENT_NUMBER, kind=1, role=1, name="patient")
    return study, patient

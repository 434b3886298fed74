"""What a destination's status means for a delivery: the only place of this package with status codes.

Docs/delivery.md says in a table, and why, what is retried by itself and what waits for a person.
"""

from enum import Enum, IntEnum

from scp_node.records import Verdict


class Status(IntEnum):
    """Status (0000,0900) values that the sender itself names."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    INVALID_ARGUMENT_VALUE = 0x0115


# First match wins; PS3.4 Table B.2-1 and PS3.7 Annex C.
_TABLE: tuple[tuple[int, int, Verdict, str], ...] = (
    (0x0000, 0x0000, Verdict.CONFIRMED, "success"),
    (0x0001, 0x0001, Verdict.CONFIRMED, "stored with a warning"),
    (0x0107, 0x0107, Verdict.CONFIRMED, "stored, attribute list error"),
    (0x0116, 0x0116, Verdict.CONFIRMED, "stored, attribute value out of range"),
    (0xB000, 0xB000, Verdict.CONFIRMED, "stored, data elements coerced"),
    (0xB006, 0xB006, Verdict.CONFIRMED, "stored, data elements discarded"),
    (0xB007, 0xB007, Verdict.CONFIRMED, "stored, though the data set does not match its SOP class"),
    (0xB000, 0xBFFF, Verdict.CONFIRMED, "stored with a warning"),
    # UIDs are made from what is in the object: who has this instance has this very object, from an attempt whose
    # answer was lost.
    (0x0111, 0x0111, Verdict.CONFIRMED, "duplicate SOP instance: it is there already"),
    # dcm4chee: "No Patient ID in received data set". The same object will never carry one.
    (0xA777, 0xA777, Verdict.PERMANENT, "the destination takes no object without Patient ID"),
    (0xA700, 0xA7FF, Verdict.TRANSIENT, "out of resources"),
    (0xA900, 0xA9FF, Verdict.PERMANENT, "data set does not match SOP class"),
    (0xC000, 0xCFFF, Verdict.PERMANENT, "cannot understand"),
    (0x0105, 0x0106, Verdict.PERMANENT, "no such attribute, or invalid value"),
    (0x0117, 0x0117, Verdict.PERMANENT, "invalid SOP instance"),
    (0x0119, 0x0119, Verdict.PERMANENT, "the instance is known under another SOP class"),
    (0x0211, 0x0212, Verdict.PERMANENT, "unrecognised operation or mistyped argument"),
    (0x0110, 0x0110, Verdict.TRANSIENT, "processing failure"),
    (0x0210, 0x0210, Verdict.TRANSIENT, "duplicate invocation"),
    (0x0213, 0x0213, Verdict.TRANSIENT, "resource limitation"),
    # An authorisation is given at the destination, to an object that stays the same: once it is, a retry succeeds.
    (0x0124, 0x0124, Verdict.TRANSIENT, "not authorised"),
    # The same as no presentation context, from peers that accept every context and look afterwards. 0xA8xx: older
    # editions of the standard.
    (0x0122, 0x0122, Verdict.NOT_TAKEN, "SOP class not supported"),
    (0xA800, 0xA8FF, Verdict.NOT_TAKEN, "SOP class not supported"),
)


def verdict_on(status: int) -> tuple[Verdict, str]:
    """Return what the status of a C-STORE means and its name in words.

    An unknown status is worth another attempt: patience bounds how many there are.
    """
    for first, last, verdict, words in _TABLE:
        if first <= status <= last:
            return verdict, words
    return Verdict.TRANSIENT, "unknown status"


class Remedy(Enum):
    """What is to be done about an object that a Storage Commitment report names as failed."""

    SEND_AGAIN = "send again"
    """The peer does not have it."""
    ASK_AGAIN = "ask again"
    """The peer could not tell or not take responsibility now."""
    NONE = "none"
    """The peer keeps objects of this class and never commits itself to them."""


# Failure Reason (0008,1197), PS3.3 C.14.1.1.
_REMEDIES: dict[int, tuple[Remedy, str]] = {
    0x0110: (Remedy.ASK_AGAIN, "processing failure"),
    0x0112: (Remedy.SEND_AGAIN, "no such object instance"),
    0x0119: (Remedy.SEND_AGAIN, "the instance is known under another SOP class"),
    0x0122: (Remedy.NONE, "SOP class not supported for commitment"),
    0x0131: (Remedy.ASK_AGAIN, "duplicate transaction UID"),
    0x0213: (Remedy.ASK_AGAIN, "resource limitation"),
}


def remedy_for(reason: int) -> tuple[Remedy, str]:
    """Return what a Failure Reason asks for and its name in words.

    Of a reason that the standard does not know the worst is assumed: that the object is not there.
    """
    return _REMEDIES.get(reason, (Remedy.SEND_AGAIN, "unknown reason"))

"""What a destination's C-STORE status means for a delivery: the only place of this package with status codes."""

from enum import IntEnum

from scp_node.records import Verdict


class Status(IntEnum):
    """Status (0000,0900) values that the sender itself names."""

    SUCCESS = 0x0000
    SOP_CLASS_NOT_SUPPORTED = 0x0122


# First match wins; PS3.4 Table B.2-1 and PS3.7 Annex C.
_TABLE: tuple[tuple[int, int, Verdict, str], ...] = (
    (0x0000, 0x0000, Verdict.CONFIRMED, "success"),
    (0x0107, 0x0107, Verdict.CONFIRMED, "stored, attribute list error"),
    (0x0116, 0x0116, Verdict.CONFIRMED, "stored, attribute value out of range"),
    (0xB000, 0xBFFF, Verdict.CONFIRMED, "stored with a warning: coerced or discarded elements"),
    # UIDs are made from what is in the object: who has this instance has this very object, from an attempt whose
    # answer was lost.
    (0x0111, 0x0111, Verdict.CONFIRMED, "duplicate SOP instance: it is there already"),
    # dcm4chee: "No Patient ID in received data set". The same object will never carry one.
    (0xA777, 0xA777, Verdict.PERMANENT, "the destination takes no object without Patient ID"),
    (0xA700, 0xA7FF, Verdict.TRANSIENT, "out of resources"),
    (0xA800, 0xA8FF, Verdict.PERMANENT, "SOP class not supported"),
    (0xA900, 0xA9FF, Verdict.PERMANENT, "data set does not match SOP class"),
    (0xC000, 0xCFFF, Verdict.PERMANENT, "cannot understand"),
    (0x0105, 0x0106, Verdict.PERMANENT, "no such attribute, or invalid value"),
    (0x0110, 0x0110, Verdict.TRANSIENT, "processing failure"),
    (0x0117, 0x0117, Verdict.PERMANENT, "invalid SOP instance"),
    (0x0122, 0x0122, Verdict.PERMANENT, "SOP class not supported"),
    (0x0124, 0x0124, Verdict.PERMANENT, "not authorised"),
    (0x0210, 0x0210, Verdict.TRANSIENT, "duplicate invocation"),
    (0x0211, 0x0212, Verdict.PERMANENT, "unrecognised operation or mistyped argument"),
    (0x0213, 0x0213, Verdict.TRANSIENT, "resource limitation"),
)


def verdict_on(status: int) -> tuple[Verdict, str]:
    """Return what a status means and its name in words.

    An unknown status is worth another attempt: patience bounds how many there are.
    """
    for first, last, verdict, words in _TABLE:
        if first <= status <= last:
            return verdict, words
    return Verdict.TRANSIENT, "unknown status"

"""Command Sets as bytes, held against what a library reads in them and would write."""

from io import BytesIO

import pytest
from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom.dsutils import decode, encode

from scp_node.command_sets import command_set, short, text, uid


@pytest.mark.parametrize("instance", ["1.2.34", "1.2.345", "2.25." + "9" * 39])
@pytest.mark.parametrize("comment", ["even", "odd", ""])
@pytest.mark.parametrize("status", [0, 1, 0xA700, 0xFFFF])
def test_a_command_set_is_the_one_that_a_library_writes(instance, comment, status):
    elements = Dataset()
    elements.CommandField, elements.Status, elements.ErrorComment = 0x8001, status, comment
    elements.AffectedSOPInstanceUID = UID(instance)
    elements.CommandGroupLength = 0
    elements.CommandGroupLength = len(encode(elements, True, True)) - 12
    ours = command_set(
        short(0x00000100, 0x8001) + short(0x00000900, status) + text(0x00000902, comment) + uid(0x00001000, instance)
    )
    assert ours == encode(elements, True, True)
    assert decode(BytesIO(ours), True, True) == elements


@pytest.mark.parametrize("write", [uid, text])
def test_what_is_not_ascii_is_not_written(write):
    with pytest.raises(UnicodeEncodeError):
        write(0x00000902, "\N{LATIN SMALL LETTER E WITH ACUTE}")

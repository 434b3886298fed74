"""What receiving costs beyond the bytes themselves: calls for each megabyte and each object, memory, synchronisations.

A call is one Python or C function that Python code calls, counted in all threads of the receiver.
"""

import contextlib
import itertools
import os
import threading
import tracemalloc

import pytest
import raw_dicom
from pydicom.uid import ImplicitVRLittleEndian

from config.receiver import ReceiverSettings
from scp_node.records import Intake
from scp_node.scp.part10 import Implementation
from scp_node.scp.server import Receiver
from scp_node.scp.upper_layer import UpperLayer

_FRAGMENT = 131072 - 6
_MEGABYTE = 1 << 20
_uids = itertools.count(1)


@pytest.fixture
def receiver(spool):
    def accept(instance):
        spool.adopt(instance.file, instance.sha256)
        return Intake.FILED

    receiver = Receiver(
        ReceiverSettings(ae_title="NODE", acse_timeout_s=30),
        spool,
        accept,
        (ImplicitVRLittleEndian,),
        implementation=Implementation(class_uid="2.25.1", version_name="NODE"),
        port=0,
    )
    receiver.start()
    yield receiver
    receiver.stop(timeout_s=5)


def message(megabytes):
    uid = f"1.2.3.{next(_uids)}"
    content = raw_dicom.data_set(uid, megabytes * _MEGABYTE)
    places = range(0, len(content), _FRAGMENT)
    parts = [raw_dicom.data(content[place : place + _FRAGMENT], 2 * (place == places[-1])) for place in places]
    return raw_dicom.data(raw_dicom.store_command(uid), 3) + b"".join(parts)


def store(receiver, megabytes, objects=1):
    """Send objects over one association; returns when it has ended."""
    with raw_dicom.Client(receiver.port, associated=True) as client:
        for _ in range(objects):
            client.send(message(megabytes))
            assert client.status() == 0
        client.send(raw_dicom.RELEASE_RQ)
        client.receive()
    while receiver.connections:
        threading.Event().wait(0.001)


@contextlib.contextmanager
def counting():
    """Count calls in threads that start from now on."""
    counts = {"call": 0, "c_call": 0}

    def profile(_frame, event, _argument):
        if event in counts:
            counts[event] += 1

    threading.setprofile(profile)
    try:
        yield counts
    finally:
        threading.setprofile(None)


def calls(receiver, megabytes, objects=1):
    with counting() as counts:
        store(receiver, megabytes, objects)
    return sum(counts.values())


def test_a_megabyte_costs_few_calls(receiver, within):
    """Eight PDUs of 128 KiB: read, taken apart, hashed, written.

    One PDU after another it was 452; with a turn through the library's state machine for each, 1087.
    """
    within(lambda: (calls(receiver, 24) - calls(receiver, 8)) / 16, measured=165)


def test_the_guard_of_calls_bites(receiver, within, monkeypatch):
    """The fault it is for: each PDU takes a turn through the library's state machine."""
    monkeypatch.setattr(UpperLayer, "_is_undisturbed", lambda _self: False)
    with pytest.raises(pytest.fail.Exception, match="is allowed"):
        within(lambda: (calls(receiver, 4) - calls(receiver, 2)) / 2, measured=165)


def test_an_object_costs_few_calls(receiver, within):
    """From its command to its answer, without the bytes and without the database.

    With the library's way of encoding the answer it was 3890.
    """
    within(lambda: (calls(receiver, 0, 40) - calls(receiver, 0, 20)) / 20, measured=1190)


def test_an_association_in_flight_needs_no_memory_for_its_object(receiver, within):
    """The buffers of one connection: an object of 16 MB is never in memory."""
    store(receiver, 1)  # what is made once

    def peak():
        content = message(16)
        with raw_dicom.Client(receiver.port, associated=True) as client:
            tracemalloc.start()
            client.send(content)
            assert client.status() == 0
            found = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return found

    within(peak, measured=54_000, headroom=2)


def test_an_object_is_synchronised_twice(spool, monkeypatch):
    """The file, and the folder that names it; the first of a folder also makes it durable."""
    synchronised = []
    monkeypatch.setattr(os, "fsync", synchronised.append)
    for number in range(3):
        file = spool.open_incoming()
        file.write(b"%d" % number)
        file.close()
        synchronised.clear()
        spool.adopt(file.path, "ab" * 31 + f"{number:02x}")
    assert len(synchronised) == 2

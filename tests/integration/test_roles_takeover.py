"""Several receivers and workers on one PostgreSQL: killed, paused, or without their database, they lose nothing."""

import os
import signal
import time
from dataclasses import replace

import pytest

from scp_node.records import InstanceState
from tests.faults import radiographs
from tests.faults.account import Balance, Kill, balance
from tests.faults.orthanc import Orthanc, is_installed
from tests.faults.postgres import binaries
from tests.faults.processes import wait_until
from tests.faults.records import read
from tests.faults.site import LEASE_TTL_S, Site, haproxy

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    pytest.mark.skipif(binaries() is None, reason="PostgreSQL is not installed (apt-get install postgresql)"),
]

LIMIT_S = 300


def _send(site, folder, count, *, seed, pause_s=0.0):
    expected = radiographs.write(folder / "files", count, seed=seed)
    sender = site.sender(folder / "files", associations=4, pause_s=pause_s)
    sender.start()
    return expected, sender


def _balance(site, expected, events=()) -> Balance:
    results, confirmed = site.results()
    return balance(
        expected,
        answers=read(site.record("sender")),
        # What has no record of its own, Orthanc, is asked directly.
        instances=[
            replace(one, deliveries=tuple(d for d in one.deliveries if d.destination in site.destinations))
            for one in site.instances()
        ],
        results=results,
        confirmed=confirmed,
        stored={name: read(site.record(name)) for name in site.destinations},
        # A slow machine can make a worker look dead: see `Installation.take_overs`.
        kills=[*events, *site.take_overs()],
    )


def _states(site):
    return [record.state for record in site.instances()]


@pytest.fixture
def site(tmp_path, random_checkpoints, request):
    options = {"destinations": ("first",), **getattr(request, "param", {})}
    made = Site(tmp_path, checkpoints=random_checkpoints, **options)
    try:
        yield made
    finally:
        made.stop()


@pytest.mark.skipif(haproxy() is None, reason="HAProxy is not installed (apt-get install haproxy)")
@pytest.mark.skipif(not is_installed(), reason="Orthanc is not installed (apt-get install orthanc)")
@pytest.mark.parametrize(
    "site",
    [{"receivers": 2, "workers": 2, "is_balanced": True, "destinations": ("first", "orthanc")}],
    indirect=True,
)
def test_a_worker_and_a_receiver_killed_behind_a_balancer_lose_nothing(site, tmp_path, free_port, request):
    """What ``deploy/`` describes, as processes of this machine."""
    (port,) = (destination.port for destination in site.settings.destinations if destination.name == "orthanc")
    orthanc = Orthanc(tmp_path, dicom_port=port, http_port=free_port(), node_port=site.port)
    request.addfinalizer(orthanc.stop)
    del site.destinations["orthanc"]
    site.start()
    expected, sender = _send(site, tmp_path, 40, seed=1, pause_s=0.2)
    wait_until(lambda: InstanceState.ANALYSING in _states(site), LIMIT_S, "an analysis")
    kills = []
    # The one that has work in hand.
    wait_until(lambda: site.workers[0].pid in site.owners(), LIMIT_S, "a job of the first worker")
    site.workers[0].kill()
    kills.append(Kill(at=time.time(), victim="serve"))
    wait_until(lambda: len(site.instances()) >= 10, LIMIT_S, "ten instances")
    site.receivers[1].kill()
    assert sender.wait(LIMIT_S) == 0
    assert site.wait_final(len(expected), LIMIT_S), _states(site)
    drawn = _balance(site, expected, kills)
    assert drawn.holds, drawn.lines()
    # Of alternatives a destination gets one, so both have the same objects.
    delivered = {row["uid"] for row in read(site.record("first"))}
    assert {orthanc.get(f"/instances/{i}/simplified-tags")["SOPInstanceUID"] for i in orthanc.get("/instances")} == (
        delivered
    )
    # The survivors are the same processes as at the beginning.
    assert [program.starts for program in site.programs] == [1, 1, 1, 1]
    assert site.workers[1].is_alive
    assert site.receivers[0].is_alive


def test_a_paused_worker_is_replaced_and_does_nothing_twice_when_it_wakes(site, tmp_path):
    site.start()
    first, second = site.workers
    expected, sender = _send(site, tmp_path, 12, seed=2)
    wait_until(lambda: first.pid in site.owners(), LIMIT_S, "a job of the first worker")
    os.kill(first.pid, signal.SIGSTOP)
    paused = Kill(at=time.time(), victim="serve")
    try:
        held = site.owners().get(first.pid, 0)
        assert sender.wait(LIMIT_S) == 0
        assert site.wait_final(len(expected), LIMIT_S), (_states(site), site.owners())
        if held:
            assert '"event": "taking over jobs of dead workers"' in second.log.read_text()
    finally:
        os.kill(first.pid, signal.SIGCONT)
    # It goes on as a worker like any other: the next instances find it too.
    os.kill(second.pid, signal.SIGSTOP)
    try:
        more = radiographs.write(tmp_path / "more", 4, seed=3)
        again = site.sender(tmp_path / "more", associations=1)
        again.start()
        assert again.wait(LIMIT_S) == 0
        assert site.wait_final(len(expected | more), LIMIT_S), (_states(site), site.owners())
    finally:
        os.kill(second.pid, signal.SIGCONT)
    drawn = _balance(site, expected | more, [paused])
    assert drawn.holds, drawn.lines()
    # Sent twice: at most what was on its way in that moment, two associations at a time.
    assert len(drawn.duplicates_explained) <= 2 * max(1, len(site.take_overs())), drawn.lines()
    assert first.terminate() == 0
    assert second.terminate() == 0


@pytest.mark.parametrize("site", [{"receivers": 1, "workers": 1}], indirect=True)
def test_without_its_database_a_site_refuses_and_afterwards_goes_on_by_itself(site, tmp_path):
    site.start()
    early, sender = _send(site, tmp_path / "early", 2, seed=6)
    wait_until(lambda: InstanceState.DELIVERED in _states(site), LIMIT_S, "the first result")
    assert sender.wait(LIMIT_S) == 0
    before = len(read(site.record("sender")))
    site.stop_database()
    # Objects arrive all the while.
    late, sender = _send(site, tmp_path / "late", 14, seed=4, pause_s=0.2)
    expected = early | late
    wait_until(lambda: len(read(site.record("sender"))) >= before + 8, LIMIT_S, "eight more answers")
    began = time.monotonic()
    while time.monotonic() - began < 2 * LEASE_TTL_S:  # longer than the lease, which nobody could renew
        assert all(program.is_alive for program in site.programs)
        time.sleep(0.5)
    refused = [answer["status"] for answer in read(site.record("sender"))[before:]]
    assert set(refused) == {0xA700}
    # What a destination answered while the database was away could not be written down.
    away = [Kill(at=time.time(), victim="postgresql")]
    site.cluster.start()
    assert sender.wait(LIMIT_S) == 0
    assert site.wait_final(len(expected), LIMIT_S), (_states(site), site.owners())
    drawn = _balance(site, expected, away)
    assert drawn.holds, drawn.lines()
    assert [program.starts for program in site.programs] == [1, 1]
    # Without a worker the receiver goes on filing; the next worker finds all of it.
    assert site.workers[0].terminate() == 0
    more = radiographs.write(tmp_path / "more", 3, seed=5)
    again = site.sender(tmp_path / "more", associations=1)
    again.start()
    assert again.wait(LIMIT_S) == 0
    assert _states(site)[-3:] == [InstanceState.RECEIVED] * 3
    site.workers[0].start()
    assert site.wait_final(len(expected | more), LIMIT_S), _states(site)
    drawn = _balance(site, expected | more, away)
    assert drawn.holds, drawn.lines()
    assert site.receivers[0].terminate() == 0

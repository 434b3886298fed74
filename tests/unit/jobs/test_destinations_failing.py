"""One worker, a dozen destinations on real sockets: each fails in its own way and delays nobody else.

The durable engine runs the jobs by itself here; only the analysis, which has no part in this, is left out.
"""

import itertools
import socket
import threading
import time
from collections import Counter

import pytest
import sqlalchemy as sa
from pydicom.uid import BasicTextSRStorage, SecondaryCaptureImageStorage

from config.destinations import DeliverySettings, DicomDestination
from scp_node.demo.pacs import StandInPacs
from scp_node.jobs import workflows
from scp_node.jobs.breaker import BreakerState
from scp_node.jobs.health import health
from scp_node.jobs.probing import Probing
from scp_node.jobs.tables import delivered_object, delivery
from scp_node.records import DeliveryState, Verdict

LIMIT_S = 240
"""Nothing here is timed: a dozen peers take their time on a busy machine."""
INSTANCES = 2
SILENT = ("black-hole", "full")
OBJECTS = (SecondaryCaptureImageStorage, SecondaryCaptureImageStorage, BasicTextSRStorage)


class Silence:
    """Accepts connections and says nothing; with ``is_full`` it does not even accept, and SYNs go unanswered."""

    def __init__(self, *, is_full):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port = self._listener.getsockname()[1]
        self._queue = []
        self._stop = threading.Event()
        self._thread = None
        if is_full:
            # The system takes a connection or two more than it was told; one of these gets no answer any more.
            for _ in range(4):
                caller = socket.socket()
                caller.setblocking(False)
                caller.connect_ex(("127.0.0.1", self.port))
                self._queue.append(caller)
        else:
            self._listener.settimeout(0.1)
            self._thread = threading.Thread(target=self._accept)
            self._thread.start()

    def _accept(self):
        while not self._stop.is_set():
            try:
                self._queue.append(self._listener.accept()[0])
            except TimeoutError:
                continue

    def close(self):
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        for connection in self._queue:
            connection.close()
        self._listener.close()


class Town:
    """The destinations, by name, and what each of them does."""

    def __init__(self, folder, free_port):
        self.folder = folder
        self.mended = threading.Event()
        turn = itertools.count()

        def until_mended(status):
            # The same for all objects of an association, which has a thread of its own: one that takes the second
            # object after it refused the first has taken what it takes.
            association = threading.local()

            def answer(_uid):
                if not hasattr(association, "status"):
                    association.status = 0x0000 if self.mended.is_set() else status
                return association.status

            return answer

        def slowly(_uid):
            time.sleep(0.3)
            return 0x0000

        self.black_hole, self.full = Silence(is_full=False), Silence(is_full=True)
        self.late_port = free_port()
        self.pacs = {
            "healthy": self._pacs("healthy"),
            "slow": self._pacs("slow", answer=slowly),
            "a700": self._pacs("a700", answer=until_mended(0xA700)),
            "a900": self._pacs("a900", answer=lambda _uid: 0xA900),
            "c000": self._pacs("c000", answer=lambda _uid: 0xC000),
            "x0122": self._pacs("x0122", answer=until_mended(0x0122)),
            "x0124": self._pacs("x0124", answer=until_mended(0x0124)),
            "b000": self._pacs("b000", answer=lambda _uid: 0xB000),
            "every-second": self._pacs("every-second", answer=lambda _uid: 0xA700 if next(turn) % 2 else 0x0000),
            "unknown-title": self._pacs("unknown-title"),
            "pictures": self._pacs("pictures", sop_classes=[SecondaryCaptureImageStorage]),
        }
        self.pacs["unknown-title"].ae.require_calling_aet = ["SOMEBODY_ELSE"]
        ports = {name: pacs.port for name, pacs in self.pacs.items()}
        ports |= {"refused": self.late_port, "black-hole": self.black_hole.port, "full": self.full.port}
        self.destinations = tuple(
            # Who answers at all is given time: a busy machine must not look like a silent peer.
            DicomDestination(
                name=name, ae_title="PACS", host="127.0.0.1", port=port, timeout_s=2 if name in SILENT else 60
            )
            for name, port in ports.items()
        )

    def _pacs(self, name, **options):
        pacs = StandInPacs(self.folder / name, **options)
        pacs.start()
        return pacs

    def mend(self):
        """Everybody who failed for reasons that somebody can mend works from now on."""
        self.mended.set()
        self.pacs["unknown-title"].ae.require_calling_aet = []
        self.pacs["refused"] = StandInPacs(self.folder / "refused", port=self.late_port)
        self.pacs["refused"].start()

    def close(self):
        for pacs in self.pacs.values():
            pacs.stop()
        self.black_hole.close()
        self.full.close()


@pytest.fixture
def town(tmp_path, free_port):
    made = Town(tmp_path, free_port)
    yield made
    made.close()


class NoAnalysis:
    """The results are there already."""

    def run(self, instance_id, job_id):
        return "stale"


class Worker:
    """What a worker runs of deliveries: the durable engine, the deliver jobs, and the eye on who is down."""

    def __init__(self, results, destinations):
        results.destinations = destinations
        # What is put off waits for an hour: whoever goes on within minutes of being mended was resumed.
        results.settings = DeliverySettings(
            first_delay_s=1, maximum_delay_s=3600, failures_before_pause=2, first_probe_s=0.5, maximum_probe_s=1.0
        )
        self.engine = results.engine
        # The clock of the machine, as the durable engine's.
        self.probing = Probing(results.engine, results.jobs, destinations, results.settings, calling_ae_title="NODE")
        results.clock = time.time
        workflows.launch(
            results.engine,
            executor_id="worker",
            slots=1,
            destinations=destinations,
            analysing=NoAnalysis(),
            delivering=results.work(),
        )
        self.probing.start()

    def stop(self):
        self.probing.stop()
        workflows.end_stop(workflows.begin_stop(30))

    def deliveries(self):
        with self.engine.connect() as connection:
            rows = connection.execute(sa.select(delivery).order_by(delivery.c.instance_id)).all()
        found = {}
        for row in rows:
            found.setdefault(row.destination, []).append(row)
        return found

    def health(self):
        with self.engine.connect() as connection:
            return {one.name: one for one in health(connection, [])} | {
                one.name: one for one in health(connection, list(self.deliveries()))
            }

    def wait(self, what, condition):
        deadline = time.monotonic() + LIMIT_S
        while not condition(found := self.deliveries()):
            assert time.monotonic() < deadline, (
                f"waited in vain for {what}",
                {name: [(d.state, d.attempts, d.last_error) for d in those] for name, those in found.items()},
            )
            time.sleep(0.2)
        return found


def _are(found, name, state):
    return all(row.state == state for row in found[name])


@pytest.mark.timeout(900)
def test_each_failure_keeps_to_its_own_deliveries_and_all_goes_on_when_it_is_mended(town, results):
    by_itself = {
        "healthy": DeliveryState.DELIVERED,
        "slow": DeliveryState.DELIVERED,
        "b000": DeliveryState.DELIVERED,
        "pictures": DeliveryState.DELIVERED,
        "a900": DeliveryState.REFUSED,
        "c000": DeliveryState.REFUSED,
    }
    mendable = ("refused", "a700", "x0122", "x0124", "unknown-title")
    names = [one.name for one in town.destinations]
    for number in range(1, INSTANCES + 1):
        results.add(number, *names, sop_classes=OBJECTS)
    worker = Worker(results, town.destinations)
    try:
        found = worker.wait(
            "those that end by themselves",
            lambda found: all(_are(found, name, state) for name, state in by_itself.items()),
        )
        assert all(row.attempts == 1 for name in by_itself for row in found[name])
        worker.wait(
            "every other destination to be known as down",
            lambda _found: all(worker.health()[name].state is not BreakerState.CLOSED for name in mendable + SILENT),
        )
        health = worker.health()
        assert {health[name].state for name in by_itself} == {BreakerState.CLOSED}
        assert all(health[name].waiting == INSTANCES for name in mendable + SILENT)
        for name, words in (
            ("refused", "connection refused"),
            ("black-hole", "not answered within"),
            ("full", "no answer to connecting"),
            ("unknown-title", "Calling AE title not recognised"),
            ("a700", "0xA700: out of resources"),
            ("x0122", "0x0122: SOP class not supported"),
            ("x0124", "0x0124: not authorised"),
        ):
            assert words in health[name].last_error, name

        town.mend()
        found = worker.wait(
            "those that were mended",
            lambda found: all(_are(found, name, DeliveryState.DELIVERED) for name in (*mendable, "every-second")),
        )
        assert all(_are(found, name, DeliveryState.WAITING) for name in SILENT)
    finally:
        worker.stop()

    # What is there is there once, and everything that was confirmed is there: nothing was sent twice.
    for name, pacs in town.pacs.items():
        with worker.engine.connect() as connection:
            confirmed = connection.execute(
                sa.select(delivered_object.c.sop_instance_uid).where(
                    delivered_object.c.destination == name, delivered_object.c.verdict == Verdict.CONFIRMED.value
                )
            ).scalars()
            assert Counter(item.sop_instance_uid for item in pacs.objects) == Counter(confirmed), name
    for name in ("healthy", "slow", "b000", "every-second", *mendable):
        assert len(town.pacs[name].objects) == INSTANCES * len(OBJECTS), name
    assert {item.sop_class_uid for item in town.pacs["pictures"].objects} == {SecondaryCaptureImageStorage}
    assert "accepts no presentation context" in found["pictures"][0].last_error

"""Metrics of the whole node for Prometheus, read from the database: right for any number of processes.

Labels hold names of the configuration, states and reasons; never a UID, an AE title or anything of a patient.
"""

import json
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version

import sqlalchemy as sa
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from config.settings import NodeSettings
from scp_node.errors import DatabaseError
from scp_node.jobs import health, refusals, statistics
from scp_node.jobs.breaker import BreakerState
from scp_node.jobs.readiness import readiness
from scp_node.jobs.tables import delivery, instance, trace
from scp_node.jobs.trace import Event
from scp_node.records import InstanceState
from scp_node.spool.store import Spool

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SETTLED_S = 5.0
"""Records of the trace are counted when they are this old: a transaction with a lower number may commit later."""
_AT_ONCE = 5000
_ANALYSIS_S = (0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120)
_TURNAROUND_S = (1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 900, 3600, 86400)


class _Histogram:
    """Counts values by upper limits."""

    def __init__(self, limits: Sequence[float]) -> None:
        self._limits = limits
        self._counts = [0] * (len(limits) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._limits, value)] += 1
        self._sum += value

    def family(self, name: str, documentation: str) -> HistogramMetricFamily:
        total, buckets = 0, []
        for limit, count in zip((*(f"{one:g}" for one in self._limits), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((limit, float(total)))
        return HistogramMetricFamily(name, documentation, buckets=buckets, sum_value=self._sum)


class NodeCollector(Collector):
    """Reads everything when it is asked.

    Counters go over the trace, which only ever grows: whole at the first reading, what is new at each further one.
    Histograms begin with this process, as Prometheus expects of any restart.
    """

    def __init__(self, settings: NodeSettings, engine: sa.Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._lock = threading.Lock()
        self._last: int | None = None
        self._events: Counter[str] = Counter()
        self._verdicts: Counter[tuple[str, str]] = Counter()
        self._analysis = _Histogram(_ANALYSIS_S)
        self._turnaround = _Histogram(_TURNAROUND_S)

    def describe(self) -> Iterable[Metric]:
        """Nothing: the database is not read before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read and yield everything; without a database, that and the disk."""
        information = GaugeMetricFamily("scp_node_info", "Version of the program.", labels=["version"])
        information.add_metric([version("scp-node")], 1)
        yield information
        checks = GaugeMetricFamily("scp_node_ready", "1 where a check of /health/ready is well.", labels=["check"])
        found = readiness(self._engine, self._settings)
        for check in found:
            checks.add_metric([check.name], float(check.is_ok))
        yield checks
        yield from self._disk()
        if next(check for check in found if check.name == "database").is_ok:
            try:
                with self._engine.connect() as connection:
                    yield from self._database(connection)
            except (sa.exc.SQLAlchemyError, DatabaseError):
                return

    def _disk(self) -> Iterator[Metric]:
        try:
            free = Spool(self._settings.spool).free_bytes()
        except OSError:
            return
        yield GaugeMetricFamily("scp_node_disk_free_bytes", "Free space where the spool lies.", value=free)
        yield GaugeMetricFamily(
            "scp_node_disk_minimum_free_bytes",
            "Below this much, C-STORE is refused.",
            value=self._settings.spool.minimum_free_bytes,
        )

    def _database(self, connection: sa.Connection) -> Iterator[Metric]:
        waiting = statistics.backlog(connection)
        instances = GaugeMetricFamily("scp_node_instances", "Instances that are kept, by state.", labels=["state"])
        for state, count in waiting.instances.items():
            instances.add_metric([state.value], count)
        yield instances
        unjudged = GaugeMetricFamily(
            "scp_node_not_judged", "Kept instances without results, by reason.", labels=["state", "reason"]
        )
        for (state, reason), count in statistics.reasons(connection).items():
            unjudged.add_metric([state.value, reason], count)
        yield unjudged
        refused = CounterMetricFamily(
            "scp_node_refused",
            "Objects (c_store: status of the answer), associations and connections that were refused, ever.",
            labels=["what", "reason"],
        )
        for (what, why), count in sorted(refusals.counts(connection).items()):
            refused.add_metric([what, why], count)
        yield refused
        yield GaugeMetricFamily(
            "scp_node_oldest_waiting_seconds",
            "How long the instance that waits longest for its analysis has waited; 0 when none waits.",
            value=waiting.oldest_s or 0.0,
        )
        deliveries = GaugeMetricFamily(
            "scp_node_deliveries", "Deliveries of kept instances.", labels=["destination", "state"]
        )
        for (destination, delivery_state), count in waiting.deliveries.items():
            deliveries.add_metric([destination, delivery_state], count)
        yield deliveries
        yield from self._destinations(connection)
        yield from self._history(connection)

    def _destinations(self, connection: sa.Connection) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "scp_node_destination_up", "1 while deliveries to it are attempted.", labels=["destination"]
        )
        backlog = GaugeMetricFamily(
            "scp_node_destination_waiting", "Deliveries that are not final.", labels=["destination"]
        )
        oldest = GaugeMetricFamily(
            "scp_node_destination_oldest_seconds", "How long the oldest of these has waited.", labels=["destination"]
        )
        now = time.time()
        for one in health.health(connection, [each.name for each in self._settings.destinations]):
            up.add_metric([one.name], float(one.state is BreakerState.CLOSED))
            backlog.add_metric([one.name], one.waiting)
            age = 0.0 if one.oldest_waiting_at is None else max(0.0, now - one.oldest_waiting_at.timestamp())
            oldest.add_metric([one.name], age)
        yield from (up, backlog, oldest)

    def _history(self, connection: sa.Connection) -> Iterator[Metric]:
        with self._lock:
            self._read_trace(connection)
            events = CounterMetricFamily("scp_node_events", "What happened, ever; see the trace.", labels=["event"])
            for event in Event:
                events.add_metric([event.value], self._events[event.value])
            verdicts = CounterMetricFamily(
                "scp_node_predictions", "Predictions since this process began.", labels=["model", "verdict"]
            )
            for (model, verdict), count in sorted(self._verdicts.items()):
                verdicts.add_metric([model, verdict], count)
            yield from (events, verdicts)
            yield self._analysis.family("scp_node_analysis_seconds", "Reading to last map, since this process began.")
            yield self._turnaround.family(
                "scp_node_turnaround_seconds",
                "Last byte received to served at a destination, since this process began.",
            )

    def _read_trace(self, connection: sa.Connection) -> None:
        settled = trace.c.at < time.time() - _SETTLED_S
        if self._last is None:
            query = sa.select(trace.c.event, sa.func.count(), sa.func.max(trace.c.id)).where(settled)
            last = 0
            for event, count, newest in connection.execute(query.group_by(trace.c.event)):
                self._events[event] += int(count)
                last = max(last, int(newest))
            self._last = last
            return
        query_new = sa.select(trace).where(settled).order_by(trace.c.id).limit(_AT_ONCE)
        while rows := connection.execute(query_new.where(trace.c.id > self._last)).all():
            for row in rows:
                self._events[row.event] += 1
                if row.event == Event.ANALYSED.value:
                    self._count_analysis(json.loads(row.detail))
            ended = [row.instance_id for row in rows if row.event == Event.DELIVERY_ENDED.value]
            self._count_turnarounds(connection, ended)
            self._last = int(rows[-1].id)

    def _count_analysis(self, detail: dict[str, object]) -> None:
        duration = detail.get("duration_s")
        if isinstance(duration, int | float):
            self._analysis.add(float(duration))
        said = detail.get("predictions")
        for one in said if isinstance(said, list) else []:
            self._verdicts[str(one["model"]), "positive" if one["is_positive"] else "negative"] += 1

    def _count_turnarounds(self, connection: sa.Connection, ids: list[int | None]) -> None:
        known = [one for one in ids if one is not None]
        if not known:
            return
        rows = connection.execute(
            sa.select(delivery.c.updated_at - instance.c.received_at)
            .join(instance, instance.c.id == delivery.c.instance_id)
            .where(delivery.c.instance_id.in_(known), instance.c.state == InstanceState.DELIVERED.value)
        )
        for (taken,) in rows:
            self._turnaround.add(max(0.0, float(taken)))


def exposition(collector: Collector) -> bytes:
    """What Prometheus reads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)

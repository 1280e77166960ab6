"""What a node counts, for Prometheus: one table of metrics, read from the node when somebody asks.

Knows the node's counters and Prometheus' names; changes nothing. Kept in a registry of its own.
Labels have values of this program's own vocabulary alone: no peer can make the output grow, and
nothing that a peer wrote is in it. docs/metrics.md is this table; ``tapestry metrics --explain``
prints it.
"""

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import trio
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from tapestry_p2p import __version__
from tapestry_p2p.daemon.logs import COUNTS
from tapestry_p2p.daemon.measured import Measured
from tapestry_p2p.daemon.node import Node
from tapestry_p2p.daemon.pauses import REASONS
from tapestry_p2p.daemon.trainer import TrainerState

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
LAG_EVERY_S = 1.0
LAG_BUCKETS_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

Values = float | Mapping[str, float] | Mapping[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: full name, kind, what it means, how to read it, and the names of its labels."""

    name: str
    kind: str
    meaning: str
    read: Callable[[Node], Values]
    labels: tuple[str, ...] = ()


def _trainer(node: Node) -> TrainerState:
    return node.trainer.state if node.trainer is not None else TrainerState()


def _folder_bytes(folder: Path) -> float:
    """Sizes of all files below a folder; one that goes meanwhile counts nothing."""
    total = 0.0
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):
            inside = entry.is_dir(follow_symlinks=False)
            size = entry.stat(follow_symlinks=False).st_size
            total += _folder_bytes(Path(entry)) if inside else size
    return total


def _verdicts(node: Node) -> dict[tuple[str, ...], float]:
    found = node.protocol.statistics()
    return {
        (verdict, reason): count
        for verdict, counts in found.items()
        if verdict != "tables"
        for reason, count in counts.items()
    }


def _measured(node: Node) -> Measured:
    return node.trainer.measured if node.trainer is not None else Measured()


def _held_out(node: Node) -> dict[tuple[str, ...], float]:
    return {
        (model, unit): value
        for model, newest in _measured(node).newest.items()
        for unit, value in newest.figures.items()
    }


def _clipped(node: Node) -> float:
    return float(sum(row["coefficient"] < 1 for row in node.rounds.mixed["authors"]))


METRICS = (
    Metric("tapestry_info", GAUGE, "Always 1; the label names this version.",
           lambda n: {__version__: 1.0}, ("version",)),
    Metric("tapestry_uptime_seconds", GAUGE, "Since the node started.",
           lambda n: trio.current_time() - n.started_at),
    # rounds and training
    Metric("tapestry_rounds_total", COUNTER,
           "Own rounds that were published, over restarts. Standing still for hours is the first"
           " thing to look at.",
           lambda n: n.rounds.round),
    Metric("tapestry_rounds_kept_back_total", COUNTER,
           "Rounds that were not published by themselves, for the upload had no room or peers had"
           " not answered yet; the next difference held them as well.",
           lambda n: n.rounds.kept_back),
    Metric("tapestry_training_seconds_total", COUNTER,
           "Time of the rounds that the trainer handed over; over `tapestry_rounds_total` it is"
           " the mean time of a round.",
           lambda n: _trainer(n).seconds),
    Metric("tapestry_training_busy_seconds_total", COUNTER,
           "Of that, time in which it computed; the rest it waited, slept or was slowed down.",
           lambda n: _trainer(n).busy_s),
    Metric("tapestry_training_steps_total", COUNTER, "Inner steps.", lambda n: _trainer(n).steps),
    Metric("tapestry_training_tokens_total", COUNTER, "Tokens (or records) trained on.",
           lambda n: _trainer(n).tokens),
    Metric("tapestry_training_loss", GAUGE, "Loss of the last round, on its own batches.",
           lambda n: _trainer(n).loss),
    Metric("tapestry_trainer_up", GAUGE, "1 while a trainer runs.",
           lambda n: _trainer(n).running),
    Metric("tapestry_trainer_restarts_total", COUNTER,
           "Trainers that ended and were started again; `status` says why.",
           lambda n: _trainer(n).restarts),
    Metric("tapestry_trainer_memory_bytes", GAUGE,
           "Resident memory of the trainer; in a unit of its own as it told with its last vector.",
           lambda n: _trainer(n).resident_bytes),
    Metric("tapestry_paused", GAUGE, "1 while there is this reason not to train.",
           lambda n: {reason: float(reason in n.pauses.reasons) for reason in REASONS},
           ("reason",)),
    Metric("tapestry_held_out", GAUGE,
           "What the best checkpoint so far is worth on data held out here, by model (alone: a"
           " twin that hears of nobody) and by unit.",
           _held_out, ("model", "unit")),
    Metric("tapestry_held_out_steps", GAUGE,
           "Own inner steps of the newest judgement of each model.",
           lambda n: {k: found.step for k, found in _measured(n).newest.items()}, ("model",)),
    # mixing and members
    Metric("tapestry_peers", GAUGE, "Members that we are connected to.",
           lambda n: len(n.transport.connections)),
    Metric("tapestry_members", GAUGE, "Members that we know of, ourselves included.",
           lambda n: len(n.protocol.members())),
    Metric("tapestry_copies", GAUGE, "Members whose copies we keep.",
           lambda n: len(n.copies.followed)),
    Metric("tapestry_mixed", GAUGE, "Members that the last mixing took in.",
           lambda n: len(n.rounds.mixed["authors"])),
    Metric("tapestry_clipped", GAUGE, "Of those, how many pulled too far and were cut.", _clipped),
    Metric("tapestry_barred", GAUGE, "Peers that were blamed too often and are kept out.",
           lambda n: n.protocol.statistics()["tables"].get("barred", 0)),
    Metric("tapestry_table_rows", GAUGE, "Rows of the protocol's tables; each has a cap.",
           lambda n: n.protocol.statistics()["tables"], ("table",)),
    # what came and what left
    Metric("tapestry_entries_published_total", COUNTER, "Own entries signed since the start.",
           lambda n: n.entries_published),
    Metric("tapestry_published_payload_bytes_total", COUNTER,
           "Payload of own differences since the start, each counted once.",
           lambda n: n.payload_bytes),
    Metric("tapestry_audit_entries_total", COUNTER,
           "Lines added to the audit log since the start.",
           lambda n: n.audit.written),
    Metric("tapestry_sent_bytes_total", COUNTER, "Bytes given to sockets, of every kind.",
           lambda n: n.transport.traffic.sent),
    Metric("tapestry_received_bytes_total", COUNTER, "Bytes that sockets gave, of every kind.",
           lambda n: n.transport.traffic.received),
    Metric("tapestry_served_bytes_total", COUNTER,
           "Sent, by what it was: entries (headers of differences, chunks), or whole copies.",
           lambda n: {"entries": n.transport.traffic.useful_sent,
                      "copies": n.transport.traffic.keyframe_sent}, ("kind",)),
    Metric("tapestry_fetched_bytes_total", COUNTER,
           "Bodies of answers to our requests: chunks of entries, or whole copies (frames and"
           " their leaves).",
           lambda n: n.fetcher.fetched, ("kind",)),
    Metric("tapestry_rate_limit_bytes", GAUGE,
           "[budget] upload and download, bytes a second; 0 is no limit.",
           lambda n: {"upload": n.transport.paces.upload.rate,
                      "download": n.transport.paces.download.rate}, ("direction",)),
    Metric("tapestry_rate_waiting", GAUGE, "Connections that wait for that limit now.",
           lambda n: {"upload": n.transport.paces.upload.waiting,
                      "download": n.transport.paces.download.waiting}, ("direction",)),
    # judging others
    Metric("tapestry_verdicts_total", COUNTER,
           "Messages by verdict (accept, ignore, reject) and reason. Only reject blames.",
           _verdicts, ("verdict", "reason")),
    Metric("tapestry_refused_connections_total", COUNTER,
           "Sockets that were refused or had to make room, by the bound that was reached.",
           lambda n: dict(n.transport.gate.refused), ("reason",)),
    Metric("tapestry_inbound_sockets", GAUGE, "Sockets that others opened to us.",
           lambda n: len(n.transport.gate)),
    Metric("tapestry_streams", GAUGE, "Yamux streams of all connections.",
           lambda n: sum(len(c.mux.streams) for c in n.transport.connections.values())),
    # the process
    Metric("tapestry_events_waiting", GAUGE, "Foreign events that wait to be judged.",
           lambda n: n.events_waiting),
    Metric("tapestry_tasks", GAUGE, "Tasks of the event loop.",
           lambda n: trio.lowlevel.current_statistics().tasks_living),
    Metric("tapestry_threads", GAUGE, "Python threads.", lambda n: threading.active_count()),
    Metric("tapestry_log_lines_total", COUNTER, "Lines logged, by level.",
           lambda n: dict(COUNTS.lines), ("level",)),
    Metric("tapestry_log_held_back_total", COUNTER,
           "Messages that were one too many of their kind and were only counted.",
           lambda n: COUNTS.held_back),
    # the disk
    Metric("tapestry_store_bytes", GAUGE, "Files of the store.",
           lambda n: _folder_bytes(n.store.directory)),
    Metric("tapestry_disk_free_bytes", GAUGE, "Room on the disk of the store.",
           lambda n: shutil.disk_usage(n.store.directory).free),
    Metric("tapestry_disk_refuses", GAUGE, "1 while the disk refuses to be written to.",
           lambda n: bool(n.disk.fault)),
)  # fmt: skip
LAG = (
    "tapestry_loop_lag_seconds",
    "How late the event loop woke a task that slept for a second; much of it means that something"
    " computes in the loop, or that the machine is overloaded.",
)


class _Table(Collector):
    """The table as prometheus-client wants it."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        for metric in METRICS:
            family = CounterMetricFamily if metric.kind == COUNTER else GaugeMetricFamily
            made = family(metric.name, metric.meaning, labels=metric.labels)
            with contextlib.suppress(OSError):  # no descriptor, no disk: all other metrics count
                for labels, value in _samples(metric.read(self._node)):
                    made.add_metric(labels, float(value))
            yield made


def _samples(values: Values) -> Iterator[tuple[tuple[str, ...], float]]:
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield (key,) if isinstance(key, str) else key, value
    else:
        yield (), values


class Metrics:
    """A node's registry. ``watch`` measures the loop, beside the node."""

    def __init__(self, node: Node) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_Table(node))
        ProcessCollector(registry=self.registry)
        self._lag = Histogram(*LAG, buckets=LAG_BUCKETS_S, registry=self.registry)

    def text(self) -> str:
        """All metrics in Prometheus' text format. To be called in the event loop."""
        return generate_latest(self.registry).decode()

    async def watch(self) -> None:
        """Measure how late the loop wakes us; until cancelled."""
        while True:
            due = trio.current_time() + LAG_EVERY_S
            await trio.sleep_until(due)
            self._lag.observe(max(0.0, trio.current_time() - due))


def explain() -> list[tuple[str, str, str, str]]:
    """(name, kind, labels, meaning) of each of our own metrics, in the order of the table."""
    rows = [(m.name, m.kind, ", ".join(m.labels), m.meaning) for m in METRICS]
    return [*rows, (LAG[0], HISTOGRAM, "", LAG[1])]

"""Every metric is read from a real node, named as Prometheus wants, documented, safe to show."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from daemon_kit import in_mock_time, make_manifest, make_node, vector
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from tapestry_p2p.cli.metrics import table_lines
from tapestry_p2p.daemon.metrics import (
    COUNTER,
    LAG,
    METRICS,
    Metric,
    Metrics,
    _samples,
    explain,
)
from tapestry_p2p.daemon.node import Node
from tapestry_p2p.daemon.store import Store
from tapestry_p2p.gossip.verdict import reject

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
SAMPLES_MAX = 400


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    store = Store(tmp_path / "store", 16)
    made: list[Node] = []

    async def make() -> None:
        made.append(make_node(make_manifest(vector()), store))

    trio.run(make)
    yield made[0]
    store.close()


def test_copies_of_others_are_files_of_the_store_too(node: Node) -> None:
    async def read() -> str:
        return Metrics(node).text()

    before = values(trio.run(read))["tapestry_store_bytes"]
    copies = node.store.directory / "copies"
    copies.mkdir(exist_ok=True)
    (copies / "one.0").write_bytes(bytes(10_000))
    (copies / "gone").symlink_to("nowhere")
    after = values(trio.run(read))["tapestry_store_bytes"]
    assert 10_000 <= after - before < 10_000 + 100


def test_a_disk_that_is_gone_costs_its_own_metrics_alone(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: object) -> None:
        raise OSError(5, "Input/output error")

    async def read() -> str:
        return Metrics(node).text()

    monkeypatch.setattr("tapestry_p2p.daemon.metrics.os.scandir", gone)
    monkeypatch.setattr("tapestry_p2p.daemon.metrics.shutil.disk_usage", gone)
    found = values(trio.run(read))
    assert "tapestry_store_bytes" not in found
    assert found["tapestry_disk_refuses"] == 0
    assert found["tapestry_rounds_total"] == 0


def values(text: str) -> dict[str, float]:
    """Sample name with labels -> value."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_names_follow_the_conventions() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert metric.name.startswith("tapestry_")
        assert metric.name.endswith("_total") == (metric.kind == COUNTER)
        assert metric.meaning.endswith(".")
        assert not metric.name.endswith(("_ms", "_mb", "_kb"))


def test_the_page_has_every_metric() -> None:
    lines = PAGE.read_text().splitlines()
    table = table_lines(explain())
    at = lines.index(table[0])
    assert lines[at : at + len(table)] == table, "docs/metrics.md: tapestry metrics --explain"


@in_mock_time
async def test_nothing_of_it_is_in_the_global_registry() -> None:
    assert not [family.name for family in REGISTRY.collect() if "tapestry" in family.name]


def test_a_fresh_node_can_be_read(node: Node) -> None:
    async def read() -> str:
        return Metrics(node).text()

    found = values(trio.run(read))
    for metric in METRICS:
        if not metric.labels:
            assert metric.name in found, metric.name
    assert found["tapestry_peers"] == found["tapestry_rounds_total"] == 0
    assert found["tapestry_paused{reason=operator}"] == 0
    assert found["tapestry_store_bytes"] >= 0
    assert found["tapestry_disk_free_bytes"] > 0
    assert found["process_open_fds"] > 2
    assert found[f"{LAG[0]}_count"] == 0
    assert len(found) < SAMPLES_MAX


def test_what_the_node_counts_is_shown(node: Node) -> None:
    node.transport.traffic.sent = 1234
    node.transport.traffic.keyframe_sent = 34
    node.entries_published, node.audit.written = 7, 8
    node.fetcher.fetched["entries"] = 99
    node.protocol._state.tally.add(reject("signature"))
    node.transport.gate.refused["strangers"] = 5
    node.pauses.say("load", "busy")

    async def read() -> str:
        return Metrics(node).text()

    found = values(trio.run(read))
    assert found["tapestry_sent_bytes_total"] == 1234
    assert found["tapestry_served_bytes_total{kind=copies}"] == 34
    assert found["tapestry_entries_published_total"] == 7
    assert found["tapestry_audit_entries_total"] == 8
    assert found["tapestry_fetched_bytes_total{kind=entries}"] == 99
    assert found["tapestry_verdicts_total{reason=signature,verdict=reject}"] == 1
    assert found["tapestry_refused_connections_total{reason=strangers}"] == 5
    assert found["tapestry_paused{reason=load}"] == 1


def test_the_loop_is_watched(node: Node) -> None:
    async def watch() -> str:
        metrics = Metrics(node)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(metrics.watch)
            await trio.sleep(5.5)
            nursery.cancel_scope.cancel()
        return metrics.text()

    found = values(trio.run(watch, clock=trio.testing.MockClock(autojump_threshold=0)))
    assert found[f"{LAG[0]}_count"] == 5
    assert found[f"{LAG[0]}_bucket{{le=0.005}}"] == 5


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_labels_are_short_words_of_ours(node: Node, metric: Metric) -> None:
    async def read() -> list[tuple[tuple[str, ...], float]]:
        return list(_samples(metric.read(node)))

    for labels, value in trio.run(read):
        assert len(labels) == len(metric.labels)
        assert all(label.isascii() and len(label) <= 32 for label in labels)
        assert isinstance(float(value), float)

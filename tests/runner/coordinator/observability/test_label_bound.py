"""Many queues or tenants keep a scrape small."""

from __future__ import annotations

from prometheus_client.core import Metric

from runner.coordinator.observability.label_bound import LABELS_MAX, OTHERS, LabelBound
from runner.coordinator.observability.metrics import queue_family


def test_the_first_are_named_and_the_others_are_one() -> None:
    bound = LabelBound(2)
    assert [bound.label(name) for name in "abcab"] == ["a", "b", OTHERS, "a", "b"]


def test_the_jobs_of_many_queues_are_summed() -> None:
    counts = {(f"q{number}", state): 1 for number in range(20_000) for state in ("queued", "running")}
    family: Metric = queue_family(counts)
    assert len(family.samples) == 2 * LABELS_MAX + 2
    others = [sample.value for sample in family.samples if sample.labels["queue"] == OTHERS]
    assert others == [20_000 - LABELS_MAX] * 2

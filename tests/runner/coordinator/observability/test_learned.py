"""What was learned, as it is shown."""

from __future__ import annotations

from gpu.devices.device import sim
from gpu.job_class import JobClass
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.observability.learned import SHOWN_MAX, learned_document
from runner.handlers.spec import HandlerOptions, HandlerSpec, Source

GIB = 1 << 30


def spec(gpus: int = 1, **options: object) -> HandlerSpec:
    found = HandlerOptions(gpus=gpus, **options)  # type: ignore[arg-type]
    return HandlerSpec("h", "v1", "ok", Source("file", "/h.py", "h"), found)


def cls(model: str = "m", size: str = "") -> JobClass:
    return JobClass("q", "h", "v1", model, 50, None, 1, size=size)


def test_a_model_is_shown_with_its_sizes_the_last_one_first() -> None:
    scheduler_state = SchedulerState([sim(0, 24 * GIB)])
    scheduler_state.estimator.record_load(cls().key, 2 * GIB, 3.0)
    scheduler_state.record_run(cls(size="1"), 4 * GIB, 10.0)
    scheduler_state.record_run(cls(size="2"), 6 * GIB, 20.0)
    rows = learned_document(scheduler_state, spec(), has_gpu=True)
    assert [(row["model"], row["size"], row["samples"]) for row in rows] == [
        ("m", "2", 1),
        ("m", "1", 1),
        ("m", "", 2),
    ]
    assert rows[1] == {
        "model": "m",
        "size": "1",
        "samples": 1,
        "vram": {
            "resident_bytes": 2 * GIB,
            "peak_bytes": 4 * GIB,
            "grant_bytes": scheduler_state.memory_needs.need_bytes(cls(size="1")),
        },
        "load_s": 3.0,
        "run_s": {"p50": 10.0, "p90": 10.0},
        "out_of_memory": 0,
    }


def test_what_is_unknown_is_null_and_memory_is_that_of_gpus() -> None:
    scheduler_state = SchedulerState([sim(0, 24 * GIB)])
    scheduler_state.estimator.record_oom(cls(), 4 * GIB)
    (row,) = learned_document(scheduler_state, spec(), has_gpu=True)
    assert row["vram"] == {"resident_bytes": None, "peak_bytes": None, "grant_bytes": None}
    assert (row["load_s"], row["run_s"], row["out_of_memory"]) == (None, {"p50": None, "p90": None}, 1)
    (row,) = learned_document(scheduler_state, spec(vram_bytes=6 * GIB, strict=True), has_gpu=True)
    assert row["vram"]["grant_bytes"] == 6 * GIB
    (row,) = learned_document(scheduler_state, spec(gpus=0), has_gpu=True)
    assert row["vram"] is None


def test_no_more_are_shown_than_anybody_reads() -> None:
    scheduler_state = SchedulerState([sim(0, 24 * GIB)])
    for n in range(SHOWN_MAX + 1):
        scheduler_state.record_run(cls(model=str(n)), None, 1.0)
    rows = learned_document(scheduler_state, spec(), has_gpu=True)
    assert (len(rows), rows[0]["model"], rows[-1]["model"]) == (SHOWN_MAX, str(SHOWN_MAX), "1")

"""Pure: the learned estimates of a handler's jobs, as JSON values."""

from __future__ import annotations

from typing import Any

from gpu.estimates.observations import Observations
from gpu.job_class import JobClass
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.jobs.admission import needed_bytes
from runner.handlers.spec import HandlerSpec

#: The number of models and sizes shown of one handler: the latest ones.
SHOWN_MAX = 100


def learned_document(
    scheduler_state: SchedulerState, spec: HandlerSpec, *, has_gpu: bool
) -> list[dict[str, Any]]:
    """Return the estimates by model, and by size if the handler has sizes; the latest first, SHOWN_MAX at
    most.

    The row with size "" holds the estimates of all sizes of a model. Bytes are for each device, times in
    seconds. `samples` is the number of recorded attempts that the estimates rest on, `out_of_memory` the
    number of attempts that ran out of device memory. `vram` is None for a handler that uses no GPU.
    """
    rows: list[dict[str, Any]] = []
    options = spec.options
    need = needed_bytes(options, options.vram_bytes, has_gpu=has_gpu)
    for name, model in scheduler_state.estimator.models(spec.name):
        key = (spec.name, spec.version, name)
        load_s = scheduler_state.estimator.load_s(key)
        by_size = [(size, observations) for size, observations in reversed(model.sizes.items())]
        for size, observations in [*by_size, ("", model.whole)]:
            job_class = JobClass("", *key, 0, need, options.gpus, size=size, strict=options.strict)
            rows.append(
                {
                    "model": name,
                    "size": size,
                    "samples": max(len(observations.run_s), len(observations.peaks)),
                    "vram": _vram_json(scheduler_state, job_class, observations) if options.gpus else None,
                    "load_s": load_s,
                    "run_s": _run_time_json(observations),
                    "out_of_memory": observations.out_of_memory,
                }
            )
            if len(rows) == SHOWN_MAX:
                return rows
    return rows


def _vram_json(
    scheduler_state: SchedulerState, job_class: JobClass, observations: Observations
) -> dict[str, int | None]:
    """Bytes on each device: after loading, at the peak of a job, and the grant of a new executor."""
    return {
        "resident_bytes": scheduler_state.estimator.resident_bytes(job_class.key),
        "peak_bytes": observations.peak_bytes or None,
        "grant_bytes": scheduler_state.memory_needs.need_bytes(job_class),
    }


def _run_time_json(observations: Observations) -> dict[str, float | None]:
    """Median and 90th percentile of run times in seconds; None without a run."""
    if not observations.run_s:
        return {"p50": None, "p90": None}
    return {"p50": observations.run_s.quantile(0.5), "p90": observations.run_s.quantile(0.9)}

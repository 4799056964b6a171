"""Pure: what was learned of a handler's jobs, as JSON values."""

from __future__ import annotations

from typing import Any

from gpu.estimates.observations import Observations
from gpu.job_class import JobClass
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.jobs.admission import needed_bytes
from runner.handlers.spec import HandlerSpec

#: Models and sizes shown of one handler: those that were heard of last.
SHOWN_MAX = 100


def learned(view: SchedulerState, spec: HandlerSpec, *, has_gpu: bool) -> list[dict[str, Any]]:
    """By model, and by size where the handler names any; the last heard of first."""
    rows: list[dict[str, Any]] = []
    options = spec.options
    need = needed_bytes(options, options.vram_bytes, has_gpu=has_gpu)
    for name, model in view.estimator.models(spec.name):
        key = (spec.name, spec.version, name)
        load_s = view.estimator.load_s(key)
        parts = [(size, part) for size, part in reversed(model.sizes.items())]
        for size, part in [*parts, ("", model.whole)]:
            cls = JobClass("", *key, 0, need, options.gpus, size=size, strict=options.strict)
            rows.append(
                {
                    "model": name,
                    "size": size,
                    "samples": max(len(part.run_s), len(part.peaks)),
                    "vram": _vram(view, cls, part) if options.gpus else None,
                    "load_s": load_s,
                    "run_s": _seconds(part),
                    "out_of_memory": part.out_of_memory,
                }
            )
            if len(rows) == SHOWN_MAX:
                return rows
    return rows


def _vram(view: SchedulerState, cls: JobClass, part: Observations) -> dict[str, int | None]:
    """Bytes on each device: after loading, in a job, and what an executor would be granted now."""
    return {
        "resident_bytes": view.estimator.resident_bytes(cls.key),
        "peak_bytes": part.peak_bytes or None,
        "grant_bytes": view.memory_needs.need_bytes(cls),
    }


def _seconds(part: Observations) -> dict[str, float | None]:
    if not part.run_s:
        return {"p50": None, "p90": None}
    return {"p50": part.run_s.quantile(0.5), "p90": part.run_s.quantile(0.9)}

"""Pure: the expected memory needs and durations of jobs, learned from earlier ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from gpu.estimates.observations import Observations
from gpu.estimates.weighted_window import WeightedWindow
from gpu.job_class import JobClass, Key

#: Version of the format that `dump` writes.
FORMAT_VERSION = 1
#: The most models, and sizes of one model, that are remembered: their names come from inputs. Beyond that the
#: least recently used one is forgotten.
MODELS_MAX = 4096
SIZES_MAX = 64
#: A run is expected to end before its limit once this many have ended.
ENOUGH_RUNS = 10


class ModelObservations:
    """Observations of one model of a handler: `whole` of all its jobs, `sizes` by job size."""

    __slots__ = ("load_s", "resident_bytes", "sizes", "whole")

    def __init__(self) -> None:
        self.whole = Observations()
        self.sizes: dict[str, Observations] = {}
        self.resident_bytes = WeightedWindow()
        self.load_s = WeightedWindow()

    def for_size(self, size: str) -> Observations:
        """Return the observations of jobs of a size; where there are none, of all jobs."""
        return self.sizes.get(size, self.whole)

    def observations_for(self, size: str) -> list[Observations]:
        """Return the observations to which a job of a size adds."""
        if not size:
            return [self.whole]
        known = self.sizes.pop(size, None)
        if known is None and len(self.sizes) >= SIZES_MAX:
            del self.sizes[next(iter(self.sizes))]
        self.sizes[size] = known or Observations()
        return [self.sizes[size], self.whole]


class Estimator:
    """What is known of each (handler, model) and size; of a handler as a whole only the durations.

    A job's version makes no difference: the previous version's figures are the best guess for the next.
    """

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], ModelObservations] = {}
        self._handlers: dict[str, ModelObservations] = {}
        #: (handler, model) of which something changed since the caller last emptied this.
        self.changed: set[tuple[str, str]] = set()

    # Events.

    def record_load(self, key: Key, resident_bytes: int | None, load_s: float | None) -> None:
        """Record a load: its duration, and what the executor then holds on each of its devices."""
        for model in self._touch_model(key[0], key[2]):
            if load_s is not None:
                model.load_s.add(load_s)
            if resident_bytes is not None:
                model.resident_bytes.add(resident_bytes)

    def record_run(self, job_class: JobClass, peak_bytes: int | None, run_s: float | None) -> bool:
        """Record a successful job: its peak on each of its devices, and its duration.

        True where jobs like it now need another grant.
        """
        model, handler = self._touch_model(job_class.handler, job_class.model)
        parts = model.observations_for(job_class.size)
        if run_s is not None:
            for part in (*parts, handler.whole):
                part.add_run(run_s, job_class.limit_s)
        if peak_bytes is None:
            return False
        # The grant of a job on an escalation rung is not declared by its handler.
        declared = None if job_class.alone_on_device else job_class.need_bytes
        return any([part.add_peak(peak_bytes, declared) for part in parts])

    def record_oom(self, job_class: JobClass, grant_bytes: int | None) -> None:
        """Record that a job of the class ran out of memory with this grant; None: with all there is."""
        model, _ = self._touch_model(job_class.handler, job_class.model)
        for part in model.observations_for(job_class.size):
            # A job whose own grant is raised again and again must not raise the grants of others: if it
            # succeeds, its peak counts.
            part.add_oom(None if job_class.alone_on_device else grant_bytes)

    # Estimates.

    def need_bytes(self, job_class: JobClass, cap_bytes: int | None = None) -> int | None:
        """Return what to grant an executor of the class on each device; None where nothing is known.

        It is the declared need until observations show another one. On a device of `cap_bytes` that is large
        enough for the measured peak but not for the margin, the margin is whatever remains.
        """
        declared = job_class.need_bytes
        if declared == 0 or (job_class.alone_on_device and declared is not None):
            # Nothing is to be granted, or the need was computed for this very job.
            return declared
        model = self._models.get((job_class.handler, job_class.model))
        if model is None:
            return declared
        known = model.for_size(job_class.size)
        grant_bytes = known.need_for(declared, is_own=not job_class.size or known is not model.whole)
        if grant_bytes is None or grant_bytes == declared:
            return grant_bytes
        if job_class.strict and declared is not None:
            grant_bytes = min(grant_bytes, declared)
        return (
            cap_bytes
            if cap_bytes is not None and known.peak_bytes <= cap_bytes < grant_bytes
            else grant_bytes
        )

    def minimum_bytes(self, job_class: JobClass) -> int:
        """Return the grant that suffices for a loaded executor to run the class, where the need was learned.

        It leaves out the margin, which is no reason to load another executor.
        """
        model = self._models.get((job_class.handler, job_class.model))
        if model is None:
            return 0
        known = model.for_size(job_class.size)
        return max(known.peak_bytes, int(known.oom_minimum_bytes))

    def resident_bytes(self, key: Key) -> int | None:
        """Return the bytes that nine of ten loaded executors hold at most on each device; None: unknown."""
        model = self._models.get((key[0], key[2]))
        return int(model.resident_bytes.quantile(0.9)) if model is not None and model.resident_bytes else None

    def load_s(self, key: Key) -> float | None:
        """Return the median duration of a load, of the handler's other models where this one has none."""
        for model in (self._models.get((key[0], key[2])), self._handlers.get(key[0])):
            if model is not None and model.load_s:
                return model.load_s.quantile(0.5)
        return None

    def run_s(self, job_class: JobClass, q: float = 0.9) -> float | None:
        """Return the duration within which the share `q` of the class's jobs end; None where that is unknown.

        Of jobs with a limit only those with the same limit count; while few of them have ended, it is the
        limit.
        """
        if math.isinf(job_class.limit_s):
            runs = self._run_window(job_class, 1)
            return None if runs is None else runs.quantile(q)
        for part in self._observations(job_class):
            of_limit = part.runs_by_limit.get(job_class.limit_s)
            if of_limit is not None and len(of_limit) >= ENOUGH_RUNS:
                return min(of_limit.quantile(q), job_class.limit_s)
        return job_class.limit_s

    def median_run_s(self, job_class: JobClass) -> float | None:
        """Return the median duration of a job of the class; None where none has run, whatever its limit."""
        runs = self._run_window(job_class, 1)
        return None if runs is None else runs.quantile(0.5)

    def run_mean_s(self, job_class: JobClass) -> float | None:
        """Return the mean duration of a job of the class; None where none has run."""
        runs = self._run_window(job_class, 1)
        return None if runs is None else min(runs.mean(), job_class.limit_s)

    def longest_s(self, job_class: JobClass) -> float:
        """Return the longest duration of a job of the class that was observed; inf where none has run."""
        runs = self._run_window(job_class, 1)
        return math.inf if runs is None else runs.quantile(1.0)

    # Storage and display.

    def models(self, handler: str) -> Iterator[tuple[str, ModelObservations]]:
        """Return the observations of a handler's models, the last updated first."""
        known = reversed(self._models.items())
        return ((model, observations) for (each, model), observations in known if each == handler)

    def dump(self, handler: str, model: str) -> dict[str, Any] | None:
        """Return the observations of one model in plain values; None where they were forgotten."""
        known = self._models.get((handler, model))
        if known is None:
            return None
        return {
            "form": FORMAT_VERSION,
            "handler": handler,
            "model": model,
            "whole": known.whole.dump(),
            "sizes": {size: part.dump() for size, part in known.sizes.items()},
            "resident": [int(nbytes) for nbytes in known.resident_bytes.samples],
            "load_s": known.load_s.samples,
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Restore what `dump` returned.

        Raises:
            ValueError: the format is another version's.
        """
        if dumped.get("form") != FORMAT_VERSION:
            raise ValueError(f"stored estimates have the unknown format {dumped.get('form')!r}")
        model, handler = self._touch_model(dumped["handler"], dumped["model"])
        model.whole = Observations.load(dumped["whole"])
        model.sizes = {size: Observations.load(part) for size, part in dumped["sizes"].items()}
        model.resident_bytes = WeightedWindow(dumped["resident"])
        model.load_s = WeightedWindow(dumped["load_s"])
        for load_s in model.load_s.samples:
            handler.load_s.add(load_s)
        for limit_s, runs in model.whole.runs_by_limit.items():
            for run_s in runs.samples:
                handler.whole.add_run(run_s, limit_s)
        self.changed.discard((dumped["handler"], dumped["model"]))

    def _touch_model(self, handler: str, model: str) -> tuple[ModelObservations, ModelObservations]:
        """Return the model, now the most recently used, and the observations of its handler as a whole."""
        name = (handler, model)
        known = self._models.pop(name, None)
        if known is None:
            known = ModelObservations()
            if len(self._models) >= MODELS_MAX:
                oldest = next(iter(self._models))
                del self._models[oldest]
                self.changed.add(oldest)
        self._models[name] = known
        self.changed.add(name)
        whole = self._handlers.get(handler)
        if whole is None:
            whole = self._handlers[handler] = ModelObservations()
        return known, whole

    def _run_window(self, job_class: JobClass, min_count: int) -> WeightedWindow | None:
        """Return the durations of the jobs most like the class's, with at least `min_count` of them."""
        for part in self._observations(job_class):
            of_limit = part.runs_by_limit.get(job_class.limit_s)
            if of_limit is not None and len(of_limit) >= ENOUGH_RUNS:
                return of_limit
            if len(part.run_s) >= min_count:
                return part.run_s
        return None

    def _observations(self, job_class: JobClass) -> Iterator[Observations]:
        """Yield the observations for the class's jobs: of its size, of its model, of its handler."""
        model, handler = (
            self._models.get((job_class.handler, job_class.model)),
            self._handlers.get(job_class.handler),
        )
        if model is not None:
            yield model.for_size(job_class.size)
            yield model.whole
        if handler is not None:
            yield handler.whole

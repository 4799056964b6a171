"""Pure: at which waiting classes a plan looks: all of them, or the first ones where many wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpu.job_class import JobClass, Key
from gpu.planning.candidate import make_backfill_rank, make_rank
from gpu.scheduling.class_order import Placement, Selection
from gpu.scheduling.memory_needs import UNKNOWN_NEED_DIVISOR
from gpu.scheduling.scheduler_state import SchedulerState
from gpu.scheduling.tenant_shares import PlanShares


def select_classes(state: SchedulerState, now: float, plan_shares: PlanShares) -> Selection:
    """Return the classes at which the plan for the time `now` looks.

    Apart from refreshing the order of classes nothing changes. Where some are left out, they rank behind, and
    no device has what they need, or an equal class is looked at before them.
    """
    order = state.backlog.order
    placer = _Placer(state, plan_shares)
    order.refresh(now, placer.place)
    if order.is_small:
        return Selection(order.classes, [])
    if plan_shares.has_many_tenants:
        order.settle(state.limits.is_at_limit, placer.is_current, placer.place)
    return order.select(_warm_keys(state), state.limits.is_at_limit, placer.could_fit)


def _warm_keys(state: SchedulerState) -> Iterator[Key]:
    """Yield the keys with executors that idle, that load for no job, or that may be assigned more jobs."""
    residency = state.residency
    yield from residency.idle_by_key
    yield from residency.prewarmed
    for key in residency.by_key:
        depth = state.limits.stage_depths.get((key[0], key[1]), 1)
        if depth > 1 or state.batch_sizing.runs_several_jobs(key[0], key[1]):
            yield key


class _Placer:
    """Finds the places of classes for one plan; what equal classes share is computed once."""

    def __init__(self, state: SchedulerState, plan_shares: PlanShares) -> None:
        self._state = state
        self._plan_shares = plan_shares
        self._top_priority = state.backlog.top_priority
        self._known: dict[tuple[Any, ...], tuple[float | None, int | None]] = {}

    def place(self, job_class: JobClass, as_of: float) -> Placement:
        """Return the place of a waiting class, with the rank that it has at the time `as_of`."""
        state, residency = self._state, self._state.residency
        # All that the estimates of a class depend on.
        kind = (
            *job_class.key,
            job_class.size,
            job_class.need_bytes,
            job_class.gpus,
            job_class.strict,
            job_class.limit_s,
            job_class.priority < 0,
        )
        known = self._known.get(kind)
        if known is None:
            run_s = 0.0 if job_class.is_prewarm else state.time_estimates.run_s(job_class)
            known = self._known[kind] = run_s, state.memory_needs.need_bytes(job_class)
        run_s, need_bytes = known
        device_count = residency.device_count(job_class)
        rank = make_rank(
            state,
            job_class,
            state.backlog.by_class[job_class].first,
            now=as_of,
            top_priority=self._top_priority,
            run_s=run_s,
            device_count=device_count,
            share=self._plan_shares.rank(job_class),
        )
        return Placement(
            rank, make_backfill_rank(rank, run_s), residency.is_on_gpu(job_class), device_count, need_bytes
        )

    def is_current(self, job_class: JobClass, placement: Placement) -> bool:
        """Return whether the tenant of a class has the share with which the class was placed."""
        share: float = placement.rank[2]
        return self._plan_shares.rank(job_class) == share

    def could_fit(self, placement: Placement) -> bool:
        """Return whether some device may have what a new executor takes, now or after evictions."""
        for cap_bytes, index in self._state.capacity_table.pools[placement.is_gpu].items():
            need = placement.need_bytes
            if index.could_fit(max(1, cap_bytes // UNKNOWN_NEED_DIVISOR) if need is None else need):
                return True
        return False

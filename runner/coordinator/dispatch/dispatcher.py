"""Effect: applies the plan: which jobs start where, which executors load and which are unloaded."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Mapping

from gpu.devices.device import Device
from gpu.planning import planner
from gpu.planning.oom_escalation import OomRung
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.dispatch.assigner import Assigner
from runner.coordinator.dispatch.commands import load_command
from runner.coordinator.dispatch.executor_control import ExecutorControl
from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.coordinator.dispatch.executor_table import ExecutorTable
from runner.coordinator.dispatch.grants import Grants, MemoryCaps
from runner.coordinator.dispatch.prewarming import Prewarming
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.lifecycle.job_lifecycle import JobLifecycle
from runner.coordinator.lifecycle.job_reader import JobReader
from runner.coordinator.processes.worker_pool import WorkerPool
from runner.coordinator.queue.queue_manager import QueueManager
from runner.coordinator.queue.timers import Timers
from runner.coordinator.runtime.plan_trigger import PlanTrigger
from runner.protocol.worker import CancelAttempt, RecallAttempts, UnloadExecutor, encode

log = logging.getLogger(__name__)

#: Seconds from an unexpected failure to the next planning cycle.
RETRY_S = 1.0
#: The grace of an immediate cancel, see `CancelAttempt`.
NO_GRACE_S = -1.0


class Dispatcher:
    """Runs planning cycles: compute a plan, apply its actions, send one frame to each worker.

    The `PlanTrigger` starts a cycle. The plan itself is a pure function (`gpu.planning.planner`); this class
    owns the executors and applies what was decided.
    """

    def __init__(
        self,
        *,
        lifecycle: JobLifecycle,
        queue_manager: QueueManager,
        scheduler_state: SchedulerState,
        worker_pool: WorkerPool,
        timers: Timers,
        devices: Mapping[str, Device],
        plan_trigger: PlanTrigger,
        job_reader: JobReader,
        caps: MemoryCaps,
    ) -> None:
        self.grants = Grants(scheduler_state=scheduler_state, worker_pool=worker_pool, caps=caps)
        self._caps = caps
        self._lifecycle = lifecycle
        self._queue_manager = queue_manager
        self._scheduler_state = scheduler_state
        self._worker_pool = worker_pool
        self._devices = devices
        self._executor_numbers = itertools.count(1)
        self._timers = timers
        self._plan_trigger = plan_trigger
        #: When the next timed cycle is due; UTC epoch seconds.
        self._next_wake_at = float("inf")
        self.executors = ExecutorTable()
        self.control = ExecutorControl(
            executors=self.executors,
            scheduler_state=scheduler_state,
            worker_pool=worker_pool,
            plan_trigger=plan_trigger,
        )
        self._assigner = Assigner(
            lifecycle=lifecycle,
            queue_manager=queue_manager,
            scheduler_state=scheduler_state,
            worker_pool=worker_pool,
            executors=self.executors,
            control=self.control,
            job_reader=job_reader,
            plan_trigger=plan_trigger,
        )
        self.prewarming = Prewarming(
            scheduler_state=scheduler_state,
            handlers=queue_manager.handlers,
            timers=timers,
            executors=self.executors,
            device_ids=devices.keys(),
            clock=lifecycle.clock,
            plan_trigger=plan_trigger,
        )
        #: True while no attempt may start: before recovery is done, and from shutdown on.
        self.is_paused = True
        plan_trigger.connect(self._run_cycle)

    def _run_cycle(self) -> None:
        """Run one cycle; a failure in it schedules another one."""
        if not self.is_paused:
            try:
                self._plan_and_apply()
            except Exception:
                # The loop's boundary: running jobs continue, and the next cycle may succeed.
                log.exception("the planning cycle failed; the next one starts in %g s", RETRY_S)
                self._wake_later()
        self._worker_pool.flush()

    def _plan_and_apply(self) -> None:
        """Compute a plan and apply its actions, then unload executors that are due and send lowered
        grants."""
        self._queue_manager.windows.refill()
        self.prewarming.before_plan()
        now = self._lifecycle.clock.now()
        plan = planner.plan(self._scheduler_state, now)
        self._queue_manager.reasons.record_plan(plan)
        for action in plan.actions:
            try:
                self._apply(action)
            except Exception:
                # The failure of one action must not keep the other jobs from starting.
                log.exception("failed to apply %s", action)
                self._wake_later()
        if "waiting_for_device" in plan.reasons.values():
            self._worker_pool.start_cpu_workers(self._devices.values())
        for number in self._scheduler_state.idle_expiry.pop_due(now):
            self.control.unload(number)
        self.control.unload_retired()
        if self._scheduler_state.ledger.lowered_grants:
            self.grants.send_lowered_grants(self.executors)
        self._schedule_wake(plan.replan_at)

    def _apply(self, action: planner.PlanAction) -> None:
        """Apply one action of the plan."""
        match action:
            case planner.StartAction(number, job_class, job_numbers) if job_class.is_prewarm:
                self.prewarming.fulfil(job_numbers[0], self.executors[number])
            case planner.StartAction():
                self._start_attempts(action)
            case planner.LoadAction():
                self._load_executor(action)
            case planner.EvictAction():
                self.control.unload(action.executor)

    def _wake_later(self) -> None:
        """Schedule a cycle after a failure: no other event may come, and an immediate cycle would fail
        again."""
        asyncio.get_running_loop().call_later(RETRY_S, self._plan_trigger.wake)

    def _schedule_wake(self, look_at: float) -> None:
        """Schedule a cycle for the time at which the plan changes without an event, or the next idle executor
        reaches its keep_alive."""
        expiry = self._scheduler_state.idle_expiry.next_at()
        wake_at = look_at if expiry is None else min(look_at, expiry)
        if wake_at < self._next_wake_at:
            self._next_wake_at = wake_at

            def on_due() -> None:
                self._next_wake_at = float("inf")
                self._plan_trigger.wake()

            self._timers.call_at(wake_at, on_due)

    def _start_attempts(self, action: planner.StartAction) -> None:
        """Assign the jobs of the action to an executor that exists."""
        executor, live_jobs = (
            self.executors[action.executor],
            [self._lifecycle.registry.by_number[number] for number in action.job_numbers],
        )
        now = self._lifecycle.clock.now()
        self._scheduler_state.start(
            action.executor, action.job_class, action.job_numbers, now, action.outlook
        )
        if executor.was_grant_lowered:
            self.grants.fit_grant(executor, action.job_class)
        self._queue_manager.windows.on_dispatched(action.job_class)
        self._assigner.assign(executor, live_jobs)

    def _load_executor(self, action: planner.LoadAction) -> None:
        """Start an executor for the jobs, or the prewarm request, of the action."""
        if (
            action.job_class.is_prewarm
            and (executor := self.prewarming.find_executor(action.job_number)) is not None
        ):
            # A job of the same plan loads the executor.
            self.prewarming.fulfil(action.job_number, executor)
            return
        worker = self._worker_pool.worker_of(action.device_ids[0])
        if worker is None:
            log.error("cannot load an executor: device %s has no worker", action.device_ids[0])
            return
        spec = self._queue_manager.handlers.require(action.job_class.handler)
        executor_number = next(self._executor_numbers)
        devices = [self._devices[device_id] for device_id in action.device_ids]
        self._scheduler_state.load(
            executor_number,
            action.job_class,
            action.job_number,
            action.device_ids,
            action.grant_bytes,
            action.exclusive,
            keep_alive_s=spec.options.keep_alive_s,
            max_jobs=spec.options.max_jobs,
            now=self._lifecycle.clock.now(),
            outlook=action.outlook,
            extra_job_numbers=action.extra_job_numbers,
        )
        ids = list(action.device_ids)
        executor = ExecutorHandle(
            executor_number, worker, spec, action.job_class.model, ids, action.grant_bytes
        )
        self.executors[executor_number] = executor
        cap = self._caps.cap_bytes(action.device_ids, action.grant_bytes, None)
        self._worker_pool.post(worker, encode(load_command(executor_number, action, spec, devices, cap)))
        if action.job_class.is_prewarm:
            self.prewarming.on_load_started(action.job_number, executor_number)
            return
        live_jobs = [
            self._lifecycle.registry.by_number[number]
            for number in (action.job_number, *action.extra_job_numbers)
        ]
        if live_jobs[0].job.rung >= OomRung.LARGER:
            # Evict idle neighbours of a job that ran out of memory: they may hold more than was observed.
            for other in self._scheduler_state.residency.evictable_on(action.device_ids):
                self.control.unload(other)
        self._queue_manager.windows.on_dispatched(action.job_class)
        self._assigner.assign(executor, live_jobs)

    def cancel_job(self, live: LiveJob, reason: str, *, force: bool) -> bool:
        """Begin to cancel a job; return True if the job has ended already, because no executor held it.
        `force` leaves the attempt no grace."""
        if live.executor is None:
            self._lifecycle.cancel_unstarted(live, reason)
            return True
        if live.job.cancel_reason is None:
            self._lifecycle.mark_cancelling(live, reason)
        executor = self.executors.get(live.executor)
        if executor is not None and live.phase != "assigned":
            # The cancel names the attempt: the executor may run the next one before the message arrives.
            grace_s = NO_GRACE_S if force else executor.spec.options.grace_s
            message = encode(CancelAttempt(live.job.id, live.attempt_in_flight, "cancelled", reason, grace_s))
            self._worker_pool.post(executor.worker, message)
            self._worker_pool.flush()
        return False

    def resend_caps(self) -> None:
        """Send all grants again with new caps: the measured context overhead changes the part of a grant that
        torch may reserve."""
        for executor in self.executors.all():
            self.grants.set_grant(executor, executor.grant_bytes)
        self._worker_pool.flush()

    def resend_commands(self, executor: ExecutorHandle) -> None:
        """Send the commands to an executor again that may have been lost with the connection: its grant,
        cancels, a recall or the unload. Each may arrive twice."""
        if executor.grant_bytes:
            # An executor that missed a lowered grant would use the larger one, and its worker would not
            # object.
            self.grants.set_grant(executor, executor.grant_bytes)
        for live in executor.attempts.values():
            if live.job.cancel_reason is not None:
                self.cancel_job(live, live.job.cancel_reason, force=False)
        if len(executor.attempts) > 1:
            self._worker_pool.post(executor.worker, encode(RecallAttempts(executor.number)))
        elif executor.is_closing and not executor.attempts:
            self._worker_pool.post(executor.worker, encode(UnloadExecutor(executor.number)))

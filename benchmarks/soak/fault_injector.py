"""Effect: kills, stops and restarts of every kind of process, and how long it takes until jobs run again."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from benchmarks.soak import job_mix
from benchmarks.soak.run_context import RunContext
from benchmarks.soak.server import GONE_WITHIN_S, GRACE_S, SoakServer
from benchmarks.soak.submitter import Submitter

#: What is done, and how often.
ACTIONS = {
    "kill coordinator": 3,
    "kill front": 4,
    "kill writer": 3,
    "kill probe": 2,
    "kill worker": 4,
    "kill executor": 6,
    "kill everything": 1,
    "stop coordinator": 1,
    "stop front": 1,
    "stop writer": 1,
    "stop probe": 1,
    "stop worker": 1,
    "stop executor": 2,
    "restart": 2,
    "fill disk": 1,
}
STOPPED_S = 3.0
#: The disk stays full for so long at most.
FULL_S = 3.0
#: A server that lost any of its processes runs jobs again within this.
RECOVERED_WITHIN_S = 30.0
#: Asked to stop, it ends within its grace and this; the papers say 2 s, the rest is for a machine at work.
STOP_SLACK_S = 5.0


class FaultInjector:
    """Does one thing after the other; at times a second one before the first was got over."""

    def __init__(self, context: RunContext, submitter: Submitter, every_s: float) -> None:
        self._context = context
        self._submitter = submitter
        self._every_s = every_s

    async def inject_faults(self) -> None:
        """Until the run is over; nothing is begun in the calm part."""
        context = self._context
        while await context.pause(context.rng.expovariate(1.0 / self._every_s)):
            if context.is_calm:
                continue
            await self._inject_one()
            if context.rng.random() < 0.2:
                await asyncio.sleep(context.rng.uniform(0.0, 0.5))
                await self._inject_one()

    async def restart(self) -> None:
        """SIGTERM, and a new server on the same folder."""
        context = self._context
        began = time.monotonic()
        context.server.is_ending = True
        context.server.process.send_signal(signal.SIGTERM)
        code = await context.server.wait(GRACE_S + STOP_SLACK_S)
        took = time.monotonic() - began
        context.counts["longest stop, ms"] = max(context.counts["longest stop, ms"], int(took * 1000))
        if code is None:
            context.report_violation(
                f"I7: the server did not stop within {GRACE_S:g} + {STOP_SLACK_S:g} s after SIGTERM"
            )
            context.server.kill()
        elif code != 0:
            context.report_violation(f"I7: the server stopped with exit code {code}")
        try:
            await self._check_nothing_left("a stop", 1.0)
            await self._start()
        finally:
            context.http.recorder.record_fault("restart", began)

    async def measure_recovery(self, since: float, what: str) -> None:
        """A new job is accepted, run and answered; how long after `since`."""
        context = self._context
        while time.monotonic() - since < RECOVERED_WITHIN_S:
            _, answer = await self._submitter.submit(job_mix.probe_job(), wait_s=5.0, fresh=True)
            if answer is not None and answer.status == 200:
                if answer.document()["state"] == "succeeded":
                    took = time.monotonic() - since
                    context.recoveries.setdefault(what, []).append(took)
                    return
            elif answer is None or answer.status == 503:
                await asyncio.sleep(0.02)
        context.report_violation(f"I7: {RECOVERED_WITHIN_S:g} s after {what} no job was run yet")

    async def _inject_one(self) -> None:
        context = self._context
        what = context.rng.choices(list(ACTIONS), list(ACTIONS.values()))[0]
        began = time.monotonic()
        match what.split():
            case ["restart"]:
                context.kills[what] += 1
                await self.restart()
            case ["kill", "coordinator" | "everything" as whom]:
                context.kills[what] += 1
                await self._kill_all(everything=whom == "everything")
            case ["fill", _]:
                if not context.server.has_own_disk:
                    return
                context.kills[what] += 1
                await self._fill_disk()
                began = time.monotonic()
            case [verb, role]:
                pids = context.server.pids_of_role(role)
                if not pids:
                    return
                context.kills[what] += 1
                await self._signal_process(verb, role, context.rng.choice(pids))
                if verb == "stop":
                    # Counted from the moment at which it may go on.
                    began = time.monotonic()
        await self.measure_recovery(began, what)

    async def _fill_disk(self) -> None:
        """The disk is full for a moment."""
        context, began = self._context, time.monotonic()
        context.facts.fills.append(began)
        await asyncio.to_thread(context.server.fill_disk)
        await asyncio.sleep(context.rng.uniform(0.5, FULL_S))
        context.server.empty_disk()
        context.http.recorder.record_fault("fill disk", began)

    async def _signal_process(self, verb: str, role: str, pid: int) -> None:
        context, began = self._context, time.monotonic()
        try:
            if verb == "kill":
                context.facts.record_kill(role, pid, time.monotonic())
                os.kill(pid, signal.SIGKILL)
                context.http.recorder.record_fault(f"kill {role}", began)
                return
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(context.rng.uniform(0.2, STOPPED_S))
            os.kill(pid, signal.SIGCONT)
            context.http.recorder.record_fault(f"stop {role}", began)
        except ProcessLookupError:
            # It ended by itself meanwhile; executors come and go.
            context.counts["aimed at a process that had ended"] += 1

    async def _kill_all(self, *, everything: bool) -> None:
        """The coordinator dies, alone or in the same moment as all its processes."""
        context, began = self._context, time.monotonic()
        context.facts.record_kill("coordinator", context.server.process.pid, began)
        context.server.kill(everything=everything)
        try:
            # A supervisor may start the next one while the processes of the last one are still ending.
            if context.rng.random() < 0.5:
                await self._check_nothing_left("the death of the coordinator", GONE_WITHIN_S)
            await self._start()
        finally:
            what = "kill everything" if everything else "kill coordinator"
            context.http.recorder.record_fault(what, began)

    async def _check_nothing_left(self, what: str, within_s: float) -> None:
        began = time.monotonic()
        left = await self._context.server.wait_until_gone(within_s)
        if left:
            self._context.report_violation(f"I6: {within_s:g} s after {what} these are left: {left}")
        took = int((time.monotonic() - began) * 1000)
        counts = self._context.counts
        counts["longest until a dead server's processes were gone, ms"] = max(
            counts["longest until a dead server's processes were gone, ms"], took
        )

    async def _start(self) -> None:
        ready_s = await self._context.server.start()
        self._context.recoveries.setdefault("start to ready", []).append(ready_s)


async def restart_on_exit(context: RunContext) -> None:
    """The coordinator never ends unless it was ended; it is started again. Raises ServerFailed."""
    while await context.pause(0.5):
        code = context.server.process.poll()
        if code is not None and not context.server.is_ending:
            context.report_violation(f"I7: the server ended by itself with {code}; see {context.server.log}")
            await context.server.start()


def leftover_runtimes(server: SoakServer) -> list[str]:
    """Folders for sockets that no server uses any more and that are still there."""
    return [str(path) for path in server.runtimes if path.exists()]

"""Effect: one run from the first start of the server to the last look at what it left."""

from __future__ import annotations

import asyncio
import random
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.soak import job_mix
from benchmarks.soak.auditor import Auditor
from benchmarks.soak.execution_stamps import ExecutionStamps
from benchmarks.soak.fault_injector import STOP_SLACK_S, FaultInjector, leftover_runtimes, restart_on_exit
from benchmarks.soak.http_client import ConnectionLost, HttpClient
from benchmarks.soak.judge.history import read_history
from benchmarks.soak.judge.verdict import Verdict, judge
from benchmarks.soak.ledger import Ledger
from benchmarks.soak.reader import Readers
from benchmarks.soak.recorder import HistoryRecorder
from benchmarks.soak.resource_sampler import IdleLevel, ResourceSampler
from benchmarks.soak.run_context import RunContext
from benchmarks.soak.server import GRACE_S, SoakServer
from benchmarks.soak.submitter import Submitter
from benchmarks.soak.user_actions import UserActions
from runner.jobs.job_files import INDEX_NAME

#: Part of the run in which nobody is killed, so that processes live long enough to show what they gather.
CALM = (0.6, 0.9)
#: After the last submit everything ends within this.
DRAIN_S = 120.0
AUDIT_S = 300.0
#: Shorter runs do without the warm-up, and so without a comparison with it.
SHORT_MINUTES = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is made of."""

    seed: int
    minutes: float = 10.0
    #: Jobs a second.
    rate: float = 10.0
    #: Seconds between two kills, on average.
    kill_every_s: float = 8.0
    #: Jobs kept on the server; beyond that the oldest are checked and deleted.
    pile: int = 2_000
    #: MiB of the data folder's own file system, which is filled at times; 0: none.
    disk_mib: int = 0
    #: Where the history of all calls is recorded; None: in the folder of the run.
    history: Path | None = None


class Soak:
    """A run and all that it measures."""

    def __init__(self, folder: Path, options: Options, print_line: Callable[[str], None]) -> None:
        server = SoakServer(folder, f"soak{options.seed}x{folder.name}", disk_mib=options.disk_mib)
        self.options = options
        self.context = RunContext(
            server,
            HttpClient(server.port, HistoryRecorder(options.history or folder / "history.jsonl")),
            Ledger(f"soak-{options.seed}"),
            ExecutionStamps(server.stamps),
            random.Random(options.seed),
            options.rate,
            print_line,
        )
        self.readers = Readers(self.context)
        self.submitter = Submitter(self.context, self.readers)
        self.user_actions = UserActions(self.context)
        self.fault_injector = FaultInjector(self.context, self.submitter, options.kill_every_s)
        self.auditor = Auditor(self.context, options.pile)
        self.resource_sampler = ResourceSampler(self.context)
        self.verdict = Verdict()
        self.levels: tuple[dict[str, IdleLevel], dict[str, IdleLevel]] = ({}, {})
        self.lasted_s = 0.0
        self.cpu_share = 0.0

    async def run(self) -> None:
        """All of it. What is broken stands in `context.findings`."""
        context = self.context
        try:
            await context.server.start()
            first = await self.warm_up()
            await self.load()
            await self.drain()
            await self.check()
            if first:
                last = await self.resource_sampler.measure_idle_levels(30.0)
                self.levels = (first, last)
                self.resource_sampler.compare_levels(first, last)
                self.resource_sampler.check_drift()
            await self.stop_server()
            await self.judge_history()
        finally:
            for text in context.http.overdue:
                context.report_violation(f"I7: {text}")
            context.http.close()
            context.http.recorder.close()
            context.server.close(keep_data=bool(context.findings))

    async def warm_up(self) -> dict[str, IdleLevel]:
        """Every kind of job once and their end; what an idle server then holds. Short runs do without."""
        if self.options.minutes < SHORT_MINUTES:
            return {}
        drafts = job_mix.draw_one_of_each(self.context.rng)
        await asyncio.gather(*(self.submitter.submit(draft) for draft in drafts))
        await self.wait_until_drained(60.0)
        return await self.resource_sampler.measure_idle_levels(15.0)

    async def load(self) -> None:
        """Everybody at once, for the time of the run."""
        context, total_s = self.context, self.options.minutes * 60.0
        began, spent = time.monotonic(), _own_cpu_s()
        context.started_mono = began
        tasks = [
            self.submitter.submit_singly(),
            self.submitter.submit_bursts(),
            self.submitter.resolve_periodically(),
            self.user_actions.act_on_jobs(),
            self.user_actions.pause_queues(),
            self.auditor.check_oldest(),
            self.fault_injector.inject_faults(),
            self.resource_sampler.run(),
            restart_on_exit(context),
            self._report_progress(),
            self._run_phases(total_s),
        ]
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(task)
        self.lasted_s = time.monotonic() - began
        self.cpu_share = (_own_cpu_s() - spent + self.resource_sampler.cpu_s) / self.lasted_s

    async def drain(self) -> None:
        """No more kills: what is there comes to its end, and the server is started once more."""
        await self.readers.close()
        for queue in job_mix.QUEUES:
            await self.user_actions.resume(queue)
        while self.context.ledger.unanswered():
            await self.submitter.resolve_unanswered()
            await asyncio.sleep(0.2)
        await self.wait_until_drained(DRAIN_S)
        await self.fault_injector.restart()

    async def wait_until_drained(self, within_s: float) -> None:
        """Back when no job waits or runs."""
        context, until = self.context, time.monotonic() + within_s
        while True:
            try:
                answer = await context.http.request("GET", "/v1/jobs?state=queued&state=running&limit=500")
                if answer.status == 200 and not answer.document()["data"]:
                    return
            except ConnectionLost:
                context.counts["looks at a server that was down"] += 1
            if time.monotonic() > until:
                context.report_violation(
                    f"I7: jobs still wait or run {within_s:g} s after the last one was handed in"
                )
                return
            await asyncio.sleep(0.5)

    async def check(self) -> None:
        """Every job that is left, and that there is none beside them."""
        await self.auditor.find_unknown_jobs()
        await self.auditor.check_remaining(AUDIT_S)
        self.context.http.recorder.record_complete()

    async def judge_history(self) -> None:
        """What the judge, who knows no more than the recorded calls, finds wrong."""
        recorder = self.context.http.recorder
        recorder.close()
        with recorder.path.open(encoding="utf-8") as lines:
            self.verdict = judge(read_history(lines))
        for words in self.verdict.wrong:
            self.context.report_violation(f"judge: {words}")

    async def stop_server(self) -> None:
        """The last stop, and nothing is left."""
        context, server = self.context, self.context.server
        server.is_ending, began = True, time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        if await server.wait(GRACE_S + STOP_SLACK_S) != 0:
            context.report_violation(f"I7: the last stop gave {server.process.poll()}")
        context.http.recorder.record_fault("stop at the end", began)
        if left := await server.wait_until_gone(3.0):
            context.report_violation(f"I6: processes are left at the end: {left}")
        if folders := leftover_runtimes(server):
            context.report_violation(f"I6: runtime folders are left at the end: {folders}")
        for text in server.read_tracebacks():
            context.report_violation(f"I7: the server's log has a traceback: {text}")
        folders_of_jobs = {path.name for path in (server.data / "files").iterdir()} - {INDEX_NAME}
        if strays := folders_of_jobs - self.auditor.kept_jobs:
            context.report_violation(
                f"I6: files of {len(strays)} jobs are left that are not there: {sorted(strays)[:5]}"
            )
        for name in ("tmp", "spool"):
            if rest := sorted(path.name for path in (server.data / name).glob("*")):
                context.report_violation(f"I6: {len(rest)} things are left in {name}/: {rest[:5]}")

    async def _report_progress(self) -> None:
        """A line a minute."""
        context = self.context
        while await context.pause(60.0):
            passed = (time.monotonic() - context.started_mono) / 60.0
            jobs, looked = context.ledger.counts["accepted"], context.counts["jobs looked at"]
            context.print_line(
                f"{passed:4.0f} min: {jobs:,} accepted, {looked:,} looked at, {context.kills.total()} kills, "
                f"{context.server.starts} starts, {context.counts['findings']} findings"
            )

    async def _run_phases(self, total_s: float) -> None:
        """Kills in all of the run but the calm part; then the end."""
        context = self.context
        context.is_calm = False
        await asyncio.sleep(total_s * CALM[0])
        context.is_calm = True
        await asyncio.sleep(total_s * (CALM[1] - CALM[0]))
        context.is_calm = False
        await asyncio.sleep(total_s * (1.0 - CALM[1]))
        context.is_calm = True
        context.is_over.set()


def _own_cpu_s() -> float:
    """CPU time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

"""Effect: what all parts of a run share: the server, the wire to it, the ledger, and what was found."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.soak.execution_stamps import ExecutionStamps
from benchmarks.soak.http_client import HttpClient, SoakResponse
from benchmarks.soak.job_checks import InjectedFaults
from benchmarks.soak.ledger import Ledger, SubmittedJob
from benchmarks.soak.server import SoakServer

#: More would only bury the first ones.
FINDINGS_KEPT = 200
#: What the API may answer with while parts of the server are down or full, or about a job that changed.
CODES = {
    404: {"not_found"},
    409: {"already_finished", "job_not_finished"},
    429: {"queue_full"},
    503: {"shutting_down", "store_unavailable", "unavailable"},
}


@dataclass(slots=True)
class RunContext:
    """The shared state of one run."""

    server: SoakServer
    http: HttpClient
    ledger: Ledger
    stamps: ExecutionStamps
    rng: random.Random
    #: Jobs a second, on average.
    rate: float
    #: Told every broken promise at once, and now and then how far the run is.
    print_line: Callable[[str], None]
    facts: InjectedFaults = field(default_factory=InjectedFaults)
    findings: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    #: Seconds from a kill to the first job that was submitted, run and answered.
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    #: Set when nothing new is to be begun.
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    #: Set while nobody is to be killed.
    is_calm: bool = True
    started_mono: float = field(default_factory=time.monotonic)

    def report_violation(self, text: str) -> None:
        """An invariant is broken."""
        self.counts["findings"] += 1
        if len(self.findings) < FINDINGS_KEPT:
            self.findings.append(f"{time.monotonic() - self.started_mono:7.1f} s  {text}")
            self.print_line(self.findings[-1])

    def report_job_violation(self, entry: SubmittedJob, text: str) -> None:
        """An invariant is broken for a job."""
        self.report_violation(f"{text} ({entry.draft.kind}, job {entry.job_id}, tag {entry.tag})")

    def expect(self, answer: SoakResponse, allowed: set[int], what: str) -> bool:
        """True for a 2xx; every other answer must be an allowed problem with a public code."""
        self.counts[f"status {answer.status}"] += 1
        if answer.status < 300:
            return True
        if answer.status not in allowed | {503} or answer.code not in CODES.get(answer.status, set()):
            self.report_violation(
                f"I7: {what} was answered {answer.status} {answer.code}: {answer.body[:300]!r}"
            )
        return False

    async def pause(self, seconds: float) -> bool:
        """Rest for so long; False as soon as the run is over."""
        try:
            await asyncio.wait_for(self.is_over.wait(), seconds)
        except TimeoutError:
            return True
        return False

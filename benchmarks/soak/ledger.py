"""Pure: what was asked for and what was answered, job by job: the truth that the server is held to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.soak.job_mix import JobDraft


@dataclass(slots=True)
class SubmittedJob:
    """One submitted job, as its client knows it."""

    #: Carried by the job as its tag, so that an unanswered submit can be looked up.
    tag: str
    draft: JobDraft
    sent_at: float
    job_id: str | None = None
    #: accepted: a 2xx was seen. refused: a problem was. unknown: the connection was lost before an answer.
    answer: Literal["unknown", "accepted", "refused"] = "unknown"
    #: A cancel was asked for, whatever was answered.
    cancelled: bool = False
    #: A cancel was answered with 200, and nobody asked for a retry since.
    must_be_cancelled: bool = False
    #: Retries that were answered with 202, and those whose answer was lost.
    retries: int = 0
    retries_unknown: int = 0
    deleted: Literal["no", "maybe", "yes"] = "no"
    #: Requests about it under way: it is not looked at before they are answered.
    busy: int = 0
    #: Its turn to be looked at has come: nobody may change it any more.
    frozen: bool = False
    #: What readers of its stream saw: checksum by sequence number.
    seen: dict[int, int] = field(default_factory=dict)


class Ledger:
    """All entries that were not looked at and let go yet."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._number = 0
        self.entries: dict[str, SubmittedJob] = {}
        self.counts: Counter[str] = Counter()

    def open(self, draft: JobDraft, now: float) -> SubmittedJob:
        """A new entry, before it is sent."""
        self._number += 1
        entry = SubmittedJob(f"{self._prefix}-{self._number}", draft, now)
        self.entries[entry.tag] = entry
        self.counts["sent"] += 1
        return entry

    def mark_accepted(self, entry: SubmittedJob, job_id: str) -> None:
        """A 2xx was seen: from now on the job must be there."""
        entry.job_id = job_id
        entry.answer = "accepted"
        self.counts["accepted"] += 1

    def mark_refused(self, entry: SubmittedJob) -> None:
        """The server said no."""
        entry.answer = "refused"
        self.counts["refused"] += 1

    def mark_found(self, entry: SubmittedJob, job_id: str) -> None:
        """It was not accepted for certain, and is there all the same."""
        entry.job_id = job_id
        self.counts["found"] += 1

    def remove(self, entry: SubmittedJob) -> None:
        """It was looked at, or never arrived."""
        self.entries.pop(entry.tag, None)

    def unanswered(self) -> list[SubmittedJob]:
        """Those of which nobody knows yet whether they are jobs."""
        return [entry for entry in self.entries.values() if entry.job_id is None]

    def known(self) -> list[SubmittedJob]:
        """Those whose job is known, oldest first."""
        return [entry for entry in self.entries.values() if entry.job_id is not None]

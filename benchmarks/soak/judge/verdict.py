"""Pure: what is wrong in a history."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.soak.judge.history import History
from benchmarks.soak.judge.job_rules import judge_job
from benchmarks.soak.judge.list_rules import judge_lists
from benchmarks.soak.judge.stream_rules import judge_streams


@dataclass(slots=True)
class Verdict:
    """All that is wrong, and how much was judged."""

    wrong: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def judge(history: History) -> Verdict:
    """Hold a history against all rules. Each broken one is told as "RULE: what (job ID)"."""
    verdict = Verdict(counts={"jobs": len(history.jobs), **dict(sorted(history.counts.items()))})
    for job in history.jobs.values():
        for words in (*judge_job(job, history), *judge_streams(job, history)):
            verdict.wrong.append(f"{words} (job {job.job})")
    for job_id, words in judge_lists(history):
        verdict.wrong.append(f"{words} (job {job_id})")
    return verdict

"""Effect: processes that store jobs, killed at random moments on a disk that forgets what was not synced."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from runner.jobs.job_query import JobQuery
from runner.stores.sqlite.sqlite_store import SqliteStore
from tests.faults import powercut
from tests.faults.mutate import ROOT, mutated, swapped

ROUNDS = 15
#: Commits one job a batch for ever; prints each number once the store has taken it.
COMMITTER = """
import sys
from runner.jobs.ids import new_id
from runner.jobs.job import Job, JobTerms
from runner.stores.sqlite.sqlite_store import SqliteStore
from runner.stores.store import WriteBatch
store = SqliteStore(sys.argv[1])
epoch = store.take_epoch()
n = store.last_job_number()
while True:
    n += 1
    job = Job(n, new_id(), "echo", "default", 50, 0.0, JobTerms(), 4)
    store.commit(epoch, WriteBatch(inserts=[(job, b'"in"')], outputs=[(n, b'"out"')]))
    store.checkpoint_if_due()
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
"""


def cut_power(folder: Path, tree: Path, commits: int) -> int:
    """Commit, kill, and put back what was synced. Gives the last acknowledged number."""
    data, shadow = folder / "data", folder / "shadow"
    data.mkdir(exist_ok=True)
    env = {**os.environ, **powercut.env(shadow, data), "PYTHONPATH": str(tree)}
    command = [sys.executable, "-P", "-c", COMMITTER, str(data / "runner.db")]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(commits)]
        process.kill()
        # What was printed before the kill came was acknowledged too; a torn last line was not.
        acknowledged += [int(line) for line in process.stdout if line.endswith("\n")]
    powercut.restore(shadow, data)
    return acknowledged[-1]


def lost(folder: Path, acknowledged: int) -> int:
    """How many of the numbers up to `acknowledged` are not there after the cut; the file must be whole."""
    store = SqliteStore(str(folder / "data" / "runner.db"))
    try:
        store.take_epoch()
        kept: set[int] = set()
        cursor = 0
        while page := store.find_jobs(JobQuery(order="asc", cursor=cursor, limit=500)):
            kept |= {job.number for job in page if store.load_payload(job.number, "output") == b'"out"'}
            cursor = page[-1].number
        return len(set(range(1, acknowledged + 1)) - kept)
    finally:
        store.close()


@pytest.mark.slow
def test_no_acknowledged_job_is_lost_to_a_power_cut(tmp_path: Path) -> None:
    chosen = random.Random()
    for _ in range(ROUNDS):
        acknowledged = cut_power(tmp_path, ROOT, chosen.randint(30, 150))
        assert lost(tmp_path, acknowledged) == 0


@pytest.mark.slow
def test_without_synced_commits_jobs_are_lost(tmp_path: Path) -> None:
    tree = mutated(tmp_path, [swapped("synced-commits", "FULL", "NORMAL")])
    acknowledged = cut_power(tmp_path, tree, 100)
    assert lost(tmp_path, acknowledged) > 0

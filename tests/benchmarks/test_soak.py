"""Effect: a short soak run with two planted faults finds them, and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.soak import job_mix, report
from benchmarks.soak.http_client import HttpClient
from benchmarks.soak.ledger import SubmittedJob
from benchmarks.soak.recorder import HistoryRecorder
from benchmarks.soak.soak import Options, Soak

pytestmark = pytest.mark.slow


async def _accepted(soak: Soak) -> SubmittedJob:
    """A job of nobody else's, that has ended."""
    while True:
        entry, answer = await soak.submitter.submit(job_mix.probe_job(), wait_s=10.0)
        if answer is not None and answer.status == 200:
            entry.frozen = True
            return entry


async def _run_with_faults(soak: Soak) -> tuple[SubmittedJob, SubmittedJob]:
    async with asyncio.TaskGroup() as group:
        running = group.create_task(soak.run())
        while not soak.context.server.starts:
            assert not running.done()
            await asyncio.sleep(0.01)
        forgotten, lost = await _accepted(soak), await _accepted(soak)
        soak.context.ledger.remove(forgotten)
        # Over a client of its own, so that the recorded history has no delete.
        recorder = HistoryRecorder(soak.context.server.folder / "others.jsonl")
        http = HttpClient(soak.context.server.port, recorder)
        while (await http.request("DELETE", f"/v1/jobs/{lost.job_id}")).status != 204:
            await asyncio.sleep(0.05)
        http.close()
        recorder.close()
    return forgotten, lost


@pytest.mark.timeout(180)
def test_a_job_without_a_record_and_a_record_without_a_job_are_found(tmp_path: Path) -> None:
    printed: list[str] = []
    soak = Soak(tmp_path, Options(seed=5, minutes=0.1, rate=8.0, kill_every_s=2.0), printed.append)
    forgotten, lost = asyncio.run(_run_with_faults(soak))

    figures = report.build_document(soak)
    strangers = [text for text in figures["findings"] if str(forgotten.job_id) in text]
    missing = [text for text in figures["findings"] if str(lost.job_id) in text]
    assert [text.split("  ")[-1][:3] for text in strangers] == ["I1:"]
    assert [text.split("  ")[-1].split(":")[0] for text in missing] == ["I1", "judge"]
    assert printed == figures["findings"]
    assert sorted(strangers + missing) == sorted(figures["findings"])
    assert figures["counts"]["jobs looked at"] > 5
    assert figures["judged"]["jobs"] > 5 and figures["judged"]["wrong"] == 1
    assert sum(figures["kills"].values()) >= 1
    assert report.print_violations(Console(quiet=True), figures, tmp_path, "") == 1


@pytest.mark.serial
@pytest.mark.timeout(900)
def test_five_minutes_of_kills_break_no_promise(tmp_path: Path) -> None:
    printed: list[str] = []
    soak = Soak(tmp_path, Options(seed=11, minutes=5.0), printed.append)
    asyncio.run(soak.run())
    figures = report.build_document(soak)
    assert figures["findings"] == []
    # One line of progress a minute, and nothing else.
    minutes = [int(line.partition(" min:")[0]) for line in printed]
    assert minutes[:4] == [1, 2, 3, 4]
    assert report.print_violations(Console(quiet=True), figures, tmp_path, "") == 0
    assert sum(figures["kills"].values()) > 10

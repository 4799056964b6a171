"""Bars of tqdm in a real executor become progress events, and no lines of the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.protocol import worker as worker_protocol
from tests.runner.executor.fake_worker import running_executor

LOOPS = """
    def plain(n):
        from tqdm import tqdm
        for _ in tqdm(range(n), desc="denoise", mininterval=0): pass
    def auto(n):
        from tqdm.auto import tqdm, trange
        for _ in trange(n, desc="denoise", mininterval=0): pass
    def subclass(n):
        import tqdm.auto
        class Own(tqdm.auto.tqdm): pass
        with Own(total=n, desc="denoise", mininterval=0, disable=None) as bar:
            for _ in range(n): bar.update()
    def unclosed(n):
        from tqdm import tqdm
        bar = tqdm(total=n, desc="denoise", mininterval=0)
        for _ in range(n): bar.update()
        bar.refresh()
    KEPT = []
    def kept(n):
        from tqdm import tqdm
        KEPT[:] = [tqdm(total=n, desc="denoise", mininterval=0)]
        for _ in range(n): KEPT[0].update()
        KEPT[0].refresh()
    def vanishing(n):
        from tqdm import tqdm
        for _ in tqdm(range(n), desc="denoise", leave=False): pass
    def nested(n):
        from tqdm import tqdm
        for i in tqdm(range(n), desc="denoise", mininterval=0):
            for _ in tqdm(range(10), desc=f"inner {i}", mininterval=0): pass
"""


@pytest.mark.parametrize("attr", ["plain", "auto", "subclass", "unclosed", "kept", "vanishing", "nested"])
def test_the_outermost_bar_is_the_progress_of_the_job(tmp_path: Path, attr: str) -> None:
    with running_executor(tmp_path, LOOPS, attr) as worker:
        for job_id in ("first", "second"):
            assert worker.run(job_id, 200).code is None
            reported = worker.events_of("progress", job_id)
            assert (reported[0]["done"], reported[0]["total"]) == (0, 200)
            assert reported[-1] == {
                "done": 200,
                "total": 200,
                "fraction": 1.0,
                "message": "denoise",
                "details": {},
            }
            assert {event["message"] for event in reported} == {"denoise"}
            lines = [text for _, _, text in worker.logs_of(job_id)]
            assert len(lines) <= 1 and all("200/200" in line for line in lines), lines


def reported_by(folder: Path, body: str, **settings: Any) -> list[Any]:
    code = "from tqdm import tqdm\ndef f(d, ctx):\n" + "".join(f"    {line}\n" for line in body.split("; "))
    with running_executor(folder, code, **settings) as worker:
        assert worker.run().code is None
        return worker.events_of("progress")


def test_a_total_may_be_unknown(tmp_path: Path) -> None:
    last = reported_by(tmp_path, "bar = tqdm(unit='B'); bar.update(7); bar.close()")[-1]
    assert (last["done"], last["total"], last["fraction"], last["message"]) == (7, None, None, None)


def test_a_disabled_bar_reports_nothing(tmp_path: Path) -> None:
    assert reported_by(tmp_path, "list(tqdm(range(9), disable=True))") == []


def test_the_progress_of_the_context_has_precedence(tmp_path: Path) -> None:
    body = "ctx.progress(1, 4); list(tqdm(range(9), mininterval=0)); ctx.progress(2, 4)"
    assert [event["done"] for event in reported_by(tmp_path, body)] == [1, 2]


def test_bars_in_a_file_of_the_handler_are_drawn_there(tmp_path: Path) -> None:
    file = tmp_path / "bar.txt"
    body = f"out = open({str(file)!r}, 'w'); list(tqdm(range(9), file=out)); out.close()"
    assert reported_by(tmp_path, body)[-1]["done"] == 9
    assert "9/9" in file.read_text()


def test_a_bar_of_a_batch_counts_for_every_job(tmp_path: Path) -> None:
    code = "from tqdm import tqdm\ndef f(values: list): return [x for x in tqdm(values)]"
    with running_executor(tmp_path, code, is_batched=True) as worker:
        worker.send(worker_protocol.RunAttempts(7, [worker.attempt("a", 1), worker.attempt("b", 2)]))
        for job_id in ("a", "b"):
            worker.wait_for_end(job_id)
            assert worker.events_of("progress", job_id)[-1]["done"] == 2


def test_each_of_several_coroutines_has_its_own_outermost_bar(tmp_path: Path) -> None:
    code = """
        import asyncio
        from tqdm.auto import tqdm
        BOTH = []
        async def f(n):
            BOTH.append(n)
            for _ in tqdm(range(n), desc=str(n)):
                while len(BOTH) < 2: await asyncio.sleep(0.001)
    """
    with running_executor(tmp_path, code, kind="coroutine", slots=2) as worker:
        worker.send(worker_protocol.RunAttempts(7, [worker.attempt("a", 3), worker.attempt("b", 4)]))
        for job_id, count in (("a", 3), ("b", 4)):
            worker.wait_for_end(job_id)
            last = worker.events_of("progress", job_id)[-1]
            assert (last["done"], last["message"]) == (count, str(count))


def test_written_lines_beside_a_bar_stay_lines(tmp_path: Path) -> None:
    code = """
        from tqdm import tqdm
        def f(d):
            for i in tqdm(range(3), mininterval=0):
                for _ in tqdm(range(2), mininterval=0): tqdm.write(f"step {i}")
    """
    with running_executor(tmp_path, code) as worker:
        worker.run()
        lines = [text for stream, _, text in worker.logs_of() if stream == "stdout"]
        assert lines == [f"step {i}" for i in range(3) for _ in range(2)]
        assert len(worker.logs_of()) == 7


def test_an_executor_without_tqdm_does_not_import_it(tmp_path: Path) -> None:
    code = "import sys\ndef f(d): return sorted(name for name in sys.modules if name.startswith('tqdm'))"
    with running_executor(tmp_path, code) as worker:
        assert worker.run().output == b"[]"

"""Whose lines they are that threads print after their job."""

from __future__ import annotations

from pathlib import Path

from runner.protocol import worker as worker_protocol
from tests.runner.executor.fake_worker import FakeWorker, running_executor

LEAVES_A_THREAD = """
    import logging, threading, time
    turn = threading.Event()
    done = threading.Event()
    def late():
        turn.wait(10)
        print("late")
        print("no end of line", end="")
        logging.warning("late")
        done.set()
        time.sleep(60)
    def f(name):
        print(name)
        if name == "first":
            threading.Thread(target=late, daemon=True).start()
        elif name == "second":
            turn.set()
            assert done.wait(10)
        else:
            thread = threading.Thread(target=print, args=("from a thread",))
            thread.start()
            thread.join()
        return name
"""
POOL = """
    import concurrent.futures, threading
    pool = concurrent.futures.ThreadPoolExecutor(2)
    def f(name):
        list(pool.map(print, [name, name]))
        return name
"""


def texts(worker: FakeWorker, job: str) -> list[str]:
    return [text for _, _, text in worker.logs_of(job)]


def test_lines_of_a_thread_that_a_job_left_behind_are_counted_and_not_logged(tmp_path: Path) -> None:
    with running_executor(tmp_path, LEAVES_A_THREAD) as worker:
        for name in ("first", "second", "third"):
            assert worker.run(name, name).output == b'"%s"' % name.encode()
        assert texts(worker, "first") == ["first"]
        assert texts(worker, "second") == ["second"]
        assert texts(worker, "third") == ["third", "from a thread"]
        assert worker.messages_of(worker_protocol.Leftovers) == [worker_protocol.Leftovers(2)]


def test_threads_of_a_pool_print_for_the_job_that_gave_them_the_task(tmp_path: Path) -> None:
    with running_executor(tmp_path, POOL) as worker:
        for name in ("first", "second"):
            worker.run(name, name)
            assert texts(worker, name) == [name, name]
        assert worker.messages_of(worker_protocol.Leftovers) == []

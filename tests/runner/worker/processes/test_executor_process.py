"""What an executor process shares with its worker."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from runner.worker.processes.executor_process import PAGE_BYTES, ExecutorProcess


def find_page(pid: int) -> str:
    """The path of the descriptor by which the process has the page."""
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        # What the process closes at its start may have gone.
        with contextlib.suppress(FileNotFoundError):
            if "runner-page" in os.readlink(path):
                return path
    raise AssertionError("the process has no page")


def test_the_size_of_the_page_cannot_be_changed_by_its_process() -> None:
    process = ExecutorProcess(["sleep", "60"], dict(os.environ), "r.cpu.1.abc/1")
    try:
        descriptor = os.open(find_page(process.pid), os.O_RDWR)
        try:
            for size in (0, PAGE_BYTES - 1, PAGE_BYTES + 1):
                with pytest.raises(PermissionError):
                    os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)
        assert process.read_page().started == 0
    finally:
        process.signal_group(signal.SIGKILL)
        os.waitid(os.P_PIDFD, process.pidfd, os.WEXITED | os.WNOWAIT)
        assert process.reap() == -signal.SIGKILL
        process.close()

"""Effect: the server as the first process of a namespace of its own, as in a container."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
#: Leaves an orphan that has ended, and tells whether it is still there as a zombie.
PROGRAM = """
import os, subprocess, sys, time
if "aside" in sys.argv:
    from runner.processes.pid1 import fork_from_pid1
    fork_from_pid1()
read, write = os.pipe()
subprocess.run(["sh", "-c", "(exec sleep 0.05) & echo $!"], stdout=write, check=True)
orphan = int(os.read(read, 100))
def state():
    try:
        return open(f"/proc/{orphan}/stat").read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        # Reading the file fails with the second if the process is reaped after the open.
        return "gone"
deadline = time.monotonic() + 10
while state() not in ("gone", "Z") and time.monotonic() < deadline:
    time.sleep(0.01)
# A reaper needs its moment too.
deadline = time.monotonic() + 0.5
while state() == "Z" and time.monotonic() < deadline:
    time.sleep(0.01)
print(state(), flush=True)
sys.exit(7)
"""


def can_unshare() -> bool:
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, timeout=10).returncode == 0
    except FileNotFoundError:
        return False


pytestmark = pytest.mark.skipif(not can_unshare(), reason="this machine lets nobody make a pid namespace")


def run(*words: str) -> tuple[str, int]:
    command = [*UNSHARE, sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return done.stdout.strip(), done.returncode


def test_orphans_are_reaped_and_the_exit_code_is_kept() -> None:
    assert run("aside") == ("gone", 7)


def test_without_it_an_orphan_stays_a_zombie() -> None:
    assert run() == ("Z", 7)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A ready server that is process 1 of its namespace; its parent is `unshare`."""
    ours, theirs = os.pipe()
    command = [*UNSHARE, sys.executable, "-P", "-m", "runner", "serve", "--no-entry-points"]
    flags = ["--data-dir", str(tmp_path / "data"), "--port", "0", "--gpus", "none"]
    environment = os.environ | {"JOB_RUNNER_READY_FD": str(theirs), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, *flags], pass_fds=(theirs,), env=environment, cwd=tmp_path, stderr=subprocess.PIPE
    )
    try:
        os.close(theirs)
        assert select.select([ours], [], [], 30)[0], "the server is not ready"
        assert b'"url"' in os.read(ours, 4096)
        yield process
    finally:
        os.close(ours)
        process.kill()
        process.communicate(timeout=10)


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def test_term_to_process_1_stops_the_server_in_order(served: subprocess.Popen[bytes]) -> None:
    first = child_of(served.pid)
    server = child_of(first)
    os.kill(first, signal.SIGTERM)
    # unshare ends as process 1 did.
    assert served.wait(20) == 0
    assert not os.path.exists(f"/proc/{server}")


def test_server_that_is_killed_is_told_by_the_exit_code(served: subprocess.Popen[bytes]) -> None:
    os.kill(child_of(child_of(served.pid)), signal.SIGKILL)
    assert served.wait(20) == 128 + signal.SIGKILL

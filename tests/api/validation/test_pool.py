"""The pool of processes that validate inputs, with real processes."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from api.validation import pool as pools
from api.validation.input_checker import InputRules
from api.validation.messages import CheckInput
from api.validation.pool import RequestValidation, ValidatorPool
from runner.errors import Unavailable, ValidationTimeout
from tests.api.validation.slow_inputs import INT_LIST, UNION, chain
from tests.faults.mutate import ROOT

INTS = msgspec.json.encode(INT_LIST)
UNIONS = msgspec.json.encode(UNION)
SLOW = msgspec.json.encode(chain(40, "x"))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def closed(pool: ValidatorPool) -> None:
    pool.close()
    await until(lambda: pool.pids == [])


async def find(pool: ValidatorPool, schema: bytes, text: bytes, limit_s: float = 30.0) -> list[str]:
    found = await pool.check(request(schema, text), limit_s)
    return [pointer for pointer, _ in found.faults]


def request(schema: bytes, text: bytes) -> CheckInput:
    return CheckInput(InputRules(schema), text, 50)


def fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_inputs_share_a_process_and_none_is_started_before() -> None:
    async def scenario() -> None:
        pool = ValidatorPool()
        assert pool.pids == []
        assert await find(pool, INTS, b"[1, 2]") == []
        (pid,) = pool.pids
        assert await find(pool, INTS, b'[1, "x", 3, "y"]') == ["/1", "/3"]
        assert await find(pool, b'{"type": "string"}', b"7") == [""]
        assert len(await find(pool, INTS, msgspec.json.encode(["x"] * 100))) == 50
        assert pool.pids == [pid]
        await closed(pool)

    asyncio.run(scenario())


def test_a_process_that_takes_too_long_is_killed_and_replaced() -> None:
    async def scenario() -> None:
        pool = ValidatorPool()
        assert await find(pool, UNIONS, b'{"next": 1}') == ["/next"]
        (slow,) = pool.pids
        before = fds()
        with pytest.raises(ValidationTimeout):
            await find(pool, UNIONS, SLOW, limit_s=0.1)
        await until(lambda: pool.pids == [])
        assert not os.path.exists(f"/proc/{slow}")
        assert await find(pool, INTS, b"[1]") == []
        assert fds() == before
        await closed(pool)

    asyncio.run(scenario())


def test_a_process_that_dies_fails_its_request_alone() -> None:
    async def scenario() -> None:
        pool = ValidatorPool()
        assert await find(pool, INTS, b"[1]") == []
        (pid,) = pool.pids
        running = asyncio.ensure_future(find(pool, UNIONS, SLOW))
        await until(lambda: cpu_time_s(pid) > 0.3)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(Unavailable, match="has ended"):
            await running
        assert await find(pool, INTS, b"[1]") == []
        await closed(pool)

    asyncio.run(scenario())


def test_a_process_that_died_while_idle_is_not_used_again() -> None:
    async def scenario() -> None:
        pool = ValidatorPool()
        assert await find(pool, INTS, b"[1]") == []
        os.kill(pool.pids[0], signal.SIGKILL)
        await until(lambda: pool.pids == [])
        assert await find(pool, INTS, b"[1]") == []
        await closed(pool)

    asyncio.run(scenario())


def test_a_cancelled_request_leaves_no_process_busy() -> None:
    async def scenario() -> None:
        pool = ValidatorPool()
        running = asyncio.ensure_future(find(pool, UNIONS, SLOW))
        await until(lambda: pool.pids != [])
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await until(lambda: pool.pids == [])

    asyncio.run(scenario())


def test_waiting_requests_are_bounded() -> None:
    async def scenario() -> None:
        pool = ValidatorPool()
        waiting = [asyncio.ensure_future(find(pool, INTS, b"[1]")) for _ in range(pools.PENDING_MAX)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="too many"):
            await find(pool, INTS, b"[1]")
        assert await asyncio.gather(*waiting) == [[]] * pools.PENDING_MAX
        assert len(pool.pids) <= pools.PROCESSES_MAX
        assert await find(pool, INTS, b"[1]") == []
        await closed(pool)

    asyncio.run(scenario())


def test_idle_processes_are_ended() -> None:
    async def scenario() -> None:
        pool = ValidatorPool(idle_s=0.05)
        assert await find(pool, INTS, b"[1]") == []
        await until(lambda: pool.pids == [])
        assert await find(pool, INTS, b"[1]") == []
        await closed(pool)
        with pytest.raises(Unavailable, match="shutting down"):
            await find(pool, INTS, b"[1]")

    asyncio.run(scenario())


def test_the_inputs_of_one_request_share_a_limit() -> None:
    async def scenario() -> None:
        pool = ValidatorPool(input_limit_s=0.1)
        validation = RequestValidation(pool, 0.15)
        began = time.monotonic()
        for _ in range(2):
            with pytest.raises(ValidationTimeout):
                await validation.check(request(UNIONS, SLOW))
        lost = pool.pids
        with pytest.raises(ValidationTimeout, match="of this request"):
            await validation.check(request(INTS, b"[1]"))
        assert set(pool.pids) <= set(lost)
        assert time.monotonic() - began < 20
        await closed(pool)

    asyncio.run(scenario())


def test_only_some_bytes_of_a_request_are_searched_inline() -> None:
    async def scenario() -> None:
        validation = RequestValidation(ValidatorPool(), 1.0)
        assert not validation.take_inline(pools.INLINE_FAULTS_MAX_BYTES + 1)
        parts = pools.INLINE_FAULTS_BYTES_MAX // pools.INLINE_FAULTS_MAX_BYTES
        assert all(validation.take_inline(pools.INLINE_FAULTS_MAX_BYTES) for _ in range(parts))
        assert not validation.take_inline(1)

    asyncio.run(scenario())


#: A front in small: it starts a process, has it work without end, and says its pid.
PARENT = f"""
import asyncio
from api.validation.input_checker import InputRules
from api.validation.messages import CheckInput
from api.validation.pool import ValidatorPool

async def main():
    pool = ValidatorPool()
    await pool.check(CheckInput(InputRules({INTS!r}), b"[1]", 1), 30)
    print(*pool.pids, flush=True)
    await pool.check(CheckInput(InputRules({UNIONS!r}), {SLOW!r}, 1), 300)

asyncio.run(main())
"""


def cpu_time_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def dies_with_its_front(root: Path) -> bool:
    env = {**os.environ, "PYTHONPATH": str(root)}
    parent = subprocess.Popen(
        [sys.executable, "-P", "-c", PARENT], stdout=subprocess.PIPE, text=True, env=env
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    busy_s = cpu_time_s(pid) + 0.5
    deadline = time.monotonic() + 20
    while cpu_time_s(pid) < busy_s:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    handle = os.pidfd_open(pid)
    try:
        parent.kill()
        parent.wait()
        return bool(select.select([handle], [], [], 2.0)[0])
    finally:
        os.close(handle)
        if os.path.exists(f"/proc/{pid}"):
            os.kill(pid, signal.SIGKILL)


def test_a_process_at_work_dies_with_its_front() -> None:
    assert dies_with_its_front(ROOT)

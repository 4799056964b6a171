"""Idle executors leave where the host runs short of memory: the least recently used first, pinned last."""

from __future__ import annotations

import pytest

from gpu.memory.host_memory import HostMemory, IdleHostMemory, choose_unloads

MIB = 1 << 20
GIB = 1 << 30


def idle(executor: int, mib: int | None, since: float, *, pinned: bool = False) -> IdleHostMemory:
    return IdleHostMemory(executor, None if mib is None else mib * MIB, since, pinned)


@pytest.mark.parametrize(
    ("total_gib", "short_mib"),
    [(1, 128), (2, 256), (4, 256), (16, 819), (256, 13107)],
)
def test_a_twentieth_stays_available_and_more_of_a_small_host(total_gib: int, short_mib: int) -> None:
    memory = HostMemory(total_gib * GIB, 0)
    assert memory.short_bytes // MIB == short_mib
    assert memory.lacking_bytes == 2 * memory.short_bytes
    assert HostMemory(total_gib * GIB, memory.short_bytes).lacking_bytes == 0


LRU = [idle(1, 100, 5.0), idle(2, 100, 3.0, pinned=True), idle(3, None, 4.0), idle(4, 100, 1.0)]


@pytest.mark.parametrize(
    ("available_mib", "leaving_mib", "expected"),
    [
        (256, 0, []),
        (255, 0, [4, 3, 1]),
        (255, 200, [4]),
        (255, 257, []),
        (0, 0, [4, 3, 1, 2]),
    ],
)
def test_as_many_go_as_are_lacking(available_mib: int, leaving_mib: int, expected: list[int]) -> None:
    memory = HostMemory(4 * GIB, available_mib * MIB)
    assert choose_unloads(memory, LRU, leaving_mib * MIB) == expected


def test_with_nobody_idle_nobody_goes() -> None:
    assert choose_unloads(HostMemory(4 * GIB, 0), [], 0) == []

from __future__ import annotations

import pytest

from gpu.devices.device import sim
from gpu.memory.attribution import AttributionLevel
from gpu.memory.ledger import Ledger
from gpu.planning.overuse import MIB, OveruseTracker, choose_evictions, resolve_overuse, tolerance_bytes
from gpu.scheduling.resident_executor import ResidentExecutor

G = 1 << 30


@pytest.mark.parametrize(
    ("grant", "level", "expected"),
    [(G, "exact", 0), (G, "processes", 128 * MIB), (10 * G, "reports", G // 2), (10 * G, "totals", G // 2)],
)
def test_where_figures_are_exact_there_is_no_tolerance(
    grant: int, level: AttributionLevel, expected: int
) -> None:
    assert tolerance_bytes(grant, level) == expected


def sweeps(*used: int | None, level: AttributionLevel = "processes", grant: int = 4 * G) -> list[bool]:
    overuse = OveruseTracker()
    return [overuse.record_sweep(1, nbytes, grant, level) for nbytes in used]


def test_who_is_over_in_two_sweeps_is_over() -> None:
    assert sweeps(5 * G, 5 * G, 5 * G) == [False, True, True]
    assert sweeps(5 * G, 4 * G, 5 * G, 5 * G) == [False, False, False, True]
    assert sweeps(4 * G + 64 * MIB, 4 * G + 64 * MIB) == [False, False]
    assert sweeps(4 * G, 4 * G + 1, level="exact") == [False, True]
    assert sweeps(None, None) == [False, False]
    assert sweeps(5 * G, 5 * G, grant=0) == [False, False], "nothing was promised"


def test_who_was_dealt_with_is_counted_anew() -> None:
    overuse = OveruseTracker()
    overuse.record_sweep(1, 5 * G, 4 * G, "processes")
    overuse.reset(1)
    assert not overuse.record_sweep(1, 5 * G, 4 * G, "processes")


def test_who_is_gone_is_not_counted_on() -> None:
    overuse = OveruseTracker()
    for executor in (1, 2):
        overuse.record_sweep(executor, 5 * G, 4 * G, "processes")
    overuse.retain({2})
    assert [overuse.record_sweep(each, 5 * G, 4 * G, "processes") for each in (1, 2)] == [False, True]


@pytest.mark.parametrize(
    ("used", "is_ceiling", "verdict", "grant"),
    [(6, False, "raise", 6), (6, True, "kill", 4), (7, False, "kill", 4), (None, False, "raise", 4)],
)
def test_the_one_that_is_over_is_given_more_or_ends(
    used: int | None, is_ceiling: bool, verdict: str, grant: int
) -> None:
    ledger = Ledger()
    ledger.add_device(sim(0, 8 * G))
    ledger.reserve("sim0", 1, 4 * G)
    ledger.reserve("sim0", 2, 2 * G)
    if used is not None:
        ledger.usage.record_total(1, used * G)
    assert resolve_overuse(ledger, 1, is_ceiling=is_ceiling) == verdict
    assert ledger.grant_bytes(1) == grant * G
    assert ledger.charge_bytes(2) == 2 * G


def idle(
    number: int, charge: int, *, grant: int = 4, keep_alive_s: float = 60.0
) -> tuple[ResidentExecutor, int]:
    resident = ResidentExecutor(number, ("h", "1", ""), ("gpu0",), grant, keep_alive_s, None, False)
    return resident, charge


@pytest.mark.parametrize(
    ("short", "expected"), [(0, []), (1, [1]), (3, [1]), (4, [1, 5]), (9, [1, 5]), (-3, [])]
)
def test_the_longest_idle_make_room_as_far_as_it_takes(short: int, expected: list[int]) -> None:
    backlog = [
        idle(1, 3),
        idle(2, 3, keep_alive_s=-1),
        idle(3, 0),
        idle(4, 3, grant=0),
        idle(5, 3),
    ]
    assert choose_evictions(short, backlog) == expected

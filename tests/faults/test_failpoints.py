"""Effect: a fault at every send and every commit of the line, one by one."""

from __future__ import annotations

import ast
import os
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.failpoint_sweep import POINTS as SITE
from tests.faults.failpoint_sweep import FailpointCase, FailpointLane
from tests.faults.failpoints import MILD, ON_GPU, PAIRS, POINTS, find_points, modes_of
from tests.faults.mutate import Change, early, mutated, never, once, replaced
from tests.faults.server_fixture import ROOT

#: `all`, or how the names of points begin that are tried in every mode; else each is tried in one.
POINTS_WANTED = "FAULT_TEST_POINTS"
#: Servers side by side where all is tried, and one more that has a GPU.
LANES = 3
#: The cases of the suite are cut into this many tests, each with a server of its own, and one with a GPU.
SLICES = 6
#: Where bytes leave a process of the server or go into the store; each is wrapped in `points`, or passed on
#: from one that is. A child's config on its lifeline, answers to clients and a validator's findings are no
#: messages of the line: no job and no event is lost with them.
GATES = {
    "api/coordinator/client.py _flush self._transport.write",
    "runner/coordinator/processes/front_pool.py _flush transport.write",
    "runner/coordinator/storage/journal.py _write self._committer.commit",
    "runner/protocol/zmq_router.py send ZmqSocket.send",
    "runner/executor/sender.py _write os.writev",
    "runner/stores/sqlite/access.py send_request self._transport.write",
    "runner/stores/sqlite/access.py commit self._store.commit",
    "runner/stores/sqlite/writer.py _handle_request self._store.commit",
    "runner/stores/sqlite/writer.py run self._stream.sendall",
    "runner/worker/processes/executor_process.py _flush self.channel.send",
    "runner/worker/processes/executor_process.py send self.channel.send",
    "runner/protocol/zmq_socket.py send_parts ZmqSocket.send",
}
OTHERS = {
    "api/validation/process.py _send self._stream.sendall",
    "api/http/connection.py _refuse self.transport.write",
    "api/http/coalescing_transport.py _flush self._transport.write",
    "api/http/coalescing_transport.py write self._transport.write",
    "api/http/coalescing_transport.py write self._transport.writelines",
    "runner/client/network.py write self._socket.sendall",
    "runner/processes/child.py start_child ours.sendall",
}

#: A submit is answered before it is in the store.
EARLY = replaced("answer-when-durable", "on_durable(None)")
#: Who comes back is not asked what it holds.
UNASKED = never("relinked-is-asked")
#: A worker lives on without its server.
WIDOWED = replaced("ends-with-its-server", "return")
#: What was put back by the last server is taken for under way.
CONFUSED = early("flight-of-applied", before="applied-once")
#: Who is over its grant is told of once.
ONCE = once("over-grant-told")


def test_every_message_and_every_kind_of_row_has_its_failpoint() -> None:
    assert {f"{gate}.{name}" for gate, names in POINTS.items() for name in names} == find_points()


def test_every_failpoint_is_one_that_the_code_has() -> None:
    assert find_points() >= ON_GPU
    assert set(MILD) == set(POINTS)
    # A second one may also be any request, or one by its number.
    second = {then for each in PAIRS.values() for _, (then, _) in each}
    numbered = {point for point in second if point.startswith("coordinator>writer.Request")}
    assert {first for each in PAIRS.values() for (first, _), _ in each} | second - numbered <= find_points()


def test_every_gate_is_there_to_be_changed(tmp_path: Path) -> None:
    """A module that was renamed would be left as it is, and its faults would be waited for."""
    env = {**os.environ, "PYTHONPATH": f"{SITE}:{ROOT}", "FAULT_ARMED": str(tmp_path / "none")}
    program = """
import importlib, sitecustomize
changed = []
for name, change in list(sitecustomize.GATES.items()):
    sitecustomize.GATES[name] = lambda module, change=change: changed.append(change(module))
for name in sitecustomize.GATES:
    importlib.import_module(name)
assert len(changed) == len(sitecustomize.GATES), changed
"""
    subprocess.run([sys.executable, "-P", "-c", program], env=env, check=True)


def test_every_place_that_sends_or_commits_is_known() -> None:
    assert set(sends()) == GATES | OTHERS


def sends() -> Iterator[str]:
    """File, function and call of all that hands bytes to another process or rows to a store."""
    for path in sorted(path for folder in ("runner", "api", "gpu") for path in (ROOT / folder).rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    called = ast.unparse(node.func)
                    if is_send(called):
                        yield f"{path.relative_to(ROOT)} {function.name} {called}"


def is_send(called: str) -> bool:
    owner, _, name = called.rpartition(".")
    if name in ("write", "writelines"):
        return owner.endswith("ransport")
    if name == "send":
        return owner.endswith(("ZmqSocket", "channel", "sock", "socket", "stream"))
    return name in ("sendall", "sendmsg", "sendto", "send_multipart", "writev", "commit")


def cases() -> list[FailpointCase]:
    """What is tried. A worker that dies again and again is started later each time: they come mixed."""
    wanted = os.environ.get(POINTS_WANTED)
    if wanted is not None:
        chosen = [case for case in every_case() if wanted == "all" or case.point.startswith(wanted)]
    else:
        chosen = list(sample())
    random.Random(2).shuffle(chosen)
    return chosen


def every_case() -> list[FailpointCase]:
    """Each point in each of its modes."""
    return [FailpointCase(point, mode) for point in sorted(find_points()) for mode in modes_of(point)]


def sample() -> Iterator[FailpointCase]:
    """Each point once, each mode of a gate once; the rest as spares the server a start."""
    for gate, names in POINTS.items():
        for at, name in enumerate(sorted(names)):
            modes = modes_of(f"{gate}.{name}")
            yield FailpointCase(f"{gate}.{name}", modes[at] if at < len(modes) else MILD[gate])


def drive(folder: Path, mine: list[FailpointCase], *, gpus: str = "none") -> list[str]:
    """Run cases one by one on one server; gives what went wrong. After a failure a new server is started."""
    failures: list[str] = []
    if not mine:
        return failures
    lane = FailpointLane(folder / "0", gpus=gpus)
    for at, case in enumerate(mine):
        began = time.monotonic()
        gate, _, name = case.point.partition(".")
        try:
            lane.run(case, POINTS[gate][name])
        except Exception:
            failures.append(f"{case}:\n{traceback.format_exc()}\n{lane.describe_state()}")
            lane.close()
            lane = FailpointLane(folder / str(at + 1), gpus=gpus)
        print(f"{case}: {time.monotonic() - began:.2f} s", flush=True)
    try:
        lane.end()
    except Exception:
        failures.append(f"the end of {folder.name}:\n{traceback.format_exc()}\n{lane.describe_state()}")
    finally:
        lane.close()
    return failures


def slices() -> dict[str, list[FailpointCase]]:
    """What is tried, by test."""
    if POINTS_WANTED in os.environ:
        return {"all": cases()}
    plain = [case for case in cases() if case.point not in ON_GPU]
    found = {f"slice{at}": plain[at::SLICES] for at in range(SLICES)}
    return found | {"gpu": [case for case in cases() if case.point in ON_GPU]}


# A part of what the sweep below does in whole, and a fifth of the time of all other tests.
@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.timeout(3600 if POINTS_WANTED in os.environ else 300)
@pytest.mark.parametrize("chosen", slices().values(), ids=slices().keys())
def test_a_fault_at_any_point_loses_nothing_and_leaves_nothing(
    tmp_path: Path, chosen: list[FailpointCase]
) -> None:
    sweep(tmp_path, chosen, LANES if POINTS_WANTED in os.environ else 1)


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("gate", sorted(POINTS))
def test_every_fault_at_the_points_of_a_gate_loses_nothing(tmp_path: Path, gate: str) -> None:
    chosen = [case for case in every_case() if case.point.startswith(f"{gate}.")]
    random.Random(2).shuffle(chosen)
    sweep(tmp_path, chosen, LANES)


def pairs(first: str) -> list[FailpointCase]:
    """The pairs of faults whose first one kills this kind of process."""
    return [FailpointCase(*one, then=then) for one, then in PAIRS[first]]


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", PAIRS)
def test_a_coordinator_that_dies_after_another_process_loses_nothing(tmp_path: Path, first: str) -> None:
    sweep(tmp_path, pairs(first), 1)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_pair_of_deaths_loses_nothing(tmp_path: Path) -> None:
    """One of each kind of pair, the others in the test above."""
    sweep(tmp_path, [pairs(first)[0] for first in PAIRS], 1)


def sweep(folder: Path, every: list[FailpointCase], houses: int) -> None:
    """Cases in houses side by side; AssertionError with all that went wrong."""
    plain = [case for case in every if case.point not in ON_GPU]
    with ThreadPoolExecutor(houses + 1) as pool:
        lanes = [pool.submit(drive, folder / f"lane{at}", plain[at::houses]) for at in range(houses)]
        on_gpu = [case for case in every if case.point in ON_GPU]
        lanes.append(pool.submit(drive, folder / "gpu", on_gpu, gpus="all"))
        failures = [failure for lane in lanes for failure in lane.result()]
    assert not failures, "\n\n".join(failures)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("guard", "point", "mode", "seen"),
    [
        (EARLY, "coordinator>writer.Commit.inserts", "before", "an accepted job is not there"),
        (UNASKED, "coordinator>worker.RunAttempts", "cut", "ends|it runs"),
        (WIDOWED, "worker>coordinator.AttemptStarted", "lost", "what belonged to a dead server"),
        (CONFUSED, "coordinator>worker.Stop", "cut", "ends"),
        (ONCE, "worker>coordinator.OverGrant", "cut", "it was granted what it uses"),
    ],
)
def test_without_a_guard_the_fault_is_noticed(
    tmp_path: Path, guard: Change, point: str, mode: str, seen: str
) -> None:
    lane = FailpointLane(tmp_path / "lane", tree=mutated(tmp_path, [guard]), end_s=10.0)
    gate, _, name = point.partition(".")
    try:
        with pytest.raises(AssertionError, match=seen):
            lane.run(FailpointCase(point, mode), POINTS[gate][name])
    finally:
        lane.close()

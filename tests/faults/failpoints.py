"""Effect: every point at which the line sends or commits, and what makes it come there."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import not_
from typing import Any, get_args

import apsw

from runner.protocol import front as front_protocol
from runner.protocol import spool
from runner.protocol import worker as worker_protocol
from runner.stores.sqlite import writer_protocol
from runner.stores.store import WriteBatch
from tests.faults.failpoint_sweep import FailpointLane, has_ended
from tests.faults.server_fixture import until
from tests.faults.test_damaged_rows import number_of
from tests.runner.stores.sqlite.test_damaged_rows import damage

#: Ways to lose what was sent: with a peer that dies, or with a link that both ends survive.
MODES = ("before", "after", "lost")
LINKED = (*MODES, "cut")
#: Of each gate a mode that the server itself survives.
MILD = {
    "coordinator>worker": "cut",
    "coordinator>probe": "cut",
    "worker>coordinator": "cut",
    "probe>coordinator": "cut",
    "worker>executor": "lost",
    "executor>worker": "before",
    "front>coordinator": "after",
    "coordinator>front": "lost",
    "coordinator>writer": "lost",
    "writer>coordinator": "before",
    "spool": "before",
}


# What is done besides the usual load.


def usual(lane: FailpointLane) -> None:
    """Submits, waits, a cancel and two streams are enough."""


@contextmanager
def gated(lane: FailpointLane, handler: str = "work", *, grow: int = 0) -> Iterator[None]:
    """A job runs meanwhile."""
    gate = lane.server_fixture.folder / f"gate-{lane.rounds}"
    job_id = lane.submit(handler, gate=str(gate), grow=grow)
    lane.await_job(job_id, lambda job: bool(job["progress"]), "it runs")
    yield
    gate.touch()


def in_time(lane: FailpointLane) -> None:
    """It comes by itself while a job runs."""
    with gated(lane):
        until(lane.has_fired, "it comes in time", within_s=lane.end_s)


def grow(lane: FailpointLane) -> None:
    """An executor uses more memory than it did."""
    with gated(lane, grow=32 << 20):
        until(lane.has_fired, "it is told in time", within_s=lane.end_s)


def restart(lane: FailpointLane) -> None:
    """The server is killed and started again."""
    with gated(lane):
        lane.stop(signal.SIGKILL)
        lane.live_server()


def stop(lane: FailpointLane) -> None:
    """The server is stopped in order and started again."""
    with gated(lane):
        lane.stop(signal.SIGTERM)
        lane.live_server()


def load(lane: FailpointLane) -> None:
    """Executors come and go: one that is not kept, and one that can't be loaded."""
    for handler, end in (("fleeting", "succeeded"), ("unloadable", "failed"), ("fleeting", "succeeded")):
        job_id = lane.submit(handler, end, options={"retries": 0} if end == "failed" else {})
        lane.await_job(job_id, has_ended, "it ends")


def stage(lane: FailpointLane) -> None:
    """Quick jobs stand in line behind one that turns out to be long."""
    for _ in range(3):
        ids = [lane.submit("work") for _ in range(8)]
        lane.await_job(ids[-1], lambda job: job["state"] == "succeeded", "quick ones end")
    gate = lane.server_fixture.folder / f"gate-{lane.rounds}"
    lane.submit_many([{"gate": str(gate)}, {"gate": str(gate)}, *[{}] * 20])
    until(lane.has_fired, "they are recalled", within_s=lane.end_s)
    gate.touch()


def spill(lane: FailpointLane) -> None:
    """C code prints just before an attempt ends, until the worker has not read it by then."""
    end = time.monotonic() + lane.end_s
    while not lane.has_fired() and time.monotonic() < end:
        lane.await_job(lane.submit("work", print=True), has_ended, "it ends")


def leave(lane: FailpointLane) -> None:
    """An attempt ends, and a child that it started runs on."""
    lane.await_job(lane.submit("work", leave=True), has_ended, "it ends")


def talk(lane: FailpointLane) -> None:
    """More events than are kept."""
    lane.submit("work", talk=100)


def allocate(lane: FailpointLane) -> None:
    lane.submit("work", allocate="1MiB")


def ask(lane: FailpointLane) -> None:
    """A job opens what another one has saved."""
    job_id = lane.submit("work", save=True)
    job = lane.await_job(job_id, lambda job: job["state"] == "succeeded", "it has saved a file")
    lane.submit("work", open=job["output"]["file"])


def delete(lane: FailpointLane) -> None:
    job_id = lane.submit("work")
    lane.await_job(job_id, lambda job: job["state"] == "succeeded", "it ends")
    lane.delete(job_id)


def damage_row(lane: FailpointLane) -> None:
    """The row of an ended job holds garbage, which a look at the job finds; the job can be deleted only."""
    job_id = lane.submit("work")
    lane.await_job(job_id, has_ended, "it ends")
    database = lane.server_fixture.data / "runner.db"

    def is_damaged() -> bool:
        try:
            return damage(database, "jobs", "body", number_of(database, job_id), b"\xc1")
        except apsw.BusyError:
            # The server has the file to itself now.
            return False

    def is_found() -> bool:
        return lane.ask("GET", f"/v1/jobs/{job_id}").status_code == 410 and lane.has_fired()

    until(is_damaged, "the row holds garbage", within_s=lane.end_s)
    until(is_found, "the row is found", within_s=lane.end_s)
    lane.delete(job_id)


def wait(lane: FailpointLane) -> None:
    """A stream is read whose job waits, for one reason and then for another."""
    queue, gate = f"queue-{lane.rounds}", lane.server_fixture.folder / f"gate-{lane.rounds}"
    for running in [lane.submit("work", options={"queue": queue}, gate=str(gate)) for _ in range(2)]:
        lane.await_job(running, lambda job: bool(job["progress"]), "both executors are busy")
    job_id = lane.submit("work", options={"queue": queue})
    followed = lane.follow(job_id)
    until(lambda: lane.seen.get(job_id), "the stream is read", within_s=lane.end_s)
    assert lane.ask("POST", f"/v1/queues/{queue}/pause").status_code == 200
    until(lane.has_fired, "the reason is told", within_s=lane.end_s)
    assert lane.ask("POST", f"/v1/queues/{queue}/resume").status_code == 200
    gate.touch()
    followed.result(lane.end_s)


def pause(lane: FailpointLane) -> None:
    for verb in ("pause", "resume"):
        assert lane.ask("POST", f"/v1/queues/default/{verb}").status_code == 200


def follow(lane: FailpointLane) -> None:
    """A stream is read while its job runs, to its end."""
    with gated(lane):
        job_id = lane.accepted[-1].job_id
        followed = lane.follow(job_id)
        until(lambda: lane.seen.get(job_id), "the stream is read", within_s=lane.end_s)
    followed.result(lane.end_s)


def reload(lane: FailpointLane) -> None:
    assert lane.ask("POST", "/v1/handlers/reload").status_code in (200, 202)


def look(lane: FailpointLane) -> None:
    assert lane.ask("GET", "/v1/jobs").json()["data"]
    assert lane.ask("GET", "/v1/queues/default").status_code == 200


def describe(lane: FailpointLane) -> None:
    """A job comes for a handler that is still being imported."""
    gate = lane.server_fixture.folder / f"described-{lane.rounds}"
    lane.add_source(f"{LATE.format(number=lane.rounds, gate=str(gate), load='pass')}\nwait()\n")
    lane.stop(signal.SIGKILL)
    submitted = lane.pool.submit(lane.submit, f"late-{lane.rounds}")
    until(lane.has_fired, "the handler is asked for", within_s=lane.end_s)
    gate.touch()
    submitted.result(lane.end_s)


#: A module whose handler may wait for a file before it is loaded, or which waits itself.
LATE = """
import os, time
from runner import handler
def wait():
    while not os.path.exists({gate!r}):
        time.sleep(0.01)
@handler("late-{number}", gpus=0)
class Late:
    def load(self, ctx):
        {load}
    def run(self, data, ctx):
        for times in range(1, 9):
            try:
                open(f"{{data['marks']}}/{{ctx.job_id}}.{{ctx.attempt}}.{{times}}", "x").close()
                return {{"attempt": ctx.attempt}}
            except FileExistsError:
                continue
"""


#: A module whose handler runs two attempts side by side.
ASIDE = """
import asyncio
from runner import handler
@handler("aside-{number}", slots=2)
async def aside(data, ctx):
    for times in range(1, 9):
        await asyncio.sleep(0.01)
        try:
            open(f"{{data['marks']}}/{{ctx.job_id}}.{{ctx.attempt}}.{{times}}", "x").close()
            return {{"attempt": ctx.attempt}}
        except FileExistsError:
            continue
"""


def side_by_side(lane: FailpointLane) -> None:
    """Two coroutines run in one executor."""
    lane.add_source(ASIDE.format(number=lane.rounds))
    lane.stop(signal.SIGKILL)
    ids = [lane.submit(f"aside-{lane.rounds}") for _ in range(2)]
    for job_id in ids:
        lane.await_job(job_id, has_ended, "it ends")


#: A module whose handler uses more than it was promised, and ends when it was promised that.
MORE = """
import time
from runner import handler
@handler("more-{number}", vram="64MiB")
def more(data, ctx):
    for times in range(1, 9):
        try:
            open(f"{{data['marks']}}/{{ctx.job_id}}.{{ctx.attempt}}.{{times}}", "x").close()
            break
        except FileExistsError:
            continue
    kept = bytearray(b"x" * (96 << 20))
    while ctx.vram_bytes < len(kept):
        time.sleep(0.005)
    return {{"attempt": ctx.attempt}}
"""


def need(lane: FailpointLane) -> None:
    """An executor uses more than its grant, and waits to be told of a larger one. It is of a handler that
    nothing was learned of yet."""
    lane.add_source(MORE.format(number=lane.rounds))
    lane.stop(signal.SIGKILL)
    lane.await_job(lane.submit(f"more-{lane.rounds}"), has_ended, "it was granted what it uses")


def use_gpu(lane: FailpointLane) -> None:
    """An executor on a GPU tells its processes: what they use is charged to it, and to nobody else."""

    def is_seen() -> bool:
        (gpu,) = (each for each in lane.ask("GET", "/v1/devices").json()["data"] if each["id"] == "gpu0")
        used = [each["resident_bytes"] or 0 for each in gpu["executors"]]
        return sum(used) >= 1 << 30 and gpu["level"] == "processes" and not gpu["foreign_bytes"]

    with gated(lane, "fleeting_on_gpu"):
        until(is_seen, "its bytes are known for its own", within_s=lane.end_s)


def by_hand(lane: FailpointLane) -> None:
    """An executor is loaded without a job, and unloaded; neither it nor the wish for it stays."""
    for verb, is_done in (("load", bool), ("unload", not_)):
        assert lane.ask("POST", f"/v1/handlers/echo/{verb}").status_code in (200, 202)

        def is_so(is_done: Callable[[object], bool] = is_done) -> bool:
            handler = lane.ask("GET", "/v1/handlers/echo").json()
            return not handler["waiting"] and is_done(handler["executors"])

        until(is_so, f"it is {verb}ed", within_s=lane.end_s)


def drain(lane: FailpointLane) -> None:
    """A device takes no work any more, also of another server, and takes it again."""

    def is_drained() -> bool:
        return bool(lane.ask("GET", "/v1/devices").json()["data"][0]["drained"])

    assert lane.ask("POST", "/v1/devices/cpu/drain").status_code == 200
    assert is_drained()
    lane.stop(signal.SIGKILL)
    assert is_drained()
    assert lane.ask("POST", "/v1/devices/cpu/resume").status_code == 200
    assert not is_drained()


def see(lane: FailpointLane) -> None:
    """A front starts, and is told how much is known of the devices' memory."""
    restart(lane)
    until(lambda: lane.ask("GET", "/healthz").json().get("level") == "exact", "it knows", within_s=lane.end_s)


def replace(lane: FailpointLane) -> None:
    """A handler is changed while an executor still loads it."""
    gate = lane.server_fixture.folder / f"loaded-{lane.rounds}"
    text = LATE.format(number=lane.rounds, gate=str(gate), load="wait()")
    source = lane.add_source(text)
    lane.stop(signal.SIGKILL)
    job_id = lane.submit(f"late-{lane.rounds}")
    lane.await_job(job_id, lambda job: job["reason"] == "loading", "an executor loads")
    source.write_text(f"{text}# changed\n")
    reload(lane)
    until(lane.has_fired, "the executor is killed", within_s=lane.end_s)
    gate.touch()


Way = Callable[[FailpointLane], None]

#: Gate -> message -> how it is made to pass. A message that is new in the code must be given its way here.
POINTS: dict[str, dict[str, Way]] = {
    "coordinator>worker": {
        "LoadExecutor": load,
        "RunAttempts": usual,
        "CancelAttempt": usual,
        "RecallAttempts": stage,
        "UnloadExecutor": load,
        "KillExecutor": replace,
        "SetGrant": need,
        "Ack": usual,
        "AttemptReply": ask,
        "Stop": stop,
        "WorkerPing": in_time,
    },
    "coordinator>probe": {"Stop": stop},
    "worker>coordinator": {
        "Hello": restart,
        "ExecutorLoaded": load,
        "AttemptStarted": usual,
        "AttemptEvents": usual,
        "AttemptEnded": usual,
        "AttemptsRecalled": usual,
        "ExecutorGone": usual,
        "ExecutorUsage": grow,
        "OverGrant": need,
        "ExecutorProcesses": use_gpu,
        "AttemptRequest": ask,
        "WorkerPong": in_time,
    },
    "probe>coordinator": {"Hello": restart, "DevicesFound": restart, "DeviceReadings": in_time},
    "worker>executor": {
        "ConfigureExecutor": load,
        "RunAttempts": usual,
        "RequestCancel": usual,
        "RaiseCancelled": usual,
        "RecallAttempts": usual,
        "UnloadExecutor": load,
        "SetGrant": need,
        "AttemptReply": ask,
    },
    "executor>worker": {
        "ExecutorLoaded": load,
        "LoadFailed": load,
        "AttemptEvents": usual,
        "AttemptEnded": usual,
        "AttemptsRecalled": stage,
        "AttemptRequest": ask,
        "SimulatedAllocation": allocate,
        "OutputMark": spill,
        "SlotStarted": side_by_side,
        "Leftovers": leave,
    },
    "front>coordinator": {
        "SubmitJobs": usual,
        "GetJob": usual,
        "ListJobs": look,
        "JobAction": usual,
        "GetDocument": look,
        "SetQueue": pause,
        "SetDevice": drain,
        "LoadHandler": by_hand,
        "UnloadHandler": by_hand,
        "AwaitHandler": describe,
        "ReadEvents": usual,
        "SubscribeEvents": follow,
        "UnsubscribeEvents": follow,
        "FrontHello": restart,
        "ReloadHandlers": reload,
        "Pong": in_time,
    },
    "coordinator>front": {
        "Reply": usual,
        "EventPage": usual,
        "JobEvents": follow,
        "JobWaiting": wait,
        "HandlersUpdate": restart,
        "MemoryLevel": see,
        "ShutdownBegun": stop,
        "Exit": stop,
        "Ping": in_time,
    },
    "coordinator>writer": {
        "TakeEpoch": restart,
        "Commit.inserts": usual,
        "Commit.updates": usual,
        "Commit.outputs": usual,
        "Commit.events": usual,
        "Commit.trims": talk,
        "Commit.deletes": delete,
        "Commit.values": pause,
        "Commit.damaged": damage_row,
    },
    "writer>coordinator": {"TakeEpoch": restart, "Commit": usual},
    "spool": {"write_spool": restart, "remove_spool": restart},
}

#: Requests to the store in which a start takes its epoch, stores what it recovered, and takes up its work.
RECOVERY_REQUESTS = range(1, 5)
#: A coordinator that dies with a job under way, so that the next one has something to recover.
FIRST_DEATH = ("coordinator>writer.Commit.updates", "before")
#: Which process dies first -> the first fault and the one that follows it, which kills the coordinator.
PAIRS: dict[str, list[tuple[tuple[str, str], tuple[str, str]]]] = {
    # The coordinator dies with the first commit of the writer that replaces the dead one.
    "writer": [
        (first, then)
        for first in (("coordinator>writer.Commit.updates", "lost"), ("writer>coordinator.Commit", "before"))
        for then in (
            ("coordinator>writer.Request", "before"),
            ("coordinator>writer.Request", "after"),
            ("writer>coordinator.Commit", "lost"),
        )
    ],
    # It dies when it has heard of the worker's end: as it stores that, or as it starts the attempt again.
    "worker": [
        (first, then)
        for first in (
            ("worker>coordinator.AttemptStarted", "after"),
            ("worker>coordinator.AttemptEnded", "before"),
        )
        for then in (
            ("coordinator>writer.Commit.updates", "before"),
            ("coordinator>writer.Commit.updates", "after"),
            ("coordinator>worker.LoadExecutor", "after"),
        )
    ],
    # It dies again at each commit of its recovery.
    "coordinator": [
        (FIRST_DEATH, (f"coordinator>writer.Request.{number}", mode))
        for number in RECOVERY_REQUESTS
        for mode in MODES
    ],
    # It dies with a request that the dead front had passed on, or with the one that is made again.
    "front": [
        (first, then)
        for first in (("front>coordinator.SubmitJobs", "after"), ("coordinator>front.Reply", "lost"))
        for then in (
            ("coordinator>writer.Commit.inserts", "before"),
            ("coordinator>writer.Commit.inserts", "after"),
            ("coordinator>front.Reply", "before"),
        )
    ],
}

#: What is told of GPUs alone: these are come to in a server_fixture that has one.
ON_GPU = {"worker>coordinator.ExecutorProcesses"}


def modes_of(point: str) -> tuple[str, ...]:
    """The faults that can be done at a point."""
    if point == "spool.remove_spool":
        return ("before", "after")
    return LINKED if MILD[point.partition(".")[0]] == "cut" else MODES


def find_points() -> set[str]:
    """The points that the code has: one for each type of message, of request and of rows."""
    from_probe = {worker_protocol.Hello, worker_protocol.DevicesFound, worker_protocol.DeviceReadings}
    # The last request of a server whose file is gone: what it keeps is checked where files are removed.
    requests = set(get_args(writer_protocol.Request)) - {writer_protocol.SaveCopy}
    up = set(get_args(worker_protocol.FromWorker)) - {worker_protocol.NumberedFrame}
    gates: dict[str, Any] = {
        "coordinator>worker": get_args(worker_protocol.ToWorker),
        "coordinator>probe": {worker_protocol.Stop},
        "worker>coordinator": up - from_probe | {worker_protocol.Hello},
        "probe>coordinator": from_probe,
        "worker>executor": get_args(worker_protocol.ToExecutor),
        "executor>worker": get_args(worker_protocol.FromExecutor),
        "front>coordinator": get_args(front_protocol.ToCoordinator),
        "coordinator>front": get_args(front_protocol.ToFront),
        "writer>coordinator": requests,
        "coordinator>writer": requests - {writer_protocol.Commit},
    }
    names = {f"{gate}.{kind.__name__}" for gate, kinds in gates.items() for kind in kinds}
    commits = {f"coordinator>writer.Commit.{rows}" for rows in WriteBatch.__struct_fields__}
    spools = {f"spool.{each.__name__}" for each in (spool.write_spool, spool.remove_spool)}
    return names | commits | spools

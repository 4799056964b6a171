"""Pure: every message between coordinator and worker, and between worker and executor.

Upward messages that must not be lost travel in a frame headed by `NumberedFrame`: the worker keeps them until
the coordinator replies `Ack(seq)`, after the commit that contains them. After a reconnect the worker sends
them again; if the coordinator is gone it leaves them in the spool. The receiver drops messages that it has
already applied, so each takes effect exactly once.
"""

from __future__ import annotations

from typing import Any

import msgspec

from runner.handlers.spec import HandlerSpec, Source
from runner.jobs.job import FileRecord
from runner.protocol.framing import WireError

#: Incremented when a message changes its meaning; sent in `Hello`.
PROTOCOL = 1  # guard: protocol


class AttemptSpec(msgspec.Struct, array_like=True):
    """One attempt to run."""

    job_id: str
    attempt: int
    handler: str
    #: JSON text.
    input: bytes
    timeout_s: float | None = None
    stall_timeout_s: float | None = None
    grace_s: float = 0.5


# Coordinator to worker.


class LoadExecutor(msgspec.Struct, array_like=True, tag=1):
    """Start an executor. Its first attempts may follow in the same frame, as `RunAttempts`."""

    executor: int
    handler: HandlerSpec
    #: Ids of the devices it is pinned to ("gpu0"), and the environment that makes only these visible.
    devices: list[str]
    env: dict[str, str]
    #: Value of `ctx.device`: "cuda:0" or "cpu".
    device: str
    #: Granted device memory (0: no grant) and the cap on host memory (None: no cap).
    grant_bytes: int = 0
    ram_cap_bytes: int | None = None
    #: Bytes that torch may reserve on each device. None: no limit.
    cap_bytes: int | None = None
    load_timeout_s: float | None = None
    model: str = ""


class RunAttempts(msgspec.Struct, array_like=True, tag=2):
    """Run these attempts one after the other; all but the first are staged until the one before ends.

    If the handler takes batches they are one batch: one call, in which all of them start together.
    """

    executor: int
    attempts: list[AttemptSpec]


class CancelAttempt(msgspec.Struct, array_like=True, tag=3):
    """End one attempt by the kill ladder; with a negative `grace_s` at once.

    `code` becomes its error code.
    """

    job_id: str
    attempt: int
    code: str
    message: str
    grace_s: float = 0.5


class RecallAttempts(msgspec.Struct, array_like=True, tag=4):
    """Return the attempts staged at this executor; answered by `AttemptsRecalled`."""

    executor: int


class UnloadExecutor(msgspec.Struct, array_like=True, tag=5):
    """Unload an idle executor: call the handler's `unload`, then exit. It is killed after 5 s."""

    executor: int


class KillExecutor(msgspec.Struct, array_like=True, tag=6):
    """SIGKILL an executor; with `only_if_idle`, not if an attempt has started in it."""

    executor: int
    code: str
    message: str
    detail: Any = None
    only_if_idle: bool = True


class Ack(msgspec.Struct, array_like=True, tag=7):
    """All messages up to `seq` are durable."""

    seq: int


class AttemptReply(msgspec.Struct, array_like=True, tag=8):
    """Reply to an `AttemptRequest`; forwarded to the executor. `error` is (code, message)."""

    request_id: int
    executor: int
    result: Any = None
    error: tuple[str, str] | None = None


class Stop(msgspec.Struct, array_like=True, tag=9):
    """Shut down the worker: running attempts end by the ladder as `interrupted`, then it exits with 0."""


class SetGrant(msgspec.Struct, array_like=True, tag=11):
    """Change the bytes that the executor may use on each of its devices, and that torch may reserve there.

    Forwarded to the executor.
    """

    executor: int
    grant_bytes: int
    cap_bytes: int | None = None


class WorkerPing(msgspec.Struct, array_like=True, tag=12):
    """Answered at once by `WorkerPong`; a worker that leaves too many unanswered is replaced."""


# Worker to coordinator.


class Hello(msgspec.Struct, array_like=True, tag=20):
    """First message on every connection. Work that its last three fields do not list never arrived."""

    protocol: int
    token: str
    node: str
    role: str  # "worker" or "probe"
    name: str
    pid: int
    epoch: int
    #: Attempts whose end has not been reported.
    running: list[tuple[str, int]] = msgspec.field(default_factory=list)
    #: Executors that are alive.
    executors: list[int] = msgspec.field(default_factory=list)
    #: Number of the latest message that must not be lost.
    last_seq: int = 0


class ExecutorLoaded(msgspec.Struct, array_like=True, tag=21):
    """The executor has loaded its handler and accepts attempts."""

    executor: int
    load_s: float
    resident_bytes: int | None = None
    #: On a GPU: bytes that torch has reserved on the device where it has most (None: torch does not use it
    #: yet), and the version of torch (None: not imported).
    reserved_bytes: int | None = None
    torch: str | None = None


class AttemptStarted(msgspec.Struct, array_like=True, tag=22):
    """The attempt is running; sent 20 ms after its start, or at once if nothing is staged."""

    job_id: str
    attempt: int
    #: UTC epoch seconds.
    at: float


class AttemptEvents(msgspec.Struct, array_like=True, tag=23):
    """Events of a running attempt.

    Each is (type, at, data), with `data` the JSON text of the event's own fields as one object
    (`{"done":3,"total":10,...}`). `seq` numbers the messages of one attempt from 1, `AttemptEvents` and the
    `AttemptEnded` together.
    """

    job_id: str
    attempt: int
    seq: int
    events: list[tuple[str, float, bytes]]


class AttemptEnded(msgspec.Struct, array_like=True, tag=24):
    """The only end of an attempt, reported by its executor or, if that died, by its worker."""

    job_id: str
    attempt: int
    seq: int
    #: None for success, otherwise one of job.ErrorCode.
    code: str | None
    message: str = ""
    detail: Any = None
    #: Whether a retry is allowed at all.
    retryable: bool = True
    #: From `raise Retry(...)`: earliest start of the next attempt, UTC epoch seconds.
    retry_at: float | None = None
    #: JSON text of the output on success.
    output: bytes | None = None
    files: list[FileRecord] = msgspec.field(default_factory=list)
    started_at: float | None = None
    run_s: float | None = None
    load_s: float | None = None
    peak_bytes: int | None = None
    #: The executor died during the attempt.
    executor_died: bool = False
    #: The executor accepts no more attempts: it is dead or about to exit.
    executor_closing: bool = False
    #: The executor retains far more memory than after its first job: it should be replaced.
    has_memory_grown: bool = False
    #: On a GPU: bytes that torch has reserved now, and their peak in `peak_bytes`; both exclude the context.
    reserved_bytes: int | None = None
    #: Number of attempts in the same call: 1, or the size of the batch.
    batch_size: int = 1
    #: All attempts of the batch or of the executor ended together, and any of them may be the culprit.
    is_blame_unknown: bool = False


class AttemptsRecalled(msgspec.Struct, array_like=True, tag=25):
    """These attempts were returned: they have not started and will not start."""

    executor: int
    attempts: list[tuple[str, int]]


#: Code of the first `ExecutorGone` of a process that survives SIGKILL; a second one follows when it is gone.
STUCK = "stuck_process"


class ExecutorGone(msgspec.Struct, array_like=True, tag=26):
    """The executor's process tree has ended and was reaped.

    Sent after the `AttemptEnded` of the attempt that was running. The `not_started` attempts will not start.
    """

    executor: int
    code: str
    message: str
    not_started: list[tuple[str, int]] = msgspec.field(default_factory=list)
    #: Machine-readable cause, as for an attempt; the only cause of a failed load that no attempt asked for.
    detail: Any = None


class ExecutorUsage(msgspec.Struct, array_like=True, tag=27):
    """Bytes that each executor uses now: PSS on cpu, the total of `testing.allocate` on sim."""

    executors: list[tuple[int, int]]


class OverGrant(msgspec.Struct, array_like=True, tag=33):
    """The executor uses more than its grant; `used_bytes` is the sum over its devices.

    The executor continues until `SetGrant` or `KillExecutor` arrives; the message is repeated until then.
    """

    executor: int
    used_bytes: int


class DeviceReadings(msgspec.Struct, array_like=True, tag=28):
    """Readings of the probe.

    (device id, total, used, free) in bytes, and (device id, pid, its bytes there), None if the driver does
    not report them.
    """

    devices: list[tuple[str, int, int, int]]
    processes: list[tuple[str, int, int | None]] = msgspec.field(default_factory=list)
    #: Device id -> description of its fault.
    faults: dict[str, str] = msgspec.field(default_factory=dict)
    #: (device id, Xid) of errors reported by GPUs since the last message, see `gpu.devices.xid_codes`.
    xids: list[tuple[str, int]] = msgspec.field(default_factory=list)


class ExecutorProcesses(msgspec.Struct, array_like=True, tag=32):
    """All processes of an executor on a GPU, sent when they change: its memory is their sum."""

    executor: int
    pids: list[int]


class DevicesFound(msgspec.Struct, array_like=True, tag=29):
    """Devices that the probe found at its start, or the error that prevented it.

    One dict per device, with the fields of `gpu.devices.device.Device`.
    """

    devices: list[dict[str, Any]]
    notes: list[str] = msgspec.field(default_factory=list)
    error: str | None = None
    #: Version of the driver.
    driver: str = ""


class AttemptRequest(msgspec.Struct, array_like=True, tag=30):
    """A handler's request to the coordinator (`op` "file": the path of a file id).

    Answered by `AttemptReply`.
    """

    request_id: int
    executor: int
    job_id: str
    attempt: int
    op: str
    argument: Any = None


class NumberedFrame(msgspec.Struct, array_like=True, tag=31):
    """Precedes the messages of an upward frame, which are numbered `first`, `first` + 1, ..."""

    first: int


class WorkerPong(msgspec.Struct, array_like=True, tag=34):
    """The answer to `WorkerPing`: the worker's loop runs."""


# Worker to executor. `RunAttempts`, `RecallAttempts`, `UnloadExecutor` and `AttemptReply` are forwarded.


class ConfigureExecutor(msgspec.Struct, array_like=True, tag=40):
    """First message to a fresh executor: what to load, and the limits of its attempts."""

    executor: int
    source: Source
    name: str
    kind: str
    devices: list[str]
    device: str
    grant_bytes: int
    files_dir: str
    tmp_dir: str
    output_max_bytes: int
    log_max_bytes: int
    events_max: int
    model: str = ""
    cap_bytes: int | None = None
    #: `RunAttempts` is one batch; otherwise `slots` is the number of attempts that run concurrently.
    is_batched: bool = False
    slots: int = 1


class RequestCancel(msgspec.Struct, array_like=True, tag=41):
    """First rung of the ladder: set ctx.cancelled, call on_cancel, cancel a coroutine."""

    job_id: str
    attempt: int
    reason: str


class RaiseCancelled(msgspec.Struct, array_like=True, tag=42):
    """Second rung: raise JobCancelled in the main thread; the executor exits afterwards.

    An executor with slots exits at once.
    """

    job_id: str
    attempt: int


# Executor to worker. `AttemptEvents`, `AttemptEnded`, `ExecutorLoaded`, `AttemptsRecalled` and
# `AttemptRequest` are forwarded to the coordinator.


class LoadFailed(msgspec.Struct, array_like=True, tag=50):
    """The load failed with `code` load_error, device_out_of_memory or invalid_handler.

    The executor then exits.
    """

    executor: int
    code: str
    message: str
    detail: Any = None


class SimulatedAllocation(msgspec.Struct, array_like=True, tag=51):
    """Simulated device bytes that the executor uses now, from `runner.testing.allocate`."""

    executor: int
    nbytes: int


class OutputMark(msgspec.Struct, array_like=True, tag=52):
    """Precedes the `AttemptEnded` of an attempt that left bytes in its output pipes.

    The worker withholds the `AttemptEnded` until it has read `marker` from these pipes, 50 ms at most.
    """

    job_id: str
    attempt: int
    marker: bytes
    stdout: bool
    stderr: bool


class SlotStarted(msgspec.Struct, array_like=True, tag=53):
    """In an executor with slots: the attempt has run since `at_mono`, in this slot of the shared page."""

    job_id: str
    attempt: int
    at_mono: float
    slot_index: int


class Leftovers(msgspec.Struct, array_like=True, tag=54):
    """What ended attempts have left in the executor; follows the `AttemptEnded` after which it was found."""

    #: Lines that threads of earlier attempts have printed or logged since the last such message. They belong
    #: to no attempt and were dropped; the worker logs the number.
    thread_lines: int = 0
    #: Child processes that share the output pipes still run: what the pipes carry from now on belongs to no
    #: attempt for certain, and the worker logs it as its own. None: unchanged.
    are_children_left: bool | None = None


ToWorker = (
    LoadExecutor
    | RunAttempts
    | CancelAttempt
    | RecallAttempts
    | UnloadExecutor
    | KillExecutor
    | SetGrant
    | Ack
    | AttemptReply
    | Stop
    | WorkerPing
)
JobMessages = (
    Hello
    | ExecutorLoaded
    | AttemptStarted
    | AttemptEvents
    | AttemptEnded
    | AttemptsRecalled
    | ExecutorGone
    | AttemptRequest
    | NumberedFrame
)
FromWorker = (
    JobMessages | ExecutorUsage | OverGrant | DeviceReadings | ExecutorProcesses | DevicesFound | WorkerPong
)
ToExecutor = (
    ConfigureExecutor
    | RunAttempts
    | RequestCancel
    | RaiseCancelled
    | RecallAttempts
    | UnloadExecutor
    | SetGrant
    | AttemptReply
)
FromExecutor = (
    ExecutorLoaded
    | LoadFailed
    | AttemptEvents
    | AttemptEnded
    | AttemptsRecalled
    | AttemptRequest
    | SimulatedAllocation
    | OutputMark
    | SlotStarted
    | Leftovers
)

to_worker_decoder = msgspec.msgpack.Decoder(ToWorker)
from_worker_decoder = msgspec.msgpack.Decoder(FromWorker)
to_executor_decoder = msgspec.msgpack.Decoder(ToExecutor)
from_executor_decoder = msgspec.msgpack.Decoder(FromExecutor)
encode = msgspec.msgpack.Encoder().encode

#: Errors of invalid bytes: text that is not UTF-8 and excessive nesting raise types of their own.
UNDECODABLE = (WireError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def tag_of(message: bytes) -> int:
    """Return the tag of an encoded message without decoding it; -1 if it can't be of this protocol."""
    if len(message) < 2:
        return -1
    # A message is an array whose first element is its tag, a small positive integer. Up to 15 fields the
    # array header is one byte, above that (`AttemptEnded`) it is 0xdc and two bytes of length.
    tag = message[1] if message[0] != 0xDC else message[3] if len(message) > 3 else 0xFF
    return tag if tag < 0x80 else -1

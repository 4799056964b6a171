"""Pure: every message between coordinator and worker, and between worker and executor.

Upward messages that must not be lost travel in a `numbered` frame: the worker keeps them until the
coordinator answers `Ack(seq)` after the commit that holds them, and sends them again (or leaves them
in the spool) when the link or the coordinator died. The receiver drops what it has applied already.
"""

from __future__ import annotations

from typing import Any

import msgspec

from runner.handlers.spec import HandlerSpec, Source
from runner.jobs.job import FileRecord
from runner.protocol.framing import WireError

#: Raised by one when a message changes its meaning; told in `Hello`.
PROTOCOL = 1  # guard: protocol


class AttemptSpec(msgspec.Struct, array_like=True):
    """One execution that is to be done."""

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
    """Start an executor. Its first attempts may follow in the same frame, as `Run`."""

    executor: int
    handler: HandlerSpec
    #: Devices it is pinned to: ids ("gpu0") and the environment that makes them the only ones visible.
    devices: list[str]
    env: dict[str, str]
    #: ctx.device: "cuda:0" or "cpu".
    device: str
    #: Promised device memory (0: none promised) and the cap on host memory (None: no cap).
    grant_bytes: int = 0
    ram_cap_bytes: int | None = None
    #: What torch may reserve on each device. None: anything.
    cap_bytes: int | None = None
    load_timeout_s: float | None = None
    model: str = ""


class RunAttempts(msgspec.Struct, array_like=True, tag=2):
    """Run these one after the other; all but the first are staged (not started) until their turn. Where the
    handler takes batches they are one batch: one call, and all of them start at once."""

    executor: int
    attempts: list[AttemptSpec]


class CancelAttempt(msgspec.Struct, array_like=True, tag=3):
    """End one attempt by the kill ladder, with a negative `grace_s` at once. `code` is what it ends with."""

    job_id: str
    attempt: int
    code: str
    message: str
    grace_s: float = 0.5


class RecallAttempts(msgspec.Struct, array_like=True, tag=4):
    """Give back what is staged at this executor and has not started; answered by `Recalled`."""

    executor: int


class UnloadExecutor(msgspec.Struct, array_like=True, tag=5):
    """End an idle executor: its `unload`, then exit; killed if that takes over 5 s."""

    executor: int


class KillExecutor(msgspec.Struct, array_like=True, tag=6):
    """SIGKILL an executor. Where it `spares`, one in which an attempt has begun lives on."""

    executor: int
    code: str
    message: str
    detail: Any = None
    only_if_idle: bool = True


class Ack(msgspec.Struct, array_like=True, tag=7):
    """Everything up to `seq` is durable."""

    seq: int


class AttemptReply(msgspec.Struct, array_like=True, tag=8):
    """Answer to a `Call`; passed on to the executor. `error` is (code, message)."""

    request_id: int
    executor: int
    result: Any = None
    error: tuple[str, str] | None = None


class Stop(msgspec.Struct, array_like=True, tag=9):
    """End the worker: running attempts end by the ladder as `interrupted`, then it exits 0."""


class SetGrant(msgspec.Struct, array_like=True, tag=11):
    """From now on the executor may use so much of each of its devices, and torch in it reserve so much;
    passed on to it."""

    executor: int
    grant_bytes: int
    cap_bytes: int | None = None


# Worker to coordinator.


class Hello(msgspec.Struct, array_like=True, tag=20):
    """First message on a link, and after every cut: then what is in none of its last three never arrived."""

    protocol: int
    token: str
    node: str
    role: str  # "worker" or "probe"
    name: str
    pid: int
    epoch: int
    #: Attempts whose end is not told yet, executors that are there, number of the last message kept.
    running: list[tuple[str, int]] = msgspec.field(default_factory=list)
    executors: list[int] = msgspec.field(default_factory=list)
    last_seq: int = 0


class ExecutorLoaded(msgspec.Struct, array_like=True, tag=21):
    executor: int
    load_s: float
    resident_bytes: int | None = None
    #: On a GPU: what torch has reserved on the device where it has most (None: it does not use it yet), and
    #: its version (None: nobody has imported it).
    reserved_bytes: int | None = None
    torch: str | None = None


class AttemptStarted(msgspec.Struct, array_like=True, tag=22):
    """The attempt runs; sent when it has taken 20 ms, or at once where nothing is staged."""

    job_id: str
    attempt: int
    at: float


class AttemptEvents(msgspec.Struct, array_like=True, tag=23):
    """Events of a running attempt: (type, at, data) with `data` the JSON text of the event's own
    fields as one object (`{"done":3,"total":10,...}`). `seq` numbers the messages of one attempt
    from 1, Notes and the Ended together."""

    job_id: str
    attempt: int
    seq: int
    events: list[tuple[str, float, bytes]]


class AttemptEnded(msgspec.Struct, array_like=True, tag=24):
    """The one end of an attempt, whoever tells it: executor or, if that died, its worker."""

    job_id: str
    attempt: int
    seq: int
    #: None for success, else one of job.ErrorCode.
    code: str | None
    message: str = ""
    detail: Any = None
    #: For failures: may it be tried again at all?
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
    #: True where the executor died under it.
    executor_died: bool = False
    #: True where the executor takes no further attempt: it is dead or about to end.
    executor_closing: bool = False
    #: True where it keeps so much more memory than after its first job that a fresh one should follow.
    has_memory_grown: bool = False
    #: On a GPU: what torch has reserved now; `peak_bytes` is the most that it had. Both without the context.
    reserved_bytes: int | None = None
    #: How many attempts ran in its call: 1, or a batch.
    batch_size: int = 1
    #: The whole batch, or all that ran in an executor, ended so at once: who is to blame is not known.
    is_blame_unknown: bool = False


class AttemptsRecalled(msgspec.Struct, array_like=True, tag=25):
    """These were given back: they did not start and will not."""

    executor: int
    attempts: list[tuple[str, int]]


#: `Gone.code` of an executor that does not die and is written off; a second `Gone` tells when it has.
STUCK = "stuck_process"


class ExecutorGone(msgspec.Struct, array_like=True, tag=26):
    """The executor's process tree has ended and was reaped; `Ended` of the attempt that was
    executing came before. `not_started` did not start and will not."""

    executor: int
    code: str
    message: str
    not_started: list[tuple[str, int]] = msgspec.field(default_factory=list)
    #: For machines, as of an attempt's end: where it loaded without one, nothing else tells.
    detail: Any = None


class ExecutorUsage(msgspec.Struct, array_like=True, tag=27):
    """Bytes each executor uses now: PSS on cpu, what `testing.allocate` said on sim."""

    executors: list[tuple[int, int]]


class OverGrant(msgspec.Struct, array_like=True, tag=33):
    """The executor uses more than it was granted: so much, on all its devices together. It goes on until
    `Grant` or `Kill` answers; asked again as long as neither does."""

    executor: int
    used_bytes: int


class DeviceReadings(msgspec.Struct, array_like=True, tag=28):
    """The probe's figures: (device id, total, used, free) in bytes, and (device id, process, its bytes
    there), None where the driver does not tell them."""

    devices: list[tuple[str, int, int, int]]
    processes: list[tuple[str, int, int | None]] = msgspec.field(default_factory=list)
    #: Device id -> what is wrong with it.
    faults: dict[str, str] = msgspec.field(default_factory=dict)
    #: (device id, Xid) of errors that cards reported since the last frame, see `gpu.devices.xid_codes`.
    xids: list[tuple[str, int]] = msgspec.field(default_factory=list)


class ExecutorProcesses(msgspec.Struct, array_like=True, tag=32):
    """All processes of an executor on a GPU, told when they change: by them its bytes are known."""

    executor: int
    pids: list[int]


class DevicesFound(msgspec.Struct, array_like=True, tag=29):
    """What the probe found at start: one dict per device (fields of `gpu.devices.device.Device`), or an
    error."""

    devices: list[dict[str, Any]]
    notes: list[str] = msgspec.field(default_factory=list)
    error: str | None = None
    #: The driver's version.
    driver: str = ""


class AttemptRequest(msgspec.Struct, array_like=True, tag=30):
    """A handler asks its coordinator for something (`op` "file": where a file id lies)."""

    request_id: int
    executor: int
    job_id: str
    attempt: int
    op: str
    argument: Any = None


class NumberedFrame(msgspec.Struct, array_like=True, tag=31):
    """Heads an upward frame whose following messages are numbered `first`, `first` + 1, ..."""

    first: int


# Worker to executor (`Run`, `Recall`, `Unload`, `Answer` go down unchanged).


class ConfigureExecutor(msgspec.Struct, array_like=True, tag=40):
    """First message to a fresh executor."""

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
    #: A `Run` is one batch; so many attempts run side by side.
    is_batched: bool = False
    slots: int = 1


class RequestCancel(msgspec.Struct, array_like=True, tag=41):
    """First rung of the ladder: ctx.cancelled, on_cancel, cancellation of a coroutine."""

    job_id: str
    attempt: int
    reason: str


class RaiseCancelled(msgspec.Struct, array_like=True, tag=42):
    """Second rung: raise JobCancelled in the main thread; afterwards the executor ends. One with slots ends
    at once."""

    job_id: str
    attempt: int


# Executor to worker (`Note`, `Ended`, `Loaded`, `Recalled`, `Call` go up unchanged).


class LoadFailed(msgspec.Struct, array_like=True, tag=50):
    """`code` is load_error, device_out_of_memory or invalid_handler; the executor then exits."""

    executor: int
    code: str
    message: str
    detail: Any = None


class SimulatedAllocation(msgspec.Struct, array_like=True, tag=51):
    """`runner.testing.allocate`: simulated device bytes that the executor holds now."""

    executor: int
    nbytes: int


class OutputMark(msgspec.Struct, array_like=True, tag=52):
    """Precedes the `Ended` of an attempt that left bytes in its output pipes: the worker holds that
    Ended back until it has read `marker` from the pipes named, 50 ms at most."""

    job_id: str
    attempt: int
    marker: bytes
    stdout: bool
    stderr: bool


class SlotStarted(msgspec.Struct, array_like=True, tag=53):
    """In an executor with slots: the attempt's code runs since `at_mono`; its place in the shared page."""

    job_id: str
    attempt: int
    at_mono: float
    slot_index: int


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
FromWorker = JobMessages | ExecutorUsage | OverGrant | DeviceReadings | ExecutorProcesses | DevicesFound
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
)

to_worker_decoder = msgspec.msgpack.Decoder(ToWorker)
from_worker_decoder = msgspec.msgpack.Decoder(FromWorker)
to_executor_decoder = msgspec.msgpack.Decoder(ToExecutor)
from_executor_decoder = msgspec.msgpack.Decoder(FromExecutor)
encode = msgspec.msgpack.Encoder().encode

#: Raised over bytes that are no message: text that is not UTF-8 and endless nesting have their own kinds.
UNDECODABLE = (WireError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def tag_of(message: bytes) -> int:
    """The tag of an encoded message, without decoding it; -1 where it cannot be one of ours."""
    if len(message) < 2:
        return -1
    # A message is an array whose first element is its tag, a small positive integer. Up to 15 fields
    # the array's head is one byte, above that (`Ended`) it is 0xdc and two bytes of length.
    tag = message[1] if message[0] != 0xDC else message[3] if len(message) > 3 else 0xFF
    return tag if tag < 0x80 else -1

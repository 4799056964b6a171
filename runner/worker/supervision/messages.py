"""Pure: adapts the messages of executors for the coordinator and builds the worker's own.

An executor numbers the messages of an attempt. The worker inserts messages of its own (output of C code)
and shifts the numbers that follow; without such messages the bytes are forwarded unchanged.
"""

from __future__ import annotations

import msgspec

from runner.processes.child import WorkerConfig
from runner.protocol import worker as worker_protocol
from runner.protocol.worker import AttemptEnded, AttemptEvents, ConfigureExecutor, LoadExecutor
from runner.worker.supervision.attempts import AssignedAttempt
from runner.worker.supervision.crash_report import ReportedEnd
from runner.worker.supervision.output_stream import TAIL_BYTES


class Envelope(msgspec.Struct, array_like=True):
    """First fields of `AttemptEvents` and `AttemptEnded`; the bodies are not decoded."""

    tag: int
    job_id: str
    attempt: int
    seq: int


class _LogEvent(msgspec.Struct):
    """Fields of a `log` event that are read here."""

    stream: str = ""
    text: str = ""


class Amendment(msgspec.Struct):
    """Facts about an attempt's end that the worker knows better than the executor."""

    #: (code, message) of the cause, whatever the handler returned.
    cause: tuple[str, str] | None = None
    #: It ended together with others, any of which may be the culprit.
    is_blame_unknown: bool = False
    #: Seconds of the load that the attempt has waited for.
    load_s: float | None = None
    #: The largest sample of the watchdog; the executor's own figure counts if it is larger.
    peak_bytes: int | None = None
    #: The executor is past the first rung of a kill, or was asked to exit.
    executor_closing: bool = False
    #: The executor retains too much of the memory that its jobs used.
    has_memory_grown: bool = False


NO_AMENDMENT = Amendment()
envelope_decoder = msgspec.msgpack.Decoder(Envelope)
_events_decoder = msgspec.msgpack.Decoder(AttemptEvents)
_ended_decoder = msgspec.msgpack.Decoder(AttemptEnded)
_log_decoder = msgspec.json.Decoder(_LogEvent)
_json = msgspec.json.Encoder()


def renumber_events(entry: AssignedAttempt, message: bytes, seq: int) -> bytes:
    """Return an executor's `AttemptEvents` with the number that the coordinator expects."""
    if not entry.own_messages and seq > entry.seq:
        entry.seq = seq
        return message
    decoded = _events_decoder.decode(message)
    decoded.seq = _next_seq(entry, seq)
    return worker_protocol.encode(decoded)


def amend_ended(entry: AssignedAttempt, message: bytes, amendment: Amendment) -> bytes:
    """Return an executor's `AttemptEnded` with its new number and the worker's amendments.

    A cause of the worker replaces the outcome: an attempt that was being ended does not succeed.
    """
    seq = envelope_decoder.decode(message).seq
    if amendment == NO_AMENDMENT and not entry.own_messages and seq > entry.seq:
        entry.seq = seq
        return message
    decoded = _ended_decoder.decode(message)
    decoded.seq = _next_seq(entry, seq)
    if amendment.cause is not None:
        decoded.code, decoded.message = amendment.cause
        decoded.detail = decoded.output = decoded.retry_at = None
        decoded.retryable = decoded.code != "cancelled"
        decoded.is_blame_unknown = amendment.is_blame_unknown
    decoded.executor_closing = decoded.executor_closing or amendment.executor_closing
    decoded.has_memory_grown = amendment.has_memory_grown
    if decoded.load_s is None:
        decoded.load_s = amendment.load_s
    if amendment.peak_bytes is not None:
        decoded.peak_bytes = max(amendment.peak_bytes, decoded.peak_bytes or 0)
    return worker_protocol.encode(decoded)


def stderr_tail(entry: AssignedAttempt | None, descriptor_tail: str) -> str:
    """Return the end of an attempt's standard error: printed text, then bytes of the descriptor.

    In that order, because a crash writes to the descriptor after all printed text.
    """
    printed: list[str] = []
    for message in entry.event_messages if entry is not None else ():
        for kind, _, data in _events_decoder.decode(message).events:
            fields = _log_decoder.decode(data) if kind == "log" else None
            if fields is not None and fields.stream == "stderr":
                printed.append(fields.text)
    return "\n".join([*printed, descriptor_tail])[-TAIL_BYTES:]


def encode_log(entry: AssignedAttempt, stream: str, texts: list[str], at: float) -> bytes:
    """Return lines of descriptor output as `AttemptEvents` of the worker; `at` is UTC epoch seconds."""
    entry.own_messages += 1
    entry.seq += 1
    events = [("log", at, _json.encode({"stream": stream, "level": None, "text": text})) for text in texts]
    return worker_protocol.encode(AttemptEvents(*entry.key, entry.seq, events))


def encode_ended(
    end: ReportedEnd,
    at: float,
    run_s: float | None = None,
    load_s: float | None = None,
    *,
    executor_closing: bool = True,
) -> bytes:
    """Return the `AttemptEnded` of an attempt that its executor did not report.

    `at` is UTC epoch seconds; `run_s` is None if the attempt did not start.
    """
    entry = end.entry
    entry.seq += 1
    message = AttemptEnded(
        *entry.key,
        entry.seq,
        end.code,
        end.message,
        detail=end.detail,
        retryable=end.code != "cancelled",
        started_at=None if run_s is None else at - run_s,
        run_s=run_s,
        load_s=load_s,
        peak_bytes=entry.peak_bytes,
        executor_died=end.executor_died,
        executor_closing=executor_closing,
        batch_size=len(entry.batch) or 1,
        is_blame_unknown=end.is_blame_unknown,
    )
    return worker_protocol.encode(message)


def encode_configure(command: LoadExecutor, config: WorkerConfig) -> bytes:
    """Return the first message to an executor: what to load, its grant in bytes, folders and limits."""
    handler = command.handler
    message = ConfigureExecutor(
        executor=command.executor,
        source=handler.source,
        name=handler.name,
        kind=handler.kind,
        devices=command.devices,
        device=command.device,
        grant_bytes=command.grant_bytes,
        files_dir=config.files_dir,
        tmp_dir=config.tmp_dir,
        output_max_bytes=config.output_max_bytes,
        log_max_bytes=config.log_max_bytes,
        events_max=config.events_max,
        is_batched=handler.options.batch is not None,
        slots=handler.options.slots,
        model=command.model,
        cap_bytes=command.cap_bytes,
    )
    return worker_protocol.encode(message)


def _next_seq(entry: AssignedAttempt, seq: int) -> int:
    """Return the next number of the attempt's messages: it rises, whatever the executor has sent."""
    entry.seq = max(seq + entry.own_messages, entry.seq + 1)
    return entry.seq

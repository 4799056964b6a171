"""Pure: the commands to a worker that start an executor and run an attempt."""

from __future__ import annotations

from collections.abc import Sequence

from gpu.devices import visibility
from gpu.devices.device import Device
from gpu.planning.actions import LoadAction as Action
from runner.coordinator.jobs.job_registry import LiveJob
from runner.handlers.spec import HandlerOptions, HandlerSpec
from runner.protocol.framing import BATCH_INPUT_BYTES, FRAME_BYTES
from runner.protocol.worker import AttemptSpec, LoadExecutor

#: Bytes of an attempt's specification beside its input, at most: ids, the handler's name, numbers.
ATTEMPT_OVERHEAD_BYTES = 1024


def batch_length(input_bytes: Sequence[int]) -> int:
    """Return how many of a batch's inputs, given by their sizes, one message holds: the first in any case."""
    total = 0
    for count, size in enumerate(input_bytes):
        total += size
        if count and total > BATCH_INPUT_BYTES:
            return count
    return len(input_bytes)


def split_attempts(attempts: Sequence[AttemptSpec]) -> list[list[AttemptSpec]]:
    """Return the attempts in order, in lists whose messages fit into a frame or hold one attempt."""
    parts: list[list[AttemptSpec]] = []
    room = 0
    for attempt in attempts:
        size = len(attempt.input) + ATTEMPT_OVERHEAD_BYTES
        if size > room:
            parts.append([])
            room = FRAME_BYTES
        parts[-1].append(attempt)
        room -= size
    return parts


def load_command(
    executor: int, action: Action, spec: HandlerSpec, devices: Sequence[Device], cap_bytes: int | None
) -> LoadExecutor:
    """Build the command that starts an executor pinned to these devices. torch may reserve `cap_bytes` on
    each of them; None sets no limit."""
    return LoadExecutor(
        executor=executor,
        handler=spec,
        devices=list(action.device_ids),
        env=visibility.visibility_environment(devices),
        device=visibility.torch_device(devices),
        grant_bytes=action.grant_bytes,
        ram_cap_bytes=spec.options.ram_bytes,
        cap_bytes=cap_bytes,
        load_timeout_s=spec.options.load_timeout_s,
        model=action.job_class.model,
    )


def attempt_spec(live: LiveJob, options: HandlerOptions) -> AttemptSpec:
    """Build the specification of the attempt in flight."""
    job = live.job
    return AttemptSpec(
        job.id,
        live.attempt_in_flight,
        job.handler,
        live.input or b"null",
        job.terms.timeout_s,
        options.stall_timeout_s,  # guard: stall-timeout
        options.grace_s,
    )

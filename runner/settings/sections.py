"""Pure: the sections of the settings, and the forms in which their values may be written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import NoDecode

from runner.bounds import COUNT_MAX, DEPTH_MAX, EXECUTORS_MAX
from runner.formats.units import parse_bytes, parse_seconds
from runner.protocol.framing import SETTING_MAX_BYTES

MIB = 1 << 20


def _split_list(value: object) -> object:
    """Split `a,b`: the form of a list in variables, which hold only text."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _absolute(value: object) -> object:
    return Path(value).expanduser().absolute() if isinstance(value, (str, Path)) else value


#: Enforcement methods that this version does not support, and what they would require.
UNSUPPORTED_ENFORCEMENT = {
    "mps": "it requires NVIDIA's MPS daemon with a limit for each client, where a fatal fault of one client "
    "terminates all clients of that GPU",
    "cgroup": "it requires device memory limits in control groups (kernel 6.14, or a driver with its own) "
    "and the permission to create groups",
}


def _supported_enforcement(value: object) -> object:
    if isinstance(value, str) and value in UNSUPPORTED_ENFORCEMENT:
        raise ValueError(
            f"{value} is not supported: {UNSUPPORTED_ENFORCEMENT[value]}; use fraction, watchdog or none"
        )
    return value


Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]
#: A size of what one message between processes has to hold.
MessageBytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0, le=SETTING_MAX_BYTES)]
Seconds = Annotated[float, BeforeValidator(parse_seconds), Field(ge=0)]
Names = Annotated[list[str], NoDecode, BeforeValidator(_split_list)]
AbsolutePath = Annotated[Path, BeforeValidator(_absolute)]
Enforcement = Annotated[Literal["fraction", "watchdog", "none"], BeforeValidator(_supported_enforcement)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LimitSettings(_Section):
    """`[limits]`: bounds of one request, one attempt and the whole store."""

    #: Largest request body.
    body_bytes: MessageBytes = 16 * MIB
    #: Largest body of POST /v1/jobs/bulk.
    bulk_bytes: MessageBytes = 64 * MIB
    #: Largest nesting depth of a request's JSON.
    depth: int = Field(default=64, gt=0, le=DEPTH_MAX)
    #: Largest output of a job; a larger one fails as `result_too_large`.
    output_bytes: MessageBytes = 16 * MIB
    #: Text of `log` events per attempt; the rest is dropped.
    log_bytes: Bytes = MIB
    #: Events of one attempt.
    events: int = Field(default=100_000, gt=0, le=COUNT_MAX)
    #: Events kept of one job, the oldest dropped first.
    events_kept: int = Field(default=100_000, gt=0, le=COUNT_MAX)
    #: Jobs that may be queued at once; further submits get 429 `queue_full`.
    queued: int = Field(default=2_000_000, gt=0, le=COUNT_MAX)
    #: Names of queues, of tenants with queued jobs, and of models of one handler with queued jobs; a submit
    #: that adds one more gets 429 `too_many_names`.
    queues: int = Field(default=10_000, gt=0, le=COUNT_MAX)
    tenants: int = Field(default=100_000, gt=0, le=COUNT_MAX)
    models: int = Field(default=10_000, gt=0, le=COUNT_MAX)


class ExecutorSettings(_Section):
    """`[executors]`: the environment of handler code, based on the server's own without `RUNNER_*`."""

    #: Variables to remove; a trailing `*` matches any suffix.
    env_deny: Names = []
    #: Variables to add.
    env: dict[str, str] = {}
    #: Modules imported once in each worker's fork server, from which executors are forked.
    template: Names = []


class DeviceSettings(_Section):
    """`[devices]`: settings that apply to every device."""

    #: Executors that load or run at once on one device. None: 8 for a GPU or sim, the cores (at least 2) for
    #: cpu.
    max_executors: int | None = Field(default=None, gt=0, le=EXECUTORS_MAX)
    #: Executors on one device, idle ones included. None: 64 for a GPU or sim, 4 for each core (at least 16)
    #: for cpu, and not less than `max_executors`.
    max_resident: int | None = Field(default=None, gt=0, le=EXECUTORS_MAX)
    #: How executors on GPUs are held to their grants: "fraction" (torch's limit), "watchdog" or "none".
    enforcement: Enforcement = "fraction"
    #: Bytes of each GPU that are never granted. None: 2 %, at least 256 MiB.
    headroom: Annotated[int, BeforeValidator(parse_bytes), Field(ge=0)] | None = None


class TenantSettings(_Section):
    """`[tenants.NAME]`: settings of one tenant's jobs."""

    #: Weight of the tenant's share of the devices among tenants with waiting jobs.
    weight: float = Field(default=1.0, ge=0.001, le=1000.0, allow_inf_nan=False)

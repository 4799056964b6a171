"""Pure: the tables of the settings, and the forms in which their values may be written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import NoDecode

from runner.formats.units import parse_bytes, parse_seconds

MIB = 1 << 20


def _split_list(value: object) -> object:
    """A list may come as `a,b` where only text can be written."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _absolute(value: object) -> object:
    return Path(value).expanduser().absolute() if isinstance(value, (str, Path)) else value


#: Means to hold executors to their grants that this version does not have, and what they would need.
UNSUPPORTED_ENFORCEMENT = {
    "mps": "it needs NVIDIA's MPS daemon with a limit for each client, and there a fatal fault of one client "
    "ends all clients of that GPU",
    "cgroup": "it needs limits of device memory in control groups (kernel 6.14, or a driver with its own) "
    "and the right to make groups",
}


def _supported_enforcement(value: object) -> object:
    if value in UNSUPPORTED_ENFORCEMENT:
        raise ValueError(
            f"{value} is not there: {UNSUPPORTED_ENFORCEMENT[str(value)]}; use fraction, watchdog or none"
        )
    return value


Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]
Seconds = Annotated[float, BeforeValidator(parse_seconds), Field(ge=0)]
Names = Annotated[list[str], NoDecode, BeforeValidator(_split_list)]
AbsolutePath = Annotated[Path, BeforeValidator(_absolute)]
Enforcement = Annotated[Literal["fraction", "watchdog", "none"], BeforeValidator(_supported_enforcement)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LimitSettings(_Section):
    """`[limits]`: what one request, one attempt and the whole store may take."""

    body_bytes: Bytes = 16 * MIB
    bulk_bytes: Bytes = 64 * MIB
    #: Nesting of a request's JSON.
    depth: int = Field(default=64, gt=0)
    output_bytes: Bytes = 16 * MIB
    #: Text of `log` events, per attempt.
    log_bytes: Bytes = MIB
    #: Events of one attempt.
    events: int = Field(default=100_000, gt=0)
    #: Events kept of one job.
    events_kept: int = Field(default=100_000, gt=0)
    #: Jobs that may wait at once.
    queued: int = Field(default=2_000_000, gt=0)


class ExecutorSettings(_Section):
    """`[executors]`: the environment that handler code sees, besides the server's own without `RUNNER_*`."""

    #: Names that are taken out; a trailing `*` stands for any ending.
    env_deny: Names = []
    #: Names that are put in.
    env: dict[str, str] = {}
    #: Modules that are imported once a worker, in a process of which executors are forked.
    template: Names = []


class DeviceSettings(_Section):
    """`[devices]`: what holds for every device."""

    #: Executors that run at once on one device. None: 8 for a GPU or sim, the cores (at least 2) for cpu.
    max_executors: int | None = Field(default=None, gt=0)
    #: By what executors on GPUs are held to their grants: fraction, watchdog or none.
    enforcement: Enforcement = "fraction"
    #: Bytes of each GPU that are promised to nobody. None: 2 %, at least 256 MiB.
    headroom: Annotated[int, BeforeValidator(parse_bytes), Field(ge=0)] | None = None


class TenantSettings(_Section):
    """`[tenants.NAME]`: what holds for the jobs of one tenant."""

    #: Its part of the devices beside the parts of the others who wait; 1 where nothing is said.
    weight: float = Field(default=1.0, ge=0.001, le=1000.0, allow_inf_nan=False)

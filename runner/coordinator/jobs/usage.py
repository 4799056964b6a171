"""Pure: the use of devices by handlers, tenants and devices: seconds, and bytes times seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from runner.coordinator.runtime import value_names
from runner.coordinator.runtime.stored_value import parse_value
from runner.jobs.job import AttemptRecord, AttemptUsage, Job

_encode = msgspec.msgpack.Encoder().encode


class UsageSum(msgspec.Struct, array_like=True):
    """The total of some attempts: device seconds, granted bytes times device seconds, and their number."""

    device_s: float = 0.0
    byte_s: float = 0.0
    attempts: int = 0

    def add(self, usage: AttemptUsage) -> None:
        """Add an attempt."""
        self.device_s += usage.device_s
        self.byte_s += usage.byte_s
        self.attempts += 1


_sum_decoder = msgspec.msgpack.Decoder(UsageSum)


class UsageTotals:
    """Sums over all attempts that occupied devices, since `since` (UTC epoch seconds).

    Each change is returned as the values to store, so that one commit holds a job's end and its cost.
    """

    def __init__(self, stored_values: Mapping[str, bytes], now: float) -> None:
        #: Jobs without a tenant are under "".
        self.tenants: dict[str, UsageSum] = {}
        self.handlers: dict[str, UsageSum] = {}
        self.devices: dict[str, UsageSum] = {}
        self._sums_by_kind = {"tenant": self.tenants, "handler": self.handlers, "device": self.devices}
        name = value_names.USAGE_SINCE
        since = parse_value(name, stored_values.get(name), float)
        self.since = now if since is None else since
        self._is_new = since is None
        for name, value in stored_values.items():
            kind, _, owner = name.removeprefix(value_names.USAGE).partition("/")
            if name.startswith(value_names.USAGE) and kind in self._sums_by_kind:
                total = parse_value(name, value, _sum_decoder.decode)
                if total is not None:
                    self._sums_by_kind[kind][owner] = total

    def add_attempt(
        self, job: Job, record: AttemptRecord, usage: AttemptUsage
    ) -> Iterator[tuple[str, bytes]]:
        """Add an attempt that has ended; yield the names and values to be stored.

        A gang's usage is divided equally among its devices.
        """
        if self._is_new:
            self._is_new = False
            yield value_names.USAGE_SINCE, repr(self.since).encode()
        yield self._add_to_sum("tenant", job.terms.tenant, usage)
        yield self._add_to_sum("handler", job.handler, usage)
        per_device = AttemptUsage(usage.device_s / len(record.devices), usage.byte_s / len(record.devices))
        for device in record.devices:
            yield self._add_to_sum("device", device, per_device)

    def _add_to_sum(self, kind: str, name: str, usage: AttemptUsage) -> tuple[str, bytes]:
        total = self._sums_by_kind[kind].setdefault(name, UsageSum())
        total.add(usage)
        return f"{value_names.USAGE}{kind}/{name}", _encode(total)

"""Pure: what handlers, tenants and devices have used: seconds of devices, and bytes times seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from runner.coordinator.runtime import value_names
from runner.jobs.job import AttemptRecord, AttemptUsage, Job

_encode = msgspec.msgpack.Encoder().encode


class Sum(msgspec.Struct, array_like=True):
    """What some attempts have used together."""

    device_s: float = 0.0
    byte_s: float = 0.0
    attempts: int = 0

    def add(self, spent: AttemptUsage) -> None:
        """One more attempt."""
        self.device_s += spent.device_s
        self.byte_s += spent.byte_s
        self.attempts += 1


_sum_decoder = msgspec.msgpack.Decoder(Sum)


class Accounts:
    """Sums over all attempts that occupied devices, since `since` (UTC epoch seconds). Each change is given
    as the values that the store is to keep, so that one commit holds a job's end and what it cost."""

    def __init__(self, kept: Mapping[str, bytes], now: float) -> None:
        #: Jobs without a tenant are under "".
        self.tenants: dict[str, Sum] = {}
        self.handlers: dict[str, Sum] = {}
        self.devices: dict[str, Sum] = {}
        self._tables = {"tenant": self.tenants, "handler": self.handlers, "device": self.devices}
        since = kept.get(value_names.USAGE_SINCE)
        self.since = now if since is None else float(since)
        self._is_new = since is None
        for name, value in kept.items():
            kind, _, of = name.removeprefix(value_names.USAGE).partition("/")
            if name.startswith(value_names.USAGE) and kind in self._tables:
                self._tables[kind][of] = _sum_decoder.decode(value)

    def add(self, job: Job, record: AttemptRecord, spent: AttemptUsage) -> Iterator[tuple[str, bytes]]:
        """An attempt of the job has ended; gives the names and values to be stored."""
        if self._is_new:
            self._is_new = False
            yield value_names.USAGE_SINCE, repr(self.since).encode()
        yield self._add("tenant", job.terms.tenant, spent)
        yield self._add("handler", job.handler, spent)
        each = AttemptUsage(spent.device_s / len(record.devices), spent.byte_s / len(record.devices))
        for device in record.devices:
            yield self._add("device", device, each)

    def _add(self, kind: str, name: str, spent: AttemptUsage) -> tuple[str, bytes]:
        total = self._tables[kind].setdefault(name, Sum())
        total.add(spent)
        return f"{value_names.USAGE}{kind}/{name}", _encode(total)

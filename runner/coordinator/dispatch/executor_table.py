"""Pure: the executors that the coordinator knows, by number, device, worker and handler."""

from __future__ import annotations

from collections.abc import Collection

from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.coordinator.processes.worker_pool import WorkerHandle


class ExecutorTable(dict[int, ExecutorHandle]):
    """Executor number -> executor.

    A dict, because executors are looked up here several times for each job. The methods return new lists: the
    table may change while a caller iterates over one. They scan the table, without an index: none of them is
    called for a job or a message of an attempt, only for requests, readings and the loss of a process.
    """

    __slots__ = ()

    def all(self) -> list[ExecutorHandle]:
        """All executors, in the order of their start."""
        return list(self.values())

    def on_device(self, device_id: str) -> list[ExecutorHandle]:
        """Executors that occupy the device, alone or with others."""
        return [executor for executor in self.values() if device_id in executor.devices]

    def on_any_device(self, device_ids: Collection[str]) -> list[ExecutorHandle]:
        """Executors that occupy at least one of the devices, each once."""
        wanted = set(device_ids)
        return [executor for executor in self.values() if not wanted.isdisjoint(executor.devices)]

    def of_worker(self, worker: WorkerHandle) -> list[ExecutorHandle]:
        """Executors that this worker runs."""
        return [executor for executor in self.values() if executor.worker is worker]

    def of_handler(self, name: str) -> list[ExecutorHandle]:
        """Executors of the handler, of any version and model."""
        return [executor for executor in self.values() if executor.spec.name == name]

    def with_attempts(self) -> list[ExecutorHandle]:
        """Executors that hold an attempt."""
        return [executor for executor in self.values() if executor.attempts]

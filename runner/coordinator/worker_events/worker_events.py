"""Effect: passes what happens to workers, from hello to exit, to the device registry and the messages."""

from __future__ import annotations

from runner.coordinator.devices.device_registry import DeviceRegistry
from runner.coordinator.processes.worker_pool import WorkerHandle
from runner.coordinator.worker_events.message_handler import WorkerMessageHandler
from runner.protocol.worker import Hello

#: The cause under which the device registry records a worker that hangs.
FAULT_CAUSE = "worker"


class WorkerEvents:
    """The `WorkerListener` of the coordinator; `connect` must be called before the first worker starts."""

    def connect(self, device_registry: DeviceRegistry, messages: WorkerMessageHandler) -> None:
        """Pass everything to these components from now on."""
        self._device_registry = device_registry
        self._messages = messages

    def on_worker_connected(self, worker: WorkerHandle, hello: Hello) -> None:
        """Mark the device of a connected worker as ready."""
        self._device_registry.on_worker_ready(worker)

    def on_worker_reconnected(self, worker: WorkerHandle, hello: Hello) -> None:
        """Dispatch nothing to a reconnected worker until its backlog is applied."""
        if worker.device is not None:  # guard: relinked-is-asked
            self._device_registry.on_worker_reconnecting(worker)
            self._messages.on_worker_reconnected(worker, hello)

    def on_messages(self, worker: WorkerHandle, messages: list[bytes]) -> None:
        """Handle a frame of a worker or of the probe: its encoded messages, in order."""
        self._messages.handle_frame(worker, messages)

    def on_worker_hung(self, worker: WorkerHandle) -> None:
        """Close the device of a worker that hangs, until another worker is ready there."""
        if worker.device is not None:
            self._device_registry.on_worker_reconnecting(worker)
            message = f"its worker {worker.name} hangs and is replaced"
            self._device_registry.set_fault(worker.device.id, FAULT_CAUSE, message)

    def on_worker_stuck(self, worker: WorkerHandle) -> None:
        """Requeue the attempts of a worker that survived SIGKILL. It still holds its device, which stays
        closed until the worker has exited."""
        if worker.device is not None:
            effect = "no work starts there until it ends"
            message = f"stuck_process: its worker {worker.name} survived SIGKILL; {effect}"
            self._device_registry.set_fault(worker.device.id, FAULT_CAUSE, message)
            self._messages.on_worker_lost(worker, "it hangs and survived SIGKILL")

    def on_worker_lost(self, worker: WorkerHandle, why: str) -> None:
        """Handle the death of a worker or of the probe."""
        self._device_registry.on_worker_lost(worker, why)
        if worker.device is not None:
            self._device_registry.set_fault(worker.device.id, FAULT_CAUSE, None)
            self._messages.on_worker_lost(worker, why)

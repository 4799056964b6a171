"""Pure: the coordinator's end of the protocol with one worker or probe."""

from __future__ import annotations

from runner.protocol.worker import Ack, encode


class WorkerConnection:
    """The state of the exchange with one worker, on whichever node its process runs.

    The state outlives a broken link: after a reconnect the exchange continues with the next message.
    """

    def __init__(self, name: str, node: str) -> None:
        #: Names one start of the worker: no other start of any worker has the same name.
        self.name = name
        #: Host name of the machine on which the worker runs.
        self.node = node
        #: Whether the worker has ever connected; a link that broke since shows in `is_link_lost`.
        self.is_connected = False
        #: Whether the link was found broken and is not restored yet.
        self.is_link_lost = False
        #: Number of the last message that was applied; workers number their durable messages from 1.
        self.last_applied = 0
        #: Number of the last durable message that is not acknowledged yet; None if all are.
        self.pending_ack: int | None = None
        #: Messages for the next flush.
        self.pending_messages: list[bytes] = []

    def record_hello(self) -> bool:
        """Record a hello of the worker; return whether it is the first one."""
        is_first = not self.is_connected
        self.is_connected = True
        self.is_link_lost = False
        return is_first

    def take_messages(self) -> list[bytes]:
        """Return and forget the pending messages, with the pending acknowledgement as the last of them."""
        messages, self.pending_messages = self.pending_messages, []
        if self.pending_ack is not None:
            messages.append(encode(Ack(self.pending_ack)))
            self.pending_ack = None
        return messages

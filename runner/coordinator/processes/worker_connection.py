"""Pure: the coordinator's end of the protocol with one worker or probe."""

from __future__ import annotations

from runner.protocol.worker import Ack, encode


class WorkerConnection:
    """What the coordinator knows of its exchange with one worker, wherever the worker's process runs.

    It outlives a broken link: a worker that reconnects goes on where it was. Times are on the clock of the
    event loop, in seconds.
    """

    def __init__(self, name: str, node: str, now_mono: float) -> None:
        #: Identifies this start of the worker; no later worker has the same.
        self.name = name
        #: Host name of the machine on which the worker runs.
        self.node = node
        #: Whether it has ever connected; see `disconnected_mono` for a link that broke since.
        self.is_connected = False
        #: When the loss of its link was found; None while there is a link.
        self.disconnected_mono: float | None = None
        self.last_message_mono = now_mono
        #: Number of the last message that was applied. Workers number their durable messages from 1.
        self.last_applied = 0
        #: Number of the last durable message that is not acknowledged yet; None if all are.
        self.pending_ack: int | None = None
        #: Messages for the next frame.
        self.pending_messages: list[bytes] = []

    def record_hello(self, now_mono: float) -> bool:
        """Record that the worker has connected; return whether it is its first hello."""
        is_first = not self.is_connected
        self.is_connected = True
        self.disconnected_mono = None
        self.last_message_mono = now_mono
        return is_first

    def take_frame(self) -> list[bytes]:
        """Return the messages of the next frame, with the acknowledgement that is due, and keep none."""
        messages, self.pending_messages = self.pending_messages, []
        if self.pending_ack is not None:
            messages.append(encode(Ack(self.pending_ack)))
            self.pending_ack = None
        return messages

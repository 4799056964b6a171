"""Effect: the worker's link to the coordinator: what is sent on it, and what awaits acknowledgement."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from runner.processes.child import WorkerConfig
from runner.protocol import worker as worker_protocol
from runner.protocol.spool import write_spool
from runner.protocol.worker import Hello
from runner.protocol.zmq_dealer import ZmqDealer
from runner.worker.outbox import Outbox

log = logging.getLogger(__name__)

#: After a link that was full.
RETRY_SEND_S = 0.05


class CoordinatorLink:
    """What must not be lost is numbered and kept until it is acknowledged; the rest is lost with the link."""

    def __init__(
        self,
        config: WorkerConfig,
        *,
        on_messages: Callable[[list[bytes]], None],
        on_connect: Callable[[Hello], list[bytes]],
        on_pause: Callable[[bool], None],
    ) -> None:
        """`on_connect` completes the hello of a new link and gives the unnumbered messages that follow it;
        `on_pause` is called when too much waits for an acknowledgement, and when it does no longer."""
        self._config = config
        self._on_connect, self._on_pause = on_connect, on_pause
        self._dealer = ZmqDealer(config.endpoint, on_frame=on_messages, on_link=self._on_link)
        self._outbox = Outbox()
        self._unnumbered: list[bytes] = []
        self._flush_is_due = False
        #: Too much waits for an acknowledgement.
        self.is_paused = False

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Connect, and connect again whenever the link is lost."""
        self._loop = loop
        self._dealer.open()

    def close(self) -> None:
        """Disconnect for good."""
        self._dealer.close()

    def send_reliably(self, message: bytes) -> None:
        """Send a message that must not be lost."""
        self._outbox.add(message)
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def send_unnumbered(self, message: bytes) -> None:
        """Send a message that may be lost with the link."""
        self._unnumbered.append(message)
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def acknowledge(self, seq: int) -> None:
        """Drop everything up to this number: the coordinator has made it durable."""
        self._outbox.acknowledge(seq)
        self._update_pause()

    @property
    def has_unacknowledged(self) -> bool:
        """Whether a message that must not be lost still waits."""
        return len(self._outbox) > 0

    def spool_unacknowledged(self) -> None:
        """Write what still waits to disk, where the next coordinator finds it."""
        unacknowledged = self._outbox.unacknowledged_messages()  # guard: spool-unacknowledged
        if unacknowledged:
            try:
                path = write_spool(Path(self._config.spool_dir), self._hello(""), unacknowledged)
                log.info("%d messages that nobody acknowledged are in %s", len(unacknowledged), path)
            except OSError as error:
                log.error("%d messages could not be spooled and are lost: %s", len(unacknowledged), error)

    def _on_link(self) -> None:
        hello = self._hello(self._config.token)
        hello.last_seq = self._outbox.last_seq
        following = self._on_connect(hello)
        self._unnumbered = [worker_protocol.encode(hello), *following]
        self._outbox.rewind()
        self._flush()

    def _hello(self, token: str) -> Hello:
        config, pid = self._config, os.getpid()
        return Hello(worker_protocol.PROTOCOL, token, config.node, "worker", config.name, pid, config.epoch)

    def _flush(self) -> None:
        """All that this turn of the loop produced goes up, in as few frames as it fits."""
        self._flush_is_due = False
        if not self._dealer.is_linked:
            # What may be lost is lost; the rest waits for the link.
            self._unnumbered.clear()
        elif self._unnumbered and self._dealer.send(self._unnumbered):
            self._unnumbered = []
        while self._dealer.is_linked and self._outbox.has_unsent:
            first, messages = self._outbox.peek()
            if not self._dealer.send(
                [worker_protocol.encode(worker_protocol.NumberedFrame(first)), *messages]
            ):
                self._flush_is_due = True
                self._loop.call_later(RETRY_SEND_S, self._flush)
                break
            self._outbox.mark_sent(len(messages))
        self._update_pause()

    def _update_pause(self) -> None:
        if self._outbox.is_full != self.is_paused:
            self.is_paused = self._outbox.is_full
            self._on_pause(self.is_paused)

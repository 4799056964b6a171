"""Effect: the worker's connection to the coordinator: sending, acknowledgements and the spool."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

from runner.processes.child import WorkerConfig
from runner.protocol import framing
from runner.protocol import worker as worker_protocol
from runner.protocol.spool import fit_reserve, release_spool, reserve_spool, write_spool
from runner.protocol.worker import Hello
from runner.protocol.zmq_dealer import ZmqDealer
from runner.worker.outbox import Outbox

log = logging.getLogger(__name__)

#: Delay, in seconds, before a send is retried after the connection's buffer was full.
RETRY_SEND_S = 0.05


class CoordinatorLink:
    """Numbers reliable messages and keeps them until they are acknowledged; others may be lost."""

    def __init__(
        self,
        config: WorkerConfig,
        *,
        on_messages: Callable[[list[bytes]], None],
        on_connect: Callable[[Hello], list[bytes]],
        on_pause: Callable[[bool], None],
    ) -> None:
        """Create the link.

        `on_messages` gets the messages of each frame. `on_connect` completes the hello of a new connection
        and returns the unnumbered messages that follow it. `on_pause` is called with True when too many
        messages are unacknowledged, and with False when that is over.
        """
        self._config = config
        self._spool_dir = Path(config.spool_dir)
        self._on_connect, self._on_pause = on_connect, on_pause
        self._dealer = ZmqDealer(config.endpoint, on_frame=on_messages, on_link=self._on_link)
        self._outbox = Outbox()
        self._unnumbered: list[bytes] = []
        self._flush_is_due = False
        #: Too many messages are unacknowledged.
        self.is_paused = False

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Connect, and reconnect whenever the connection is lost."""
        self._loop = loop
        try:
            reserve_spool(self._spool_dir, self._config.name)
        except OSError as error:
            log.warning("no room is kept for results on a full disk: %s", error)
        self._dealer.open()

    def close(self) -> None:
        """Disconnect without reconnecting."""
        self._dealer.close()

    def send_reliably(self, message: bytes) -> None:
        """Send an encoded message that must not be lost.

        It is repeated until the coordinator has stored it.
        """
        self._outbox.add(message)
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def send_unnumbered(self, message: bytes) -> None:
        """Send an encoded message that may be lost with the connection."""
        self._unnumbered.append(message)
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def acknowledge(self, seq: int) -> None:
        """Drop messages up to this number, which the coordinator has made durable."""
        self._outbox.acknowledge(seq)
        self._update_pause()

    @property
    def has_unacknowledged(self) -> bool:
        """Return whether a message that must not be lost has not been acknowledged."""
        return len(self._outbox) > 0

    def spool_unacknowledged(self) -> None:
        """Write unacknowledged messages to disk, where the next coordinator finds them.

        On a full disk those are written that fit into the room kept for them, the oldest first. The log says
        what is lost.
        """
        unacknowledged = self._outbox.unacknowledged_messages()  # guard: spool-unacknowledged
        if not unacknowledged:
            release_spool(self._spool_dir, self._config.name)
            return
        hello = self._hello("")
        try:
            path = write_spool(self._spool_dir, hello, unacknowledged)
            log.info("%d unacknowledged messages were written to %s", len(unacknowledged), path)
        except OSError as error:
            self._spool_fitting(hello, unacknowledged, error)

    def _spool_fitting(self, hello: Hello, unacknowledged: list[bytes], why: OSError) -> None:
        fitting = fit_reserve(hello, unacknowledged)
        try:
            write_spool(self._spool_dir, hello, fitting)
        except OSError as error:
            fitting, why = [], error
        log.error(
            "lost %d of %d unacknowledged messages: cannot write the spool: %s; the jobs whose results were "
            "among them run again",
            len(unacknowledged) - len(fitting),
            len(unacknowledged),
            why,
        )

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
        """Send all messages of this loop iteration in as few frames as possible."""
        self._flush_is_due = False
        if not self._dealer.is_linked:
            # Unnumbered messages may be lost; numbered ones wait for the connection.
            self._unnumbered.clear()
        elif self._unnumbered:
            frames = deque(framing.group(self._unnumbered))
            while frames and self._dealer.send(frames[0]):
                frames.popleft()
            self._unnumbered = [message for frame in frames for message in frame]
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

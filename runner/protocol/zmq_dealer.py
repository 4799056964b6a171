"""Effect: the ZeroMQ socket of a worker or the probe: a DEALER that connects to the coordinator."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

import zmq
from zmq.utils.monitor import parse_monitor_message

from runner.protocol import framing
from runner.protocol.framing import WireError
from runner.protocol.zmq_socket import EVENTS, NOBLOCK, OPTIONS, POLLIN, FrameSocket, send_parts

log = logging.getLogger(__name__)

#: Milliseconds between attempts to connect, at first and at most.
RECONNECT_MIN_MS, RECONNECT_MAX_MS = 50, 1_000


class ZmqDealer(FrameSocket):
    """A connection that reconnects by itself.

    After a disconnect the socket is replaced by one with a new random identity, so that the router never
    mistakes it for the old connection. `on_link` is called on every connect: the caller then sends `Hello`
    and repeats unacknowledged messages. `on_frame` gets the messages of each frame.
    """

    def __init__(
        self, endpoint: str, *, on_frame: Callable[[list[bytes]], None], on_link: Callable[[], None]
    ) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._on_frame, self._on_link = on_frame, on_link
        self.is_linked = False

    def open(self) -> None:
        """Start connecting; must be called on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._context = zmq.Context(io_threads=1)
        self._connect()

    def close(self) -> None:
        """Close the socket; messages that the peer has not received yet are dropped."""
        self._disconnect()
        self._context.term()

    def send(self, messages: list[bytes]) -> bool:
        """Send one frame.

        Return False, with nothing sent, if the connection is down or its buffer is full.
        """
        if not self.is_linked:
            return False
        try:
            send_parts(self._socket, messages)
        except zmq.ZMQError as error:
            log.debug("cannot send to the coordinator now: %s", error)
            return False
        self._schedule_read()
        return True

    def _connect(self) -> None:
        self._socket = socket = self._context.socket(zmq.DEALER)
        for option, value in OPTIONS.items():
            socket.set(option, value)
        socket.set(zmq.RECONNECT_IVL, RECONNECT_MIN_MS)
        socket.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        # libzmq reserves identities that begin with a zero byte.
        socket.set(zmq.ROUTING_ID, b"r" + os.urandom(15))
        events = zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED
        self._monitor = socket.get_monitor_socket(events, f"inproc://link-{os.urandom(8).hex()}")
        self._descriptors = int(socket.get(zmq.FD)), int(self._monitor.get(zmq.FD))
        self._loop.add_reader(self._descriptors[0], self._read_frames)
        self._loop.add_reader(self._descriptors[1], self._on_monitor_event)
        socket.connect(self._endpoint)
        self._loop.call_soon(self._on_monitor_event)

    def _disconnect(self) -> None:
        self.is_linked = False
        for descriptor in self._descriptors:
            self._loop.remove_reader(descriptor)
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)

    def _on_monitor_event(self) -> None:
        """Handle events of the connection: connected or disconnected."""
        monitor = self._monitor
        while not monitor.closed and int(monitor.get(EVENTS)) & POLLIN:
            event = parse_monitor_message(monitor.recv_multipart(NOBLOCK))["event"]
            if event == zmq.Event.DISCONNECTED:
                log.warning("lost the connection to the coordinator; reconnecting")
                self._disconnect()
                self._connect()
                return
            if not self.is_linked:
                self.is_linked = True
                self._on_link()
                self._read_frames()

    def _handle_parts(self, parts: list[bytes]) -> None:
        try:
            self._on_frame(framing.unpack(framing.join(parts)))
        except WireError as error:
            log.error("the coordinator sent an invalid frame: %s", error)
        except Exception:
            # Boundary of the loop: a command that fails must not stop the others.
            log.exception("failed to handle a message from the coordinator")

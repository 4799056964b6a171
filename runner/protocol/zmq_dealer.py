"""Effect: the ZeroMQ end of a worker or the probe: one DEALER that connects to the coordinator."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

import zmq
from zmq.backend import Socket as ZmqSocket
from zmq.utils.monitor import parse_monitor_message

from runner.protocol import framing
from runner.protocol.framing import WireError

log = logging.getLogger(__name__)

HIGH_WATER_FRAMES = 10_000
FRAMES_PER_TURN = 256

# Plain integers and the backend's own methods, as in `zmq_router`: the wrappers cost as much as the calls.
_EVENTS = int(zmq.EVENTS)
_RCVMORE = int(zmq.RCVMORE)
_POLLIN = int(zmq.POLLIN)
_NOBLOCK = int(zmq.NOBLOCK)


class ZmqDealer:
    """A connection that is restored automatically.

    After a cut the socket is replaced by one with a fresh random identity, so that the router never mistakes
    it for the old connection. `on_link` is called at each connect: the caller then sends `Hello` and repeats
    unacknowledged messages.
    """

    def __init__(
        self, endpoint: str, *, on_frame: Callable[[list[bytes]], None], on_link: Callable[[], None]
    ) -> None:
        self._endpoint = endpoint
        self._on_frame, self._on_link = on_frame, on_link
        self._is_read_due = False
        self.is_linked = False

    def open(self) -> None:
        """Start to connect; must be called on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._context = zmq.Context(io_threads=1)
        self._connect()

    def close(self) -> None:
        """Close the socket; messages that the peer has not received yet are dropped."""
        self._disconnect()
        self._context.term()

    def send(self, messages: list[bytes]) -> bool:
        """Send one frame; return False, with nothing sent, if the link is down or full."""
        if not self.is_linked:
            return False
        try:
            ZmqSocket.send(self._socket, framing.pack(messages), _NOBLOCK)
        except zmq.ZMQError as error:
            log.debug("the link takes nothing now: %s", error)
            return False
        # A send may consume the edge that signals waiting frames.
        if not self._is_read_due:
            self._is_read_due = True
            self._loop.call_soon(self._read_frames)
        return True

    def _connect(self) -> None:
        self._socket = socket = self._context.socket(zmq.DEALER)
        for option, value in _OPTIONS.items():
            socket.set(option, value)
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
        while not monitor.closed and int(monitor.get(_EVENTS)) & _POLLIN:
            event = parse_monitor_message(monitor.recv_multipart(_NOBLOCK))["event"]
            if event == zmq.Event.DISCONNECTED:
                log.warning("the link to the coordinator was cut")
                self._disconnect()
                self._connect()
                return
            if not self.is_linked:
                self.is_linked = True
                self._on_link()
                self._read_frames()

    def _read_frames(self) -> None:
        self._is_read_due = False
        socket = self._socket
        for _ in range(FRAMES_PER_TURN):
            if socket.closed or not int(socket.get(_EVENTS)) & _POLLIN:
                return
            frame = socket.recv(_NOBLOCK)
            while socket.get(_RCVMORE):
                frame = socket.recv(_NOBLOCK)
            try:
                self._on_frame(framing.unpack(frame))
            except WireError as error:
                log.error("the coordinator sent what is no frame: %s", error)
            except Exception:
                # Boundary of the loop: one command that fails must not stop reading all others.
                log.exception("an order could not be carried out")
        if not self._is_read_due:
            self._is_read_due = True
            self._loop.call_soon(self._read_frames)


_OPTIONS: dict[int, int] = {
    zmq.LINGER: 0,
    zmq.SNDHWM: HIGH_WATER_FRAMES,
    zmq.RCVHWM: HIGH_WATER_FRAMES,
    zmq.MAXMSGSIZE: framing.MAX_FRAME_BYTES,
    zmq.HEARTBEAT_IVL: 1_000,
    zmq.HEARTBEAT_TIMEOUT: 5_000,
    zmq.HANDSHAKE_IVL: 5_000,
    zmq.IMMEDIATE: 1,
    zmq.RECONNECT_IVL: 50,
    zmq.RECONNECT_IVL_MAX: 1_000,
}

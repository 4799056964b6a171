"""Effect: the part common to both ZeroMQ ends: socket options, and reading frames on the event loop."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod

import zmq
from zmq.backend import Socket as ZmqSocket

from runner.protocol import framing

log = logging.getLogger(__name__)

#: Frames that may wait in libzmq for one peer, each way; the effective bound is the worker's window.
HIGH_WATER_FRAMES = 10_000  # guard: frames-high-water
#: Frames read in one iteration of the loop, so that nothing else starves.
FRAMES_PER_TURN = 256

# Plain integers, and at both ends the backend's own `send`: the enums and wrappers of the outer layer cost as
# much as the calls themselves, and EVENTS is the coordinator's most frequent query.
EVENTS = int(zmq.EVENTS)
POLLIN = int(zmq.POLLIN)
NOBLOCK = int(zmq.NOBLOCK)
SNDMORE_NOBLOCK = int(zmq.SNDMORE) | NOBLOCK
_RCVMORE = int(zmq.RCVMORE)

#: Options of the sockets at both ends.
OPTIONS: dict[int, int] = {
    zmq.LINGER: 0,
    zmq.SNDHWM: HIGH_WATER_FRAMES,
    zmq.RCVHWM: HIGH_WATER_FRAMES,
    zmq.MAXMSGSIZE: framing.PART_MAX_BYTES,
    zmq.HEARTBEAT_IVL: 1_000,
    zmq.HEARTBEAT_TIMEOUT: 5_000,
    zmq.HANDSHAKE_IVL: 5_000,
    zmq.IMMEDIATE: 1,
}


def send_parts(socket: zmq.Socket[bytes], messages: list[bytes]) -> None:
    """Send one frame of these messages, in as many parts as its size needs; the peer gets all or none.

    Raises:
        ZMQError: nothing was sent. The buffer is full, or the connection broke.
    """
    *parts, last = framing.split(framing.pack(messages))
    for part in parts:
        ZmqSocket.send(socket, part, SNDMORE_NOBLOCK)
    ZmqSocket.send(socket, last, NOBLOCK)


class FrameSocket:
    """A ZeroMQ socket whose frames are read on the running loop, a bounded number per iteration.

    The descriptor of a ZeroMQ socket signals edges only, and a send may consume one. So a read is also
    scheduled after each send and after each full turn.
    """

    _loop: asyncio.AbstractEventLoop
    _socket: zmq.Socket[bytes]

    def __init__(self) -> None:
        self._is_read_due = False

    def _schedule_read(self) -> None:
        if not self._is_read_due:
            self._is_read_due = True
            self._loop.call_soon(self._read_frames)

    def _read_frames(self) -> None:
        self._is_read_due = False
        socket = self._socket
        for _ in range(FRAMES_PER_TURN):
            # A frame just handled may have closed the socket.
            if socket.closed or not int(socket.get(EVENTS)) & POLLIN:
                return
            try:
                parts = [socket.recv(NOBLOCK)]
                while socket.get(_RCVMORE):
                    parts.append(socket.recv(NOBLOCK))
            except zmq.ZMQError as error:
                log.warning("lost an incoming frame: %s", error)
                break
            self._handle_parts(parts)
        self._schedule_read()

    @abstractmethod
    def _handle_parts(self, parts: list[bytes]) -> None:
        """Handle the parts of one received message; must not raise."""

"""Effect: the coordinator's ZeroMQ socket: a ROUTER to which workers and the probe connect."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from collections.abc import Callable

import zmq
from zmq.backend import Socket as ZmqSocket

from runner.errors import RefusedStart
from runner.protocol import framing
from runner.protocol import worker as worker_protocol
from runner.protocol.framing import WireError
from runner.protocol.worker import Hello
from runner.protocol.zmq_socket import OPTIONS, SNDMORE_NOBLOCK, FrameSocket, send_parts

log = logging.getLogger(__name__)

#: The kernel's limit on the path of a Unix socket.
PATH_MAX_BYTES = 107
# A plain integer, as in `zmq_socket`.
_UNREACHABLE = int(zmq.EHOSTUNREACH)


class ZmqRouter(FrameSocket):
    """One socket on one loop; peers are known by the name in their `Hello`.

    A peer's first frame must be a `Hello` with the right token and protocol. A peer that repeats it from a
    new identity has reconnected, and its older identity is forgotten. All other frames are dropped, counted
    and reported to `on_bad_frame`; no frame can raise out of the reader.
    """

    def __init__(
        self,
        endpoint: str,
        token: str,
        *,
        on_frame: Callable[[str, list[bytes]], None],
        on_hello: Callable[[str, Hello], None],
        on_bad_frame: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.endpoint = endpoint
        self.bad_frames = 0
        self._token = token.encode()
        self._on_frame, self._on_hello, self._on_bad_frame = on_frame, on_hello, on_bad_frame
        self._names: dict[bytes, str] = {}
        self._identities: dict[str, bytes] = {}
        #: Peers whose connection was found broken by a send.
        self._disconnected: set[str] = set()

    def open(self) -> None:
        """Bind and start reading; must be called on the running loop.

        Raises:
            RefusedStart: the endpoint can't be bound.
        """
        _check_path(self.endpoint)
        self._loop = asyncio.get_running_loop()
        self._context = zmq.Context(io_threads=1)
        self._socket = socket = self._context.socket(zmq.ROUTER)
        for option, value in OPTIONS.items():
            socket.set(option, value)
        socket.set(zmq.ROUTER_MANDATORY, 1)
        umask = os.umask(0o077)
        try:
            socket.bind(self.endpoint)
        except zmq.ZMQError as error:
            socket.close()
            self._context.term()
            raise RefusedStart(f"cannot bind {self.endpoint}: {error}") from error
        finally:
            os.umask(umask)
        self._descriptor = int(socket.get(zmq.FD))
        self._loop.add_reader(self._descriptor, self._read_frames)
        self._schedule_read()

    def close(self) -> None:
        """Stop reading and close the socket; frames that a peer has not received are dropped."""
        self._loop.remove_reader(self._descriptor)
        self._socket.close(linger=0)
        self._context.term()
        self._names.clear()
        self._identities.clear()

    def send(self, peer: str, messages: list[bytes]) -> bool:
        """Send one frame to one peer; return False if the peer is unknown or its buffer is full."""
        identity = self._identities.get(peer)
        if identity is None:
            return False
        try:
            ZmqSocket.send(self._socket, identity, SNDMORE_NOBLOCK)
            send_parts(self._socket, messages)
        except zmq.ZMQError as error:
            log.debug("cannot send to %s now: %s", peer, error)
            if error.errno == _UNREACHABLE:
                self._disconnected.add(peer)
            return False
        self._schedule_read()
        return True

    def is_disconnected(self, peer: str) -> bool:
        """Return whether the last send failed on a broken connection.

        A peer that reconnects sends `Hello` again.
        """
        return peer in self._disconnected

    def forget_peer(self, peer: str) -> None:
        """Drop further frames of this peer until it sends a new `Hello`."""
        self._disconnected.discard(peer)
        identity = self._identities.pop(peer, None)
        if identity is not None:
            del self._names[identity]

    def _handle_parts(self, parts: list[bytes]) -> None:
        # A router puts the identity of the peer before its message.
        identity, *frames = parts
        name = self._names.get(identity)
        try:
            messages = framing.unpack(framing.join(frames))
            if messages and worker_protocol.tag_of(messages[0]) == _HELLO_TAG:
                name = self._handle_hello(identity, messages[0])
                del messages[0]
            elif name is None:
                raise WireError("a frame before the hello")
            if messages:
                self._on_frame(name, messages)
        except worker_protocol.UNDECODABLE as error:
            self.bad_frames += 1
            self._on_bad_frame(f"{name or 'unknown peer'}: {error}")
        except Exception:
            # Boundary of the loop: a failure on one peer's messages must not stop the others.
            log.exception("failed to handle a message from %s", name)

    def _handle_hello(self, identity: bytes, message: bytes) -> str:
        hello = worker_protocol.from_worker_decoder.decode(message)
        if not isinstance(hello, Hello) or not hello.name:
            raise WireError("the first message is not a hello")
        if not hmac.compare_digest(hello.token.encode("utf-8", "replace"), self._token):
            raise WireError("a hello with a wrong token")
        if hello.protocol != worker_protocol.PROTOCOL:
            # Workers run the same version, unless the program was replaced after this process had started.
            raise WireError(
                f"{hello.name} uses protocol {hello.protocol}, this server {worker_protocol.PROTOCOL}: "
                "the installed program was replaced; restart the server"
            )
        self.forget_peer(hello.name)
        old_name = self._names.pop(identity, None)
        if old_name is not None:
            self._identities.pop(old_name, None)
        self._names[identity] = hello.name
        self._identities[hello.name] = identity
        self._on_hello(hello.name, hello)
        return hello.name


_HELLO_TAG = 20


def _check_path(endpoint: str) -> None:
    path = endpoint.removeprefix("ipc://")
    if path != endpoint and len(os.fsencode(path)) > PATH_MAX_BYTES:
        raise RefusedStart(
            f"the socket path {path} is longer than {PATH_MAX_BYTES} bytes; "
            "set XDG_RUNTIME_DIR or TMPDIR to a shorter folder"
        )

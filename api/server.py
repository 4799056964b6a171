"""Effect: the front process: uvicorn on inherited sockets, the stream to the coordinator, and shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import sys
from collections.abc import Iterator

import uvicorn
import uvloop

from api.app import App
from api.http.connection import Connection, ConnectionLimits
from api.routes.state import FrontState
from runner.processes import logs
from runner.processes.child import FrontConfig, ignore_terminal_signals, read_config
from runner.protocol import front as front_protocol

logger = logging.getLogger(__name__)

#: Seconds after which uvicorn cancels unfinished responses; none should be left by then.
GRACEFUL_S = 1
#: Seconds after which slow clients are disconnected, so that the shutdown stays within a second.
ABORT_CONNECTIONS_S = 0.7
#: A process that is still alive this long (s) after its shutdown began exits at once.
FORCED_EXIT_S = 3.0
#: Longest idle time of a connection between two requests, in seconds.
KEEP_ALIVE_S = 75


class FrontServer(uvicorn.Server):
    """uvicorn without signal handlers; reports to the coordinator when it accepts requests."""

    def __init__(self, config: uvicorn.Config, front: FrontState) -> None:
        super().__init__(config)
        self._front = front

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: only the coordinator handles signals."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start accepting requests, then report that to the coordinator."""
        await super().startup(sockets)
        # The objects of the start live until the exit: exclude them from garbage collection.
        gc.collect()
        gc.freeze()
        self._front.coordinator.send(front_protocol.FrontHello(os.getpid()))  # guard: front-hello


async def serve(config: FrontConfig, lifeline: socket.socket) -> None:
    """Serve requests until the coordinator sends `Exit` or is gone."""
    loop = asyncio.get_running_loop()
    end_requested = asyncio.Event()
    front = FrontState(config, end_requested.set)
    stream = socket.socket(fileno=config.control_fd)
    os.set_inheritable(config.control_fd, False)
    await loop.create_unix_connection(lambda: front.coordinator, sock=stream)
    lifeline.setblocking(False)
    loop.add_reader(lifeline.fileno(), _on_lifeline, lifeline, front)
    listening = [socket.socket(fileno=fd) for fd in config.listen_fds]  # guard: inherited-socket
    for fd in config.listen_fds:
        os.set_inheritable(fd, False)
    server = FrontServer(_uvicorn_config(config, App(front)), front)
    shutdown = loop.create_task(_shut_down(end_requested, server))
    try:
        await server.serve(sockets=listening)
        if shutdown.done():
            shutdown.result()
    finally:
        shutdown.cancel()
        loop.remove_reader(lifeline.fileno())
        front.validators.close()
        front.coordinator.close()


async def _shut_down(end_requested: asyncio.Event, server: FrontServer) -> None:
    await end_requested.wait()
    server.should_exit = True
    asyncio.get_running_loop().call_later(FORCED_EXIT_S, os._exit, 0)
    await asyncio.sleep(ABORT_CONNECTIONS_S)
    for connection in list(server.server_state.connections):
        if isinstance(connection, Connection):
            connection.abort()


def _on_lifeline(lifeline: socket.socket, front: FrontState) -> None:
    try:
        is_closed = not lifeline.recv(4096)
    except BlockingIOError:
        return
    except OSError:
        is_closed = True
    if is_closed:
        asyncio.get_running_loop().remove_reader(lifeline.fileno())
        front.on_coordinator_lost()


def _uvicorn_config(config: FrontConfig, app: App) -> uvicorn.Config:
    limits = ConnectionLimits()
    limits.receipt_s = config.receipt_timeout_s
    limits.stall_s = config.stream_stall_s
    protocol = type("LimitedConnection", (Connection,), {"limits": limits})
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACEFUL_S,
        backlog=4096,
    )


def main() -> None:
    """Run the front process (`python -m runner front`)."""
    ignore_terminal_signals()
    config, lifeline = read_config(int(sys.argv[sys.argv.index("--lifeline") + 1]), FrontConfig)
    logs.configure(config.log_format, config.log_level, "front")
    # uvicorn would log every malformed request, and its own start and end.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.access").propagate = False
    uvloop.run(serve(config, lifeline))


if __name__ == "__main__":
    main()

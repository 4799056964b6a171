"""Effect: the front process: uvicorn on the inherited socket, the stream to the coordinator, and the end."""

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

#: uvicorn cancels what is still being answered then; nothing should be left by that time.
GRACEFUL_S = 1
#: Clients that neither take nor send what is due are cut off then, so that the end comes within a second.
ABORT_CONNECTIONS_S = 0.7
#: A process that is still there so long after its end began is ended the hard way.
FORCED_EXIT_S = 3.0
#: A silent connection between two requests.
KEEP_ALIVE_S = 75


class FrontServer(uvicorn.Server):
    """uvicorn that leaves signals alone and says when it answers."""

    def __init__(self, config: uvicorn.Config, front: FrontState) -> None:
        super().__init__(config)
        self._front = front

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Only the coordinator heeds signals."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, then tell the coordinator."""
        await super().startup(sockets)
        # What lives from here on lives for ever: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        self._front.coordinator.send(front_protocol.FrontHello(os.getpid()))  # guard: front-hello


async def serve(config: FrontConfig, lifeline: socket.socket) -> None:
    """Answer until the coordinator says `Exit` or is gone."""
    loop = asyncio.get_running_loop()
    end_requested = asyncio.Event()
    front = FrontState(config, end_requested.set)
    stream = socket.socket(fileno=config.control_fd)
    os.set_inheritable(config.control_fd, False)
    await loop.create_unix_connection(lambda: front.coordinator, sock=stream)
    lifeline.setblocking(False)
    loop.add_reader(lifeline.fileno(), _on_lifeline, lifeline, front)
    listening = socket.socket(fileno=config.listen_fd)  # guard: inherited-socket
    os.set_inheritable(config.listen_fd, False)
    server = FrontServer(_uvicorn_config(config, App(front)), front)
    shutdown = loop.create_task(_shut_down(end_requested, server))
    try:
        await server.serve(sockets=[listening])
        if shutdown.done():
            shutdown.result()
    finally:
        shutdown.cancel()
        loop.remove_reader(lifeline.fileno())
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
    """Entry of `python -m runner front`."""
    ignore_terminal_signals()
    config, lifeline = read_config(int(sys.argv[sys.argv.index("--lifeline") + 1]), FrontConfig)
    logs.configure(config.log_format, config.log_level, "front")
    # uvicorn tells of every malformed request and of its own start and end: noise beside ours.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.access").propagate = False
    uvloop.run(serve(config, lifeline))


if __name__ == "__main__":
    main()

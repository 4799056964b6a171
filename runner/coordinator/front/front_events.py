"""Effect: what the fronts' connections bring: new fronts, requests, lost fronts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from runner.coordinator.front.requests import Desk
from runner.coordinator.front.subscriptions import Subscriptions
from runner.coordinator.processes.front_pool import FrontHandle
from runner.protocol import front as front_protocol


class FrontEvents:
    """Fronts start before the store is open: their requests are kept until recovery is done."""

    def __init__(self) -> None:
        #: Set once the first front answers.
        self.first_ready = asyncio.Event()
        self._desk: Desk | None = None
        self._watch: Subscriptions | None = None
        self._greet: Callable[[], Sequence[bytes]] | None = None
        self._is_open = False
        self._kept: list[tuple[FrontHandle, front_protocol.ToCoordinator]] = []

    def connect(self, *, desk: Desk, watch: Subscriptions, greet: Callable[[], Sequence[bytes]]) -> None:
        """The components are there; `greet` gives the messages that a new front is sent."""
        self._desk, self._watch, self._greet = desk, watch, greet

    def open(self) -> None:
        """Recovery is done: answer the requests that were kept, and all later ones at once."""
        assert self._desk is not None
        self._is_open = True
        kept, self._kept = self._kept, []
        for front, question in kept:
            self._desk.question(front, question)

    def on_front_connected(self, front: FrontHandle) -> None:
        """A front has connected: send it what it has to know."""
        if self._greet is not None:
            for message in self._greet():
                front.send(message)
        self.first_ready.set()

    def on_request(self, front: FrontHandle, request: front_protocol.ToCoordinator) -> None:
        """A front has sent a request."""
        if self._is_open and self._desk is not None:
            self._desk.question(front, request)
        else:
            self._kept.append((front, request))

    def on_front_lost(self, front: FrontHandle) -> None:
        """A front has died; its clients reconnect by themselves."""
        if self._watch is not None:
            self._watch.remove_front(front)

"""Effect: handles the connections of fronts: new fronts, requests, lost fronts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from runner.coordinator.front.requests import FrontRequests
from runner.coordinator.front.subscriptions import Subscriptions
from runner.coordinator.processes.front_pool import FrontHandle
from runner.protocol import front as front_protocol


class FrontEvents:
    """Keeps the requests of fronts until recovery is done, because fronts start before the store is open.

    Call `connect` once the components exist, then `open`. All methods run on the event loop.
    """

    def __init__(self) -> None:
        #: Set once the first front has connected.
        self.first_ready = asyncio.Event()
        self._requests: FrontRequests | None = None
        self._subscriptions: Subscriptions | None = None
        self._initial_messages: Callable[[], Sequence[bytes]] | None = None
        self._is_open = False
        self._deferred: list[tuple[FrontHandle, front_protocol.ToCoordinator]] = []

    def connect(
        self,
        *,
        requests: FrontRequests,
        subscriptions: Subscriptions,
        initial_messages: Callable[[], Sequence[bytes]],
    ) -> None:
        """Connect the components; `initial_messages` returns the messages for a new front."""
        self._requests, self._subscriptions, self._initial_messages = (
            requests,
            subscriptions,
            initial_messages,
        )

    def open(self) -> None:
        """Answer the kept requests in their order, and all later ones at once; called after recovery."""
        assert self._requests is not None
        self._is_open = True
        deferred, self._deferred = self._deferred, []
        for front, request in deferred:
            self._requests.handle(front, request)

    def on_front_connected(self, front: FrontHandle) -> None:
        """Send a new front its initial messages."""
        if self._initial_messages is not None:
            for message in self._initial_messages():
                front.send(message)
        self.first_ready.set()

    def on_request(self, front: FrontHandle, request: front_protocol.ToCoordinator) -> None:
        """Handle a request, or keep it until recovery is done."""
        if self._is_open and self._requests is not None:
            self._requests.handle(front, request)
        else:
            self._deferred.append((front, request))

    def on_front_lost(self, front: FrontHandle) -> None:
        """Drop the subscriptions of a front that has died; its clients reconnect by themselves."""
        if self._subscriptions is not None:
            self._subscriptions.remove_front(front)

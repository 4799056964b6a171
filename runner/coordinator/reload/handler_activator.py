"""Effect: activates handlers: what discovery found, with the operator's overrides applied."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from runner.coordinator.queue.queue_manager import QueueManager
from runner.coordinator.runtime import value_names
from runner.coordinator.runtime.value_store import ValueStore
from runner.discovery.handler_registry import HandlerRegistry
from runner.handlers.overrides import Overrides
from runner.handlers.spec import HandlerSpec
from runner.protocol import front as front_protocol

log = logging.getLogger(__name__)

#: A request for a handler waits this long for sources that may define it.
HANDLER_WAIT_S = 30.0
#: The same where the sources that are still being imported defined other names before.
UNEXPECTED_WAIT_S = 2.0


class HandlerActivator:
    """Activates descriptions and overrides in the queue, stores descriptions, and calls `on_change`."""

    def __init__(
        self,
        *,
        handler_registry: HandlerRegistry,
        overrides: Overrides,
        queue_manager: QueueManager,
        values: ValueStore,
        on_change: Callable[[bytes], None],
    ) -> None:
        self._handler_registry = handler_registry
        self._overrides = overrides
        self._queue_manager = queue_manager
        #: Holds the descriptions of sources.
        self._values = values
        #: Called with the message for fronts once the queue has the new handlers.
        self._on_change = on_change

    def effective_specs(self) -> dict[str, HandlerSpec]:
        """All known handlers, with the operator's options in place of their own."""
        return {name: self._overrides.apply_to(spec) for name, spec in self._handler_registry.specs.items()}

    def handlers_message(self) -> bytes:
        """All known handlers, encoded for fronts."""
        return front_protocol.encode(
            front_protocol.HandlersUpdate(
                list(self.effective_specs().values()), self._handler_registry.describing
            )
        )

    def apply(self) -> None:
        """Activate the current descriptions."""
        self._queue_manager.set_handlers(self.effective_specs())
        self._on_change(self.handlers_message())

    async def describe_sources(self) -> None:
        """Describe all sources that were not described before.

        Raises:
            RunnerError: two handlers have the same name.
        """
        await self._handler_registry.describe_all()
        self._store_descriptions()
        self._warn_about_unused()

    def replace_overrides(self, overrides: Overrides) -> None:
        """Activate overrides that a reload has read."""
        self._overrides = overrides
        self.apply()
        self._store_descriptions()
        self._warn_about_unused()

    async def wait_for_handler(self, name: str) -> None:
        """Wait until it is known whether the handler exists: 30 s at most, 2 s if no source is expected to
        define it."""
        wait_s = HANDLER_WAIT_S if self._handler_registry.is_expected(name) else UNEXPECTED_WAIT_S
        try:
            await asyncio.wait_for(self._handler_registry.wait_for_handler(name), wait_s)
        except TimeoutError:
            log.warning("handler %s is unknown after %g s; sources are still being imported", name, wait_s)

    def _store_descriptions(self) -> None:
        """Store descriptions, so that these sources need no describing process at the next start."""
        for key in self._handler_registry.outdated_keys:
            self._values.put(value_names.DESCRIPTIONS + key, None)
        for key, text in self._handler_registry.cache_entries.items():
            self._values.put(value_names.DESCRIPTIONS + key, text)

    def _warn_about_unused(self) -> None:
        """Warn about overrides that match no handler: the operator may have misspelled a name."""
        for name in self._overrides.unused_tables(self._handler_registry.specs):
            log.warning("[handlers.%s] in the config changes nothing: there is no handler of this name", name)

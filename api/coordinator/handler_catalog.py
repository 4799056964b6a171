"""Effect: the handlers as the front knows them, with their input schemas compiled."""

from __future__ import annotations

import logging
from typing import Any

import jsonschema_rs
import msgspec

from api.coordinator.client import CoordinatorClient
from api.http.problems import FAULTS_MAX, Fault, escape, fault
from runner.errors import HandlerBroken, UnknownHandler
from runner.handlers.spec import HandlerSpec
from runner.jobs.job import Submission
from runner.jobs.traits import TraitError, TraitReader
from runner.protocol import front as front_protocol

logger = logging.getLogger(__name__)

#: The coordinator waits 30 s for a handler that is being described.
AWAIT_S = 30.0


class Entry:
    """A handler and its validator, compiled when the first input comes."""

    def __init__(self, spec: HandlerSpec) -> None:
        self.spec = spec
        self._validator: jsonschema_rs.Validator | None = None
        options = spec.options
        #: None where the handler names no fields: its jobs pay nothing.
        self._reading: TraitReader | None = None
        group_by = () if options.batch is None else options.batch.by
        if options.model_by is not None or options.size_by or group_by:
            schema = msgspec.json.decode(spec.input_schema)
            self._reading = TraitReader(options.model_by, options.size_by, group_by, schema=schema)
        self._open = spec.input_schema.strip() in (b"true", b"{}", b"")

    def take(self, asked: Submission, value: Any, at: str) -> list[Fault]:
        """Check the input and read from it what the handler names; `at` is the pointer to it."""
        faults = self.faults(value, at)
        if self._reading is None or faults:
            return faults
        told = self._reading.read(value)
        if isinstance(told, TraitError):
            return [fault(at + told.pointer, told.message)]
        asked.model, asked.size, asked.group = told
        return []

    def faults(self, value: Any, at: str) -> list[Fault]:
        """What the input schema has against `value`; `at` is the pointer to it."""
        if self._open:
            return []
        if self._validator is None:
            self._validator = _compile(self.spec)
        if self._validator.is_valid(value):
            return []
        found: list[Fault] = []
        for error in self._validator.iter_errors(value):
            pointer = at + "".join(f"/{escape(step)}" for step in error.instance_path)
            found.append(fault(pointer, error.message[:500]))
            if len(found) == FAULTS_MAX:
                break
        return found


class Catalog:
    """All handlers by name."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._describing = True
        #: Rises with every change; what is derived from the handlers is kept for one generation.
        self.generation = 0

    def replace(self, handlers: front_protocol.HandlersUpdate) -> None:
        """Take over what the coordinator says; validators of unchanged handlers are kept."""
        old = self._entries
        self._entries = {}
        for spec in handlers.specs:
            entry = old.get(spec.name)
            self._entries[spec.name] = entry if entry is not None and entry.spec == spec else Entry(spec)
        self._describing = handlers.describing
        self.generation += 1

    def specs(self) -> list[HandlerSpec]:
        """All handlers that are known now."""
        return [entry.spec for entry in self._entries.values()]

    def known(self, name: str) -> Entry | None:
        """The handler if its inputs can be checked now."""
        entry = self._entries.get(name)
        return entry if entry is not None and entry.spec.state == "ok" else None

    async def get(self, name: str, link: CoordinatorClient) -> Entry:
        """The handler, waiting for its description where that is under way.

        Raises:
            UnknownHandler, HandlerBroken
        """
        entry = self._entries.get(name)
        undecided = entry.spec.state == "describing" if entry is not None else self._describing
        if undecided:
            reply = await link.request_reply(front_protocol.AwaitHandler(0, name), AWAIT_S)
            entry = self._entries.get(name)
            if entry is None and reply.status >= 400 and reply.status != 404:
                raise HandlerBroken(_detail(reply) or f"handler {name} can't be used now")
        if entry is None:
            known = ", ".join(sorted(self._entries)[:20])
            raise UnknownHandler(f"there is no handler {name!r}; known: {known or 'none'}", handler=name)
        if entry.spec.state == "broken":
            raise HandlerBroken(
                f"handler {name} could not be imported: {_last_line(entry.spec.error)}",
                handler=name,
                error=entry.spec.error,
            )
        return entry


def _compile(spec: HandlerSpec) -> jsonschema_rs.Validator:
    schema = msgspec.json.decode(spec.input_schema)
    try:
        # Linear-time patterns: an input from outside can't make a pattern run for ever.
        return jsonschema_rs.validator_for(schema, offline=True, pattern_options=jsonschema_rs.RegexOptions())
    except ValueError as linear:
        # Look-around needs the other engine, which gives up after a bounded number of steps.
        try:
            return jsonschema_rs.validator_for(schema, offline=True)
        except ValueError as error:
            logger.warning("the input schema of %s can't be compiled: %s", spec.name, error)
            message = f"the input schema of handler {spec.name} can't be used: {str(error).splitlines()[0]}"
            raise HandlerBroken(message, handler=spec.name) from linear


def _detail(reply: front_protocol.Reply) -> str:
    document = msgspec.json.decode(reply.body) if reply.body else {}
    return str(document.get("detail", ""))


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no traceback was kept"

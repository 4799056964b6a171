"""Effect: the handlers known to the front, with their input schemas compiled."""

from __future__ import annotations

import logging
from typing import Any

import jsonschema_rs
import msgspec

from api.coordinator.client import CoordinatorClient
from api.http.problems import FAULTS_MAX, Fault, escape_pointer, fault
from runner.errors import HandlerBroken, UnknownHandler, unknown_handler_text
from runner.handlers.spec import HandlerSpec
from runner.jobs.job import Submission
from runner.jobs.traits import TraitError, TraitReader
from runner.protocol import front as front_protocol

logger = logging.getLogger(__name__)

#: Longest wait, in seconds, for a handler that is being described; the coordinator waits 30 s as well.
AWAIT_S = 30.0


class KnownHandler:
    """A handler with its validator, which is compiled at the first input."""

    def __init__(self, spec: HandlerSpec) -> None:
        self.spec = spec
        self._validator: jsonschema_rs.Validator | None = None
        options = spec.options
        #: None if no option of the handler names fields of the input.
        self._trait_reader: TraitReader | None = None
        group_by = () if options.batch is None else options.batch.by
        if options.model_by is not None or options.size_by or group_by:
            schema = msgspec.json.decode(spec.input_schema)
            self._trait_reader = TraitReader(options.model_by, options.size_by, group_by, schema=schema)
        self._takes_anything = spec.input_schema.strip() in (b"true", b"{}", b"")

    def accept_input(self, submission: Submission, value: Any, at: str) -> list[Fault]:
        """Validate the input and store its traits in the submission; return the faults.

        `at` is the JSON pointer to the input in the request.
        """
        faults = self.input_faults(value, at)
        if self._trait_reader is None or faults:
            return faults
        traits = self._trait_reader.read(value)
        if isinstance(traits, TraitError):
            return [fault(at + traits.pointer, traits.message)]
        submission.model, submission.size, submission.group = traits
        return []

    def input_faults(self, value: Any, at: str) -> list[Fault]:
        """Return the faults that the input schema finds in `value`; `at` is the JSON pointer to it."""
        if self._takes_anything:
            return []
        if self._validator is None:
            self._validator = _compile(self.spec)
        if self._validator.is_valid(value):
            return []
        found: list[Fault] = []
        for error in self._validator.iter_errors(value):
            pointer = at + "".join(f"/{escape_pointer(step)}" for step in error.instance_path)
            found.append(fault(pointer, error.message[:500]))
            if len(found) == FAULTS_MAX:
                break
        return found


class HandlerCatalog:
    """All handlers by name, as the coordinator sent them last."""

    def __init__(self) -> None:
        self._handlers: dict[str, KnownHandler] = {}
        self._describing = True
        #: Incremented at every change; data derived from the handlers is valid for one generation.
        self.generation = 0

    def replace(self, update: front_protocol.HandlersUpdate) -> None:
        """Replace all handlers; compiled validators of unchanged ones are kept."""
        old = self._handlers
        self._handlers = {}
        for spec in update.specs:
            handler = old.get(spec.name)
            self._handlers[spec.name] = (
                handler if handler is not None and handler.spec == spec else KnownHandler(spec)
            )
        self._describing = update.describing
        self.generation += 1

    def specs(self) -> list[HandlerSpec]:
        """Return all handlers known now."""
        return [handler.spec for handler in self._handlers.values()]

    def find_usable(self, name: str) -> KnownHandler | None:
        """Return the handler if its inputs can be validated now; None otherwise."""
        handler = self._handlers.get(name)
        return handler if handler is not None and handler.spec.state == "ok" else None

    async def resolve(self, name: str, coordinator: CoordinatorClient) -> KnownHandler:
        """Return the handler, after waiting for its description if that is in progress.

        Raises:
            UnknownHandler: no source has a handler of this name.
            HandlerBroken: its import failed.
            Unavailable: the coordinator did not reply.
        """
        handler = self._handlers.get(name)
        is_undecided = handler.spec.state == "describing" if handler is not None else self._describing
        if is_undecided:
            reply = await coordinator.request_reply(front_protocol.AwaitHandler(0, name), AWAIT_S)
            handler = self._handlers.get(name)
            if handler is None and reply.status >= 400 and reply.status != 404:
                raise HandlerBroken(_detail(reply) or f"handler {name} is not usable")
        if handler is None:
            raise UnknownHandler(unknown_handler_text(name, self._handlers), handler=name)
        if handler.spec.state == "broken":
            raise HandlerBroken(
                f"handler {name} could not be imported: {_last_line(handler.spec.error)}",
                handler=name,
                error=handler.spec.error,
            )
        return handler


def _compile(spec: HandlerSpec) -> jsonschema_rs.Validator:
    schema = msgspec.json.decode(spec.input_schema)
    try:
        # The linear-time regex engine: no input can make a pattern run for ever.
        return jsonschema_rs.validator_for(schema, offline=True, pattern_options=jsonschema_rs.RegexOptions())
    except ValueError as linear:
        # Patterns with look-around need the backtracking engine, which stops after a bounded number of steps.
        try:
            return jsonschema_rs.validator_for(schema, offline=True)
        except ValueError as error:
            logger.warning("cannot compile the input schema of %s: %s", spec.name, error)
            message = f"the input schema of handler {spec.name} is invalid: {str(error).splitlines()[0]}"
            raise HandlerBroken(message, handler=spec.name) from linear


def _detail(reply: front_protocol.Reply) -> str:
    document = msgspec.json.decode(reply.body) if reply.body else {}
    return str(document.get("detail", ""))


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no traceback is available"

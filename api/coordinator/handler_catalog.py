"""Effect: the handlers known to the front, with their input schemas compiled."""

from __future__ import annotations

import logging
import math
from typing import Any, NamedTuple

import msgspec

from api.coordinator.client import CoordinatorClient
from api.http.problems import FAULTS_MAX, Fault, fault
from api.validation.input_checker import InputChecker, InputRules, rules_of
from api.validation.json_text import InputFault
from api.validation.messages import CheckInput
from api.validation.pool import RequestValidation
from runner.errors import HandlerBroken, UnknownHandler, ValidationTimeout, unknown_handler_text
from runner.formats.printable import printable
from runner.handlers.spec import HandlerSpec
from runner.jobs.job import Submission
from runner.protocol import front as front_protocol

logger = logging.getLogger(__name__)

#: Longest wait, in seconds, for a handler that is being described; the coordinator waits 30 s as well.
AWAIT_S = 30.0
#: Inputs up to this size, times the visits of each value, are validated inline: under 2 ms if they are valid.
INLINE_MAX_BYTES = 512 * 1024
#: Different warnings about the inputs of one handler that are logged.
LOGGED_MAX = 20


class Acceptance(NamedTuple):
    """What the check of an input has found; the input is accepted if there are no faults."""

    faults: list[Fault]
    #: Texts about fields that the handler ignores.
    warnings: list[str]


class KnownHandler:
    """A handler and the rules of its inputs, which are compiled at the first input."""

    def __init__(self, spec: HandlerSpec) -> None:
        self.spec = spec
        self._rules = rules_of(spec)
        self._checker: InputChecker | None = None
        #: Warnings that the log has already.
        self._logged: set[str] = set()

    def check_options(self, submission: Submission, at: str) -> list[Fault]:
        """Return the faults of options that this handler can't have; `at` is the pointer to the job."""
        if submission.vram_bytes is not None and self.spec.options.gpus == 0:
            message = f"handler {self.spec.name} uses no GPU, so it takes no vram: leave the field out"
            return [fault(f"{at}/vram", message)]
        return []

    async def accept_input(
        self, submission: Submission, value: Any, at: str, validation: RequestValidation
    ) -> Acceptance:
        """Check a parsed input, and store what is read from it in the submission.

        `at` is the JSON pointer to the input in the request.

        Raises:
            ValidationTimeout: the schema takes too long for this input.
            Unavailable: too many inputs are being validated.
        """
        checker = self._checker
        if checker is None:
            checker = self._checker = _compile(self.spec, self._rules)
        faults = _find_faults_inline(checker, value, len(submission.input), validation)
        if faults is None:
            request = CheckInput(self._rules, submission.input, FAULTS_MAX)
            return await self._accept_elsewhere(submission, request, at, validation)
        if not faults:
            traits = checker.read_traits(value)
            if len(traits) == 3:
                submission.model, submission.size, submission.group = traits
                return self._accept(checker.unknown_fields.find(value))
            faults = [traits]
        return Acceptance([fault(at + pointer, message) for pointer, message in faults], [])

    async def accept_text(
        self, submission: Submission, text: bytes, depth_max: int, at: str, validation: RequestValidation
    ) -> Acceptance:
        """Parse and check an input as the client sent it, in a process; else as `accept_input`."""
        request = CheckInput(self._rules, text, FAULTS_MAX, depth_max)
        return await self._accept_elsewhere(submission, request, at, validation)

    async def _accept_elsewhere(
        self, submission: Submission, request: CheckInput, at: str, validation: RequestValidation
    ) -> Acceptance:
        try:
            found = await validation.check(request)
        except ValidationTimeout as error:
            error.detail.setdefault("errors", [fault(at, error.message)])
            raise
        if found.faults:
            return Acceptance([fault(at + pointer, message) for pointer, message in found.faults], [])
        submission.model, submission.size, submission.group = found.traits
        if request.depth_max is not None:
            submission.input = found.text
        return self._accept(found.warnings)

    def _accept(self, warnings: list[str]) -> Acceptance:
        """Accept an input; log the warnings that the log does not have yet."""
        for warning in warnings:
            if warning not in self._logged and len(self._logged) < LOGGED_MAX:
                self._logged.add(warning)
                logger.warning("handler %s: %s", self.spec.name, printable(warning))
        return Acceptance([], warnings)


def _find_faults_inline(
    checker: InputChecker, value: Any, size_bytes: int, validation: RequestValidation
) -> list[InputFault] | None:
    """Return the faults that the schema finds in `value`, which takes `size_bytes` as JSON.

    None if the search could take long: a process must do it.
    """
    validator = checker.validator
    if validator is None:
        return []
    visits = validator.visits
    work = math.inf if visits is None else size_bytes * visits  # guard: slow-schemas-elsewhere
    if work <= INLINE_MAX_BYTES and validator.is_valid(value):
        return []
    return validator.find_faults(value, FAULTS_MAX) if validation.take_inline(work) else None


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
            text = unknown_handler_text(name, self._handlers)
            if self._describing:
                text += "; some sources are still being imported, see `runner handlers`"
            raise UnknownHandler(text, handler=name)
        if handler.spec.state == "broken":
            raise HandlerBroken(
                f"handler {name} could not be imported: {_last_line(handler.spec.error)}",
                handler=name,
                error=handler.spec.error,
            )
        return handler


def _compile(spec: HandlerSpec, rules: InputRules) -> InputChecker:
    try:
        return InputChecker(rules)
    except ValueError as error:
        logger.warning("cannot compile the input schema of %s: %s", spec.name, error)
        message = f"the input schema of handler {spec.name} is invalid: {str(error).splitlines()[0]}"
        raise HandlerBroken(message, handler=spec.name) from error


def _detail(reply: front_protocol.Reply) -> str:
    document = msgspec.json.decode(reply.body) if reply.body else {}
    return str(document.get("detail", ""))


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no traceback is available"

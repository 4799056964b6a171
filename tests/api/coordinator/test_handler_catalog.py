"""Pure: inputs are held to the handlers' schemas."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from api.coordinator.handler_catalog import HandlerCatalog, KnownHandler
from api.http.problems import FAULTS_MAX, Fault
from api.validation.pool import RequestValidation, ValidatorPool
from runner.errors import HandlerBroken
from runner.handlers.spec import HandlerOptions
from runner.jobs.job import Submission
from runner.protocol import front as front_protocol
from tests.api.fake_coordinator import spec


class Entry:
    """A handler of this schema, whose inputs are all small."""

    def __init__(self, schema: Any, options: HandlerOptions | None = None) -> None:
        text = msgspec.json.encode(schema)
        self.handler = KnownHandler(spec("h", input_schema=text, options=options or HandlerOptions()))

    def input_faults(self, value: Any, at: str) -> list[Fault]:
        return self.accept_input(Submission("id", "h", b""), value, at)

    def accept_input(self, submission: Submission, value: Any, at: str) -> list[Fault]:
        submission.input = msgspec.json.encode(value)

        async def accept() -> list[Fault]:
            pool = ValidatorPool()
            validation = RequestValidation(pool, 30)
            try:
                return (await self.handler.accept_input(submission, value, at, validation)).faults
            finally:
                pool.close()
                async with asyncio.timeout(20):
                    while pool.pids:
                        await asyncio.sleep(0.01)

        return asyncio.run(accept())


def entry(schema: Any) -> Entry:
    return Entry(schema)


@pytest.mark.parametrize("schema", [True, {}])
def test_an_open_schema_takes_anything(schema: Any) -> None:
    assert entry(schema).input_faults([None, {"a": 1}], "/input") == []


def test_pointers_are_rooted_where_the_input_stands() -> None:
    schema = {"properties": {"a/b": {"items": {"type": "integer"}}}}
    (fault,) = entry(schema).input_faults({"a/b": [1, "x"]}, "/jobs/2/input")
    assert fault["pointer"] == "/jobs/2/input/a~1b/1"


def test_types_are_strict() -> None:
    assert entry({"type": "integer"}).input_faults("1", "/input")
    assert entry({"type": "number"}).input_faults(True, "/input")
    assert not entry({"type": "integer"}).input_faults(1.0, "/input")


def test_faults_are_bounded() -> None:
    faults = entry({"items": {"type": "string"}}).input_faults(list(range(1000)), "/input")
    assert len(faults) == FAULTS_MAX


def test_a_pattern_can_not_run_for_ever() -> None:
    assert entry({"type": "string", "pattern": "^(a+)+$"}).input_faults("a" * 5000 + "!", "/input")


def test_what_the_handler_names_is_read_from_the_input() -> None:
    options = HandlerOptions(model_by="model", size_by=("width", "batch"))
    schema = {"properties": {"model": {"default": "small"}, "width": {"type": "integer"}}}
    named = Entry(schema, options)
    asked = Submission("id", "h", b"{}")
    assert named.accept_input(asked, {"model": "large", "width": 1000, "batch": 3}, "/input") == []
    assert (asked.model, asked.size, asked.group) == ("large", "1024,4", "")
    assert named.accept_input(asked, {"width": 8}, "/input") == []
    assert (asked.model, asked.size) == ("small", "8,")
    assert named.accept_input(asked, {"model": "x", "width": "8"}, "/input")[0]["pointer"] == "/input/width"
    (fault,) = named.accept_input(asked, {"model": {"name": "x"}}, "/jobs/3/input")
    assert fault["pointer"] == "/jobs/3/input/model" and "string" in fault["message"]
    other = Submission("id", "h", b"{}")
    assert entry(True).accept_input(other, {"model": {}}, "/input") == [] and other.model == ""


def test_look_around_is_understood() -> None:
    lookahead = entry({"type": "string", "pattern": "^(?=.*[0-9]).+$"})
    assert lookahead.input_faults("abc", "/input") and not lookahead.input_faults("a1", "/input")


@pytest.mark.parametrize(
    "schema", [{"$ref": "http://example.com/x"}, {"type": "nothing"}, {"$ref": "file:///etc"}]
)
def test_a_schema_that_reaches_out_or_makes_no_sense_is_refused(schema: Any) -> None:
    with pytest.raises(HandlerBroken):
        entry(schema).input_faults(1, "/input")


def test_compiled_schemas_of_unchanged_handlers_are_kept() -> None:
    catalog = HandlerCatalog()
    catalog.replace(front_protocol.HandlersUpdate([spec("a"), spec("b")], False))
    kept = catalog.find_usable("a")
    catalog.replace(front_protocol.HandlersUpdate([spec("a"), spec("b", description="new")], False))
    assert catalog.find_usable("a") is kept
    assert catalog.find_usable("c") is None and catalog.generation == 2

"""Pure: the extremes of every option of a handler and every setting with a bound."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pydantic import BaseModel, ValidationError

from runner.bounds import BYTES_MAX, SECONDS_MAX
from runner.errors import RefusedStart
from runner.handlers.decorator import definition_of, handler
from runner.handlers.options import OPTIONS
from runner.handlers.overrides import Overrides
from runner.handlers.spec import HandlerOptions, HandlerSpec, Source
from runner.settings.sections import DeviceSettings, LimitSettings, TenantSettings
from tests.faults.extremes import python_values

SPEC = HandlerSpec("x", "v1", "ok", Source("file", "/x.py", "x"))


async def plain(data: Any) -> Any:
    return data


@pytest.mark.parametrize("option", [*OPTIONS, "gpus", "version"])
def test_every_extreme_of_an_option_is_refused_or_can_be_described(option: str) -> None:
    for value in python_values():
        given: dict[str, Any] = {option: value}
        try:
            decorated = handler("x", **given)(plain)
        except (TypeError, ValueError) as error:
            assert option in str(error) or isinstance(error, TypeError), (option, value)
            continue
        definition = definition_of(decorated)
        assert definition is not None
        spec = msgspec.structs.replace(SPEC, options=definition.options, version=definition.version or "0")
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=HandlerSpec) == spec
        assert_bounded(definition.options)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_extreme_of_an_override_stops_the_start_or_can_be_described(option: str) -> None:
    for value in python_values():
        try:
            overrides = Overrides({"x": {option: value}})
        except RefusedStart as refused:
            assert "[handlers.x]" in refused.message
            continue
        assert_bounded(overrides.apply_to(SPEC).options)


def assert_bounded(options: HandlerOptions) -> None:
    for name, value in msgspec.structs.asdict(options).items():
        if name.endswith("_s") and value is not None:
            assert -1 <= value <= SECONDS_MAX, name
        elif isinstance(value, int):
            assert 0 <= value <= BYTES_MAX, name
    msgspec.json.encode(options)


@pytest.mark.parametrize(
    ("section", "name"),
    [
        (section, name)
        for section in (LimitSettings, DeviceSettings, TenantSettings)
        for name in section.model_fields
    ],
)
def test_every_extreme_of_a_setting_is_refused_or_within_64_bits(section: type[BaseModel], name: str) -> None:
    for value in python_values():
        try:
            found = getattr(section(**{name: value}), name)
        except ValidationError:
            continue
        assert found is None or isinstance(found, str) or 0 <= found <= BYTES_MAX
        msgspec.json.encode(found)

"""Pure: what is read from `RUNNER_*` variables beside the settings' own, and what is probably misspelt."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.settings.origins import list_settings
from runner.settings.settings import Settings, load_settings, merge_layers, read_layers, reload_overrides
from runner.settings.variables import handler_overrides, misspelt_variables

NAMES = [*Settings.model_fields]


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("RUNNER_PROT", "RUNNER_PORT"),
        ("RUNNER_GPU", "RUNNER_GPUS"),
        ("RUNNER_DATADIR", "RUNNER_DATA_DIR"),
        ("RUNNER_LIMIT__QUEUED", "RUNNER_LIMITS__QUEUED"),
        ("RUNNER_TOKEN_FIL", "RUNNER_TOKEN_FILE"),
    ],
)
def test_a_variable_that_resembles_a_setting_is_taken_for_a_misspelt_one(variable: str, meant: str) -> None:
    assert misspelt_variables([variable], NAMES) == [(variable, meant)]


def test_settings_and_variables_of_other_programs_are_left_alone() -> None:
    mine = [f"RUNNER_{name.upper()}" for name in NAMES]
    # Variables of CI systems that have the prefix.
    others = ["OS", "ARCH", "NAME", "TEMP", "TOOL_CACHE", "WORKSPACE", "DEBUG", "ENVIRONMENT", "TRACKING_ID"]
    client = ["RUNNER_URL", "RUNNER_TOKEN", "RUNNER_LIMITS__QUEUED", "PATH", "RUNNER", "MY_RUNNER_PROT"]
    assert misspelt_variables([*mine, *(f"RUNNER_{name}" for name in others), *client], NAMES) == []


def test_options_of_handlers_are_nested_by_name() -> None:
    tables = handler_overrides(
        {
            "RUNNER_HANDLERS__GREET__TIMEOUT": "5m",
            "RUNNER_HANDLERS__GREET__RETRIES": "3",
            "RUNNER_HANDLERS__Count-Words__preload": "true",
            "RUNNER_HANDLERS__a__b__timeout": "1s",
            "RUNNER_HANDLERS": "greet.py",
            "RUNNER_HANDLERS__TIMEOUT": "5m",
        }
    )
    assert tables == {
        "greet": {"timeout": "5m", "retries": 3},
        "Count-Words": {"preload": True},
        "a__b": {"timeout": "1s"},
    }


def test_they_override_the_config_file_option_by_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runner.toml"
    path.write_text('sources = ["greet.py"]\n[handlers.greet]\ntimeout = "1m"\nretries = 1\n')
    monkeypatch.setenv("RUNNER_HANDLERS__GREET__RETRIES", "3")
    settings = load_settings({"config": path})
    assert settings.overrides == {"greet": {"timeout": "1m", "retries": 3}}
    assert settings.handlers == [str(tmp_path / "greet.py")]
    assert reload_overrides(settings) == settings.overrides


def test_the_origin_of_an_option_is_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"RUNNER_HANDLERS__GREET__RETRIES": "3"}
    monkeypatch.setenv(*next(iter(environ.items())))
    read = read_layers({}, folder=tmp_path)
    origins = {one.name: one.origin for one in list_settings(merge_layers(read), read, environ)}
    assert origins["handlers.greet.retries"] == "RUNNER_HANDLERS__GREET__RETRIES"

from __future__ import annotations

import subprocess
import sys

import pytest

import runner


def test_every_exported_name_exists() -> None:
    assert [name for name in runner.__all__ if not hasattr(runner, name)] == []


def test_the_exported_names_are_sorted_and_listed() -> None:
    assert list(runner.__all__) == sorted(runner.__all__)
    assert set(runner.__all__) <= set(dir(runner))


def test_handler_is_the_decorator_whatever_was_imported_before() -> None:
    import runner.handlers.decorator
    from runner import handler

    assert handler is runner.handlers.decorator.handler


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = runner.nonsense


@pytest.mark.parametrize("module", ["runner", "runner.executor", "runner.discovery.describe"])
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    heavy = {"asyncio", "zmq", "pydantic", "fastapi", "apsw", "torch", "numpy", "api", "gpu", "socket"}
    code = f"import sys, {module}; print(*sorted({heavy!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_user_code_finds_handler_and_context_without_asyncio() -> None:
    code = "import sys; from runner import Context, handler, Retry; print('asyncio' in sys.modules)"
    found = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"

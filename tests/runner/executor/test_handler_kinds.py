from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.protocol import worker as worker_protocol
from tests.runner.executor.fake_worker import running_executor

TYPED = """
    from pydantic import BaseModel, Field
    class Prompt(BaseModel):
        text: str
        steps: int = Field(20, ge=1)
    class Image(BaseModel):
        size: int
    def f(data: Prompt) -> Image:
        return Image(size=len(data.text) * data.steps)
"""


def output(ended: worker_protocol.AttemptEnded) -> Any:
    assert ended.code is None, ended
    assert ended.output is not None
    return json.loads(ended.output)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(data): return data", {"x": 1}),
        ("def f(data, anything): return anything.job_id", "j"),
        ("def f(): return 'none'", "none"),
        ("def f(*both): return len(both)", 2),
        ("import functools\ndef g(a, b): return b['x']\nf = functools.partial(g, 1)", 1),
        ("def f(data: dict): return sorted(data)", ["x"]),
        ("def f(data): return None", None),
    ],
)
def test_a_function_gets_its_input_and_context(tmp_path: Path, code: str, expected: Any) -> None:
    with running_executor(tmp_path, code) as worker:
        assert output(worker.run("j", {"x": 1})) == expected


def test_a_class_loads_once_and_runs_often(tmp_path: Path) -> None:
    code = """
        class F:
            def __init__(self): self.loads = 0
            def load(self, ctx): self.loads += 1; self.device = ctx.device
            def run(self, data, ctx): return [self.loads, self.device, ctx.attempt]
            def unload(self): print("bye", flush=True)
    """
    with running_executor(tmp_path, code, "F", device="cuda:0", devices=["gpu1"]) as worker:
        assert output(worker.run("a")) == [1, "cuda:0", 1]
        assert output(worker.run("b")) == [1, "cuda:0", 1]
        loaded = worker.messages_of(worker_protocol.ExecutorLoaded)
        assert [one.executor for one in loaded] == [7]
        worker.send(worker_protocol.UnloadExecutor(7))
        assert worker.exit_code() == 0


def test_unload_runs_the_unload_of_the_class_and_exit_hooks(tmp_path: Path) -> None:
    code = f"""
        import atexit
        from pathlib import Path
        here = Path({str(tmp_path)!r})
        class F:
            def run(self, data): return 1
            def unload(self):
                (here / "unloaded").touch()
                atexit.register((here / "hooked").touch)
    """
    with running_executor(tmp_path, code, "F") as worker:
        worker.run()
        worker.send(worker_protocol.UnloadExecutor(7))
        assert worker.exit_code() == 0
    assert (tmp_path / "unloaded").exists()
    assert (tmp_path / "hooked").exists()


def test_coroutines_share_one_loop_with_their_load(tmp_path: Path) -> None:
    code = """
        import asyncio
        class F:
            async def load(self, ctx): self.loop = asyncio.get_running_loop()
            async def run(self, data, ctx):
                await asyncio.sleep(0)
                return asyncio.get_running_loop() is self.loop
    """
    with running_executor(tmp_path, code, "F", "coroutine") as worker:
        assert output(worker.run("a")) is True
        assert output(worker.run("b")) is True


@pytest.mark.parametrize(
    ("code", "kind", "expected"),
    [
        ("def f(data):\n yield 1\n yield {'a': 2}", "generator", [1, {"a": 2}]),
        ("def f(data):\n yield 1\n return 'end'", "generator", "end"),
        ("async def f(data):\n yield 1\n yield {'a': 2}", "async_generator", [1, {"a": 2}]),
        ("def f(data):\n return\n yield", "generator", []),
    ],
)
def test_generators_stream_what_they_yield(tmp_path: Path, code: str, kind: str, expected: Any) -> None:
    with running_executor(tmp_path, code, kind=kind) as worker:
        assert output(worker.run()) == expected
        chunks = [event["chunk"] for event in worker.events_of("output")]
        assert chunks == ([] if expected == [] else [1, {"a": 2}] if isinstance(expected, list) else [1])


def test_typed_input_becomes_a_model_and_a_model_becomes_output(tmp_path: Path) -> None:
    with running_executor(tmp_path, TYPED) as worker:
        assert output(worker.run("j", {"text": "abc", "steps": 2})) == {"size": 6}


def test_input_that_does_not_fit_is_told_by_pointers_and_not_retried(tmp_path: Path) -> None:
    with running_executor(tmp_path, TYPED) as worker:
        ended = worker.run("j", {"steps": 0})
        assert (ended.code, ended.retryable) == ("invalid_input", False)
        assert {error["pointer"] for error in ended.detail["errors"]} == {"/text", "/steps"}


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        ("dict", {}, []),
        ("list", [], {}),
        ("str", "", 1),
        ("bool", True, 1),
        ("int", 3, "3"),
        ("float", 2.5, "x"),
    ],
)
def test_plain_annotations_are_checked_without_pydantic(
    tmp_path: Path, annotation: str, good: Any, bad: Any
) -> None:
    code = f"import sys\ndef f(data: {annotation}): return [data, 'pydantic' in sys.modules]"
    with running_executor(tmp_path, code) as worker:
        assert output(worker.run("a", good)) == [good, False]
        assert worker.run("b", bad).code == "invalid_input"


def test_an_executor_starts_without_asyncio_and_pydantic(tmp_path: Path) -> None:
    code = "import sys\ndef f(): return sorted({'asyncio', 'pydantic', 'socket', 'zmq'} & set(sys.modules))"
    with running_executor(tmp_path, code) as worker:
        assert output(worker.run()) == []


def test_user_code_sees_the_marker_and_no_internals(tmp_path: Path) -> None:
    code = "import os\ndef f(): return {k: v for k, v in os.environ.items() if k.startswith('JOB_RUNNER_')}"
    with running_executor(tmp_path, code) as worker:
        assert output(worker.run()) == {"JOB_RUNNER_EXECUTOR": "test/7"}

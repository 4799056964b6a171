from __future__ import annotations

import time
from pathlib import Path

import pytest

from runner.protocol import worker as worker_protocol
from tests.runner.executor.fake_worker import running_executor

OUTCOMES = """
    from runner import JobCancelled, PermanentError, Retry
    class OutOfMemoryError(RuntimeError): pass
    def f(data):
        exec(data, globals())
"""


@pytest.mark.parametrize(
    ("code", "expected", "message", "retryable"),
    [
        ("raise ValueError('bad')", "handler_error", "ValueError: bad", True),
        ("raise PermanentError('404')", "permanent_error", "404", False),
        ("raise Retry('429')", "handler_error", "429", True),
        ("raise Retry('429', after=1e16)", "handler_error", "ValueError: a duration is at most ten", True),
        (
            "from datetime import UTC, datetime\nraise Retry('429', at=datetime.max.replace(tzinfo=UTC))",
            "handler_error",
            "429 (ValueError: Retry(at=...) is at most ten years ahead)",
            True,
        ),
        (
            "class Later(Retry):\n def __init__(self): pass\nraise Later",
            "handler_error",
            "the handler asks for a retry (AttributeError: ",
            True,
        ),
        ("raise MemoryError", "memory_exceeded", "MemoryError", True),
        ("raise OutOfMemoryError('CUDA')", "device_out_of_memory", "OutOfMemoryError: CUDA", True),
        ("def g(): g()\ng()", "handler_error", "RecursionError", True),
        ("raise KeyboardInterrupt", "handler_error", "KeyboardInterrupt", True),
        ("raise JobCancelled('mine')", "cancelled", "mine", False),
        ("raise ValueError('\\ud800')", "handler_error", "ValueError: ?", True),
        (
            "class E(Exception):\n def __str__(self): return 1/0\nraise E",
            "handler_error",
            "can't be made",
            True,
        ),
        ("raise ExceptionGroup('g', [ValueError()])", "handler_error", "ExceptionGroup", True),
    ],
)
def test_an_exception_is_an_end_and_not_the_executors(
    tmp_path: Path, code: str, expected: str, message: str, retryable: bool
) -> None:
    with running_executor(tmp_path, OUTCOMES) as worker:
        ended = worker.run("j", code)
        assert (ended.code, ended.retryable, ended.output) == (expected, retryable, None)
        assert message in ended.message
        assert worker.run("next", "0").code is None


def test_a_failure_carries_its_traceback_without_our_frames(tmp_path: Path) -> None:
    with running_executor(
        tmp_path, "def f(data):\n    deep()\ndef deep():\n    raise KeyError('x')"
    ) as worker:
        detail = worker.run().detail
        assert detail["type"] == "KeyError"
        assert "in deep" in detail["traceback"]
        assert "execution" not in detail["traceback"]


def test_a_long_traceback_is_cut_at_its_head(tmp_path: Path) -> None:
    with running_executor(tmp_path, "def f(data): raise ValueError('x' * 100_000 + 'end')") as worker:
        ended = worker.run()
        assert len(ended.detail["traceback"]) <= 16 * 1024
        assert ended.detail["traceback"].rstrip().endswith("end")
        assert len(ended.message) < 5000


def test_retry_says_when(tmp_path: Path) -> None:
    with running_executor(
        tmp_path, "from runner import Retry\ndef f(d): raise Retry('x', after='60s')"
    ) as worker:
        ended = worker.run()
        assert ended.retry_at is not None
        assert 55 < ended.retry_at - time.time() <= 60


@pytest.mark.parametrize(
    "expression",
    [
        "float('nan')",
        "[float('inf')]",
        "'\\ud800'",
        "object()",
        "2**70",
        "{float('nan')}",
        "{'a': 1j}",
        "{(1,): 1}",
    ],
)
def test_a_result_that_is_not_json_is_told_and_not_retried(tmp_path: Path, expression: str) -> None:
    with running_executor(tmp_path, f"def f(): return {expression}") as worker:
        ended = worker.run()
        assert (ended.code, ended.retryable) == ("result_not_serialisable", False)


def test_a_result_over_the_limit_is_too_large(tmp_path: Path) -> None:
    with running_executor(tmp_path, "def f(n): return 'x' * n", output_max_bytes=1000) as worker:
        assert worker.run("fits", 998).code is None
        assert worker.run("over", 999).code == "result_too_large"


@pytest.mark.parametrize("kind", ["generator", "async_generator"])
def test_a_generator_without_end_is_stopped_at_the_limit(tmp_path: Path, kind: str) -> None:
    head = "async def" if kind.startswith("async") else "def"
    code = f"""
        {head} f(data):
            try:
                while True:
                    yield "x" * 1000
            finally:
                print("closed")
    """
    with running_executor(tmp_path, code, kind=kind, output_max_bytes=50_000) as worker:
        assert worker.run().code == "result_too_large"
        assert len(worker.events_of("output")) == 49
        assert worker.logs_of() == [("stdout", None, "closed")]


@pytest.mark.parametrize(("code", "status"), [("3", 3), ("", 0), ("'text'", 1)])
def test_sys_exit_really_exits_and_is_no_success(tmp_path: Path, code: str, status: int) -> None:
    with running_executor(
        tmp_path, f"import sys\ndef f(d):\n    print('last words')\n    sys.exit({code})"
    ) as worker:
        worker.send(worker_protocol.RunAttempts(7, [worker.attempt("j")]))
        assert worker.exit_code() == status
        assert worker.messages_of(worker_protocol.AttemptEnded) == []
        assert worker.logs_of() == [("stdout", None, "last words")]


@pytest.mark.parametrize(
    "message",
    ["CUDA error: an illegal memory access was encountered", "CUDA error: device-side assert triggered"],
)
def test_after_a_sticky_device_error_the_executor_ends(tmp_path: Path, message: str) -> None:
    with running_executor(tmp_path, f"def f(d): raise RuntimeError({message!r})") as worker:
        ended = worker.run()
        assert (ended.code, ended.retryable) == ("handler_error", True)
        assert worker.exit_code() != 0


def test_a_load_that_fails_is_told_with_its_traceback_and_prints(tmp_path: Path) -> None:
    code = """
        print("importing")
        class F:
            def load(self, ctx): raise OSError("no weights")
            def run(self, data): return 1
    """
    with running_executor(tmp_path, code, "F") as worker:
        failed = worker.until(lambda: worker.messages_of(worker_protocol.LoadFailed))[0]
        assert (failed.code, failed.message) == ("load_error", "OSError: no weights")
        assert "in load" in failed.detail["traceback"]
        assert failed.detail["printed"] == ["importing"]
        assert worker.exit_code() != 0


@pytest.mark.parametrize("code", ["1/0", "def g(): pass", "import not_there_at_all", "def f(: pass"])
def test_a_module_that_cannot_be_used_is_a_load_error(tmp_path: Path, code: str) -> None:
    with running_executor(tmp_path, code) as worker:
        failed = worker.until(lambda: worker.messages_of(worker_protocol.LoadFailed))[0]
        assert failed.code == "load_error"


def test_memory_of_a_failed_attempt_is_let_go(tmp_path: Path) -> None:
    code = """
        import weakref
        class Big: pass
        held = []
        def f(data):
            if data == "fail":
                big = Big()
                held.append(weakref.ref(big))
                raise ValueError("with locals")
            return held[0]() is None
    """
    with running_executor(tmp_path, code) as worker:
        worker.run("a", "fail")
        assert worker.run("b").output == b"true"


def test_memory_is_let_go_also_where_several_errors_hold_it(tmp_path: Path) -> None:
    code = """
        import weakref
        class Big: pass
        held, kept = [], []
        def fail(why):
            big = Big()
            held.append(weakref.ref(big))
            raise ValueError(why)
        def caught(why):
            try: fail(why)
            except ValueError as error: kept.append(error)
            return kept[-1]
        def f(data):
            if data == "group":
                raise ExceptionGroup("several", [caught("one"), caught("two")])
            if data == "cause":
                try: fail("context")
                except ValueError: raise RuntimeError("last") from caught("cause")
            return [one() is None for one in held]
    """
    with running_executor(tmp_path, code) as worker:
        worker.run("a", "group")
        worker.run("b", "cause")
        assert worker.run("c").output == b"[true,true,true,true]"


def test_what_a_handler_prints_while_it_loads_belongs_to_its_first_attempt(tmp_path: Path) -> None:
    code = """
        print("import")
        class F:
            def load(self, ctx): print("load"); ctx.log.info("weights")
            def run(self, data): print("run")
    """
    with running_executor(tmp_path, code, "F") as worker:
        worker.run()
        assert [text for _, _, text in worker.logs_of()] == ["import", "load", "weights", "run"]

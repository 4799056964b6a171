"""What handlers do to their process, and what must hold nevertheless."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from runner.protocol import worker as worker_protocol
from tests.runner.executor.fake_worker import running_executor


@pytest.mark.parametrize(
    "body",
    [
        "os.closerange(0, 10)",
        "os.closerange(3, 100)",
        "fd = os.open('/dev/null', os.O_RDWR); [os.dup2(fd, n) for n in range(10)]",
        "d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)",
        "os.umask(0o777)",
        "locale.setlocale(locale.LC_ALL, 'C')",
        "[signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]",
        "sys.stdout.close(); sys.stderr.close()",
        "sys.stdout = sys.stderr = None",
        "logging.disable(); logging.root.handlers.clear()",
        "os.environ.clear()",
        "sys.path.clear()",
        "threading.Thread(target=time.sleep, args=(60,)).start()",
        "gc.disable(); sys.setrecursionlimit(100)",
        "subprocess.Popen(['sleep', '60'])",
    ],
)
def test_the_channel_survives(tmp_path: Path, body: str) -> None:
    code = f"""
        import gc, locale, logging, os, signal, subprocess, sys, tempfile, threading, time
        def f(d):
            if d: {body}
            return "fine"
    """
    with running_executor(tmp_path, code) as worker:
        assert worker.run("a", 1).output == b'"fine"'
        assert worker.run("b", 0).output == b'"fine"'


def test_a_channel_that_was_closed_ends_the_executor(tmp_path: Path) -> None:
    code = "import os, time\ndef f(d):\n os.closerange(3, 65536)\n time.sleep(60)"
    with running_executor(tmp_path, code) as worker:
        worker.send(worker_protocol.RunAttempts(7, [worker.attempt("j")]))
        begin = time.monotonic()
        assert worker.exit_code() == 71
        assert time.monotonic() - begin < 5
        assert worker.messages_of(worker_protocol.AttemptEnded) == []


def test_a_worker_that_went_away_ends_the_executor(tmp_path: Path) -> None:
    with running_executor(tmp_path, "import time\ndef f(d, ctx):\n ctx.output(1)\n time.sleep(60)") as worker:
        worker.send(worker_protocol.RunAttempts(7, [worker.attempt("j")]))
        worker.until(lambda: worker.events_of("output"))
        worker.channel.close()
        assert worker.process.wait(10) == 71


def test_garbage_on_the_channel_ends_the_executor(tmp_path: Path) -> None:
    with running_executor(tmp_path, "def f(d): return 1") as worker:
        worker.run()
        worker.channel.sendall(b"\x00\x00\x00\x02hi")
        assert worker.exit_code() == 71


def test_a_segfault_leaves_its_stack_on_standard_error(tmp_path: Path) -> None:
    with running_executor(tmp_path, "import ctypes\ndef f(d): ctypes.string_at(0)") as worker:
        worker.send(worker_protocol.RunAttempts(7, [worker.attempt("j")]))
        assert worker.exit_code() == -signal.SIGSEGV
        assert b"in f" in worker.printed["stderr"]
        assert worker.read_page()[0] == 1
        assert worker.read_page()[2] == 0


def test_os_exit_is_no_result(tmp_path: Path) -> None:
    with running_executor(tmp_path, "import os\ndef f(d): os._exit(0)") as worker:
        worker.send(worker_protocol.RunAttempts(7, [worker.attempt("j")]))
        assert worker.exit_code() == 0
        assert worker.messages_of(worker_protocol.AttemptEnded) == []


def test_a_forked_child_says_nothing_on_the_channel(tmp_path: Path) -> None:
    code = """
        import os, logging
        def f(d, ctx):
            for how in ("return", "raise", "exit", "talk"):
                pid = os.fork()
                if pid == 0:
                    print("child", how, flush=True)
                    logging.error("child logs")
                    ctx.progress(1); ctx.output("child")
                    if how == "return": return "from the child"
                    if how == "raise": raise ValueError
                    if how == "exit": raise SystemExit(3)
                    os._exit(0)
                os.waitpid(pid, 0)
            print("parent")
            return "from the parent"
    """
    with running_executor(tmp_path, code) as worker:
        assert worker.run().output == b'"from the parent"'
        assert worker.logs_of() == [("stdout", None, "parent")]
        assert worker.events_of("output") == []
        assert worker.run("again").output == b'"from the parent"'
        os.killpg(worker.process.pid, signal.SIGKILL)
        worker.exit_code()
        assert b"child talk" in worker.printed["stdout"]
        assert b"child logs" in worker.printed["stderr"]


def test_multiprocessing_works_both_ways(tmp_path: Path) -> None:
    code = """
        import multiprocessing
        def double(x): print("in child"); return 2 * x
        def f(how):
            with multiprocessing.get_context(how).Pool(2) as pool:
                return pool.map(double, [1, 2, 3])
    """
    with running_executor(tmp_path, code) as worker:
        assert worker.run("a", "fork").output == b"[2,4,6]"
        assert worker.run("b", "spawn").output == b"[2,4,6]"


def test_the_context_is_dead_after_its_attempt(tmp_path: Path) -> None:
    code = """
        kept = []
        def f(d, ctx):
            if not kept:
                kept.append(ctx)
                return
            old = kept[0]
            old.progress(50); old.metric("x", 1)
            said = []
            for use in (
                lambda: old.output(1), lambda: old.save_file("x", b""), lambda: old.open_file("x"),
                lambda: old.check_cancelled(), lambda: old.tmpdir, lambda: old.on_cancel(print),
            ):
                try: use()
                except RuntimeError as error: said.append(str(error))
            return [len(said), said[0], old.job_id]
    """
    with running_executor(tmp_path, code) as worker:
        worker.run("a")
        ended = worker.run("b")
        assert ended.output == b'[6,"attempt 1 of job a has ended; its context is dead","a"]'
        assert [
            note for note in worker.messages_of(worker_protocol.AttemptEvents) if note.events[0][0] != "log"
        ] == []


def test_a_thread_left_behind_gets_no_word_into_the_stream(tmp_path: Path) -> None:
    code = """
        import threading
        go, said = threading.Event(), threading.Event()
        def late(ctx):
            go.wait()
            ctx.progress(99)
            try: ctx.output("late")
            except RuntimeError: pass
            said.set()
        def f(d, ctx):
            if d == "leave": threading.Thread(target=late, args=(ctx,), daemon=True).start()
            else:
                go.set(); said.wait(10)
    """
    with running_executor(tmp_path, code) as worker:
        worker.run("a", "leave")
        worker.run("b")
        assert worker.events_of("output", "a") + worker.events_of("output", "b") == []
        assert worker.events_of("progress", "a") + worker.events_of("progress", "b") == []


def test_the_context_may_be_used_from_many_threads(tmp_path: Path) -> None:
    code = """
        import threading
        def f(d, ctx):
            def work(n):
                for i in range(200): ctx.output([n, i]); ctx.progress(i)
            threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
            [t.start() for t in threads]; [t.join() for t in threads]
    """
    with running_executor(tmp_path, code) as worker:
        ended = worker.run()
        chunks = [tuple(event["chunk"]) for event in worker.events_of("output")]
        assert len(chunks) == 800
        for n in range(4):
            assert [i for thread, i in chunks if thread == n] == list(range(200))
        assert [note.seq for note in worker.messages_of(worker_protocol.AttemptEvents)] == list(
            range(1, ended.seq)
        )


def test_output_waits_for_a_worker_that_does_not_read(tmp_path: Path) -> None:
    code = "def f(n, ctx):\n for i in range(n): ctx.output('x' * 50_000)\n return 'sent'"
    with running_executor(tmp_path, code, output_max_bytes=1 << 20) as worker:
        worker.send(worker_protocol.RunAttempts(7, [worker.attempt("j", 400)]))
        assert worker.wait_for_end().output == b'"sent"'
        assert len(worker.events_of("output")) == 400


def test_a_large_output_comes_whole(tmp_path: Path) -> None:
    with running_executor(tmp_path, "def f(n): return 'x' * n", output_max_bytes=20 << 20) as worker:
        ended = worker.run("j", 16 << 20)
        assert ended.output is not None
        assert len(ended.output) == (16 << 20) + 2


def test_an_orphan_does_not_live_on(tmp_path: Path) -> None:
    """Started for a parent that is another by now."""
    with running_executor(tmp_path, "def f(d): return 1") as worker:
        assert worker.run().code is None
        found = Path(f"/proc/{worker.process.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in found

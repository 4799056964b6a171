from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from runner.protocol import worker as worker_protocol
from tests.runner.executor.fake_worker import running_executor

SAVE = """
    import io
    from pathlib import Path
    def f(data, ctx):
        (ctx.tmpdir / "x").write_bytes(b"from a path")
        return [
            ctx.save_file("a b.png", b"bytes"),
            ctx.save_file("path.txt", ctx.tmpdir / "x"),
            ctx.save_file("open", io.BytesIO(b"from a file"), content_type="text/x"),
        ]
"""


def test_files_are_kept_under_their_attempt_with_their_sums(tmp_path: Path) -> None:
    with running_executor(tmp_path, SAVE) as worker:
        ended = worker.run("j")
        assert ended.output is not None
        references = json.loads(ended.output)
        folder = worker.files / "j" / "1"
        assert sorted(file.name for file in folder.iterdir()) == sorted(one["$file"] for one in references)
        for record, reference, content in zip(
            ended.files, references, (b"bytes", b"from a path", b"from a file"), strict=True
        ):
            assert (folder / record.id).read_bytes() == content
            assert record.sha256 == reference["sha256"] == hashlib.sha256(content).hexdigest()
            assert (record.size, record.attempt) == (len(content), 1)
        assert references[0]["url"] == "/v1/jobs/j/files/a%20b.png"
        assert [one["content_type"] for one in references] == ["image/png", "text/plain", "text/x"]


def test_the_private_folder_is_gone_after_the_attempt(tmp_path: Path) -> None:
    with running_executor(tmp_path, SAVE) as worker:
        worker.run("j")
        assert list((tmp_path / "tmp").iterdir()) == []


def test_the_same_name_again_replaces_the_file(tmp_path: Path) -> None:
    code = "def f(d, ctx):\n ctx.save_file('x', b'old')\n return ctx.save_file('x', b'new')"
    with running_executor(tmp_path, code) as worker:
        (record,) = worker.run().files
        (file,) = (worker.files / "j" / "1").iterdir()
        assert (file.name, file.read_bytes()) == (record.id, b"new")


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "a\\b", "", ".", "..", "...", "nul\0", "ä" * 128, "\ud800", None, 3]
)
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: object) -> None:
    with running_executor(tmp_path, f"def f(d, ctx): ctx.save_file({name!r}, b'')") as worker:
        ended = worker.run()
        assert ended.code == "handler_error"
        assert ended.message.startswith("ValueError")
        assert list(worker.files.iterdir()) == []


def test_a_content_type_that_no_header_has_is_refused(tmp_path: Path) -> None:
    code = """
        def f(data, ctx):
            refused = 0
            for bad in ("", "x" * 256, "a\\nb", "\\u00e9", "\\ud800", 3):
                try: ctx.save_file("x", b"", bad)
                except ValueError: refused += 1
            return [refused, ctx.save_file("x", b"", "text/" + "x" * 250)["content_type"][:6]]
    """
    with running_executor(tmp_path, code) as worker:
        assert worker.run("j").output == b'[6,"text/x"]'


def test_a_save_that_fails_leaves_nothing_half_done(tmp_path: Path) -> None:
    code = """
        class Broken:
            def read(self, size):
                raise OSError("gone")
        def f(d, ctx): ctx.save_file("x", Broken())
    """
    with running_executor(tmp_path, code) as worker:
        assert worker.run().message == "OSError: gone"
        assert list((worker.files / "j" / "1").iterdir()) == []


def test_files_of_a_failed_attempt_are_told_too(tmp_path: Path) -> None:
    with running_executor(tmp_path, "def f(d, ctx):\n ctx.save_file('x', b'1')\n raise ValueError") as worker:
        assert [record.name for record in worker.run().files] == ["x"]


def test_own_files_are_opened_without_asking(tmp_path: Path) -> None:
    code = "def f(d, ctx): return ctx.open_file(ctx.save_file('x', b'abc')).read().decode()"
    with running_executor(tmp_path, code) as worker:
        assert worker.run().output == b'"abc"'
        assert worker.messages_of(worker_protocol.AttemptRequest) == []


def test_other_files_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"theirs")
    with running_executor(tmp_path, "def f(d, ctx): return ctx.open_file(d).read().decode()") as worker:
        worker.send(worker_protocol.RunAttempts(7, [worker.attempt("j", {"$file": "the-id"})]))
        call = worker.until(lambda: worker.messages_of(worker_protocol.AttemptRequest))[0]
        assert (call.executor, call.job_id, call.attempt, call.op, call.argument) == (
            7,
            "j",
            1,
            "file",
            "the-id",
        )
        worker.send(worker_protocol.AttemptReply(call.request_id, 7, result=str(tmp_path / "elsewhere")))
        assert worker.wait_for_end().output == b'"theirs"'


@pytest.mark.parametrize("reference", [None, {}, 5, {"$file": 3}, ""])
def test_what_is_no_reference_is_refused(tmp_path: Path, reference: object) -> None:
    with running_executor(tmp_path, "def f(d, ctx): ctx.open_file(d)") as worker:
        assert "is not a file reference" in worker.run("j", reference).message

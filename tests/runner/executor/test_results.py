from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.protocol import worker as worker_protocol
from tests.runner.executor.fake_worker import FakeWorker, running_executor

#: One executor for all kinds of values: the input is the name of the function that makes the value.
MAKERS = """
    import dataclasses, datetime, decimal, enum, uuid
    from pathlib import Path
    from typing import Any
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.figure
    import numpy as np
    import PIL.Image
    from pydantic import BaseModel

    class Colour(enum.Enum):
        RED = "red"
    @dataclasses.dataclass
    class Box:
        label: str
        seen: set
    class Page(BaseModel):
        at: datetime.datetime
        parts: Any

    def image(mode="RGB"): return PIL.Image.new(mode, (2, 2))
    def in_tmpdir(ctx, name="notes.txt", content=b"text"):
        (ctx.tmpdir / name).write_bytes(content)
        return ctx.tmpdir / name
    def link(ctx):
        (ctx.tmpdir / "link").symlink_to(__file__)
        return ctx.tmpdir / "link"
    AT = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    VALUES = {
        "datetime": lambda ctx: AT,
        "date": lambda ctx: AT.date(),
        "time": lambda ctx: AT.time(),
        "uuid": lambda ctx: uuid.UUID(int=1),
        "enum": lambda ctx: Colour.RED,
        "decimal": lambda ctx: decimal.Decimal("1.50"),
        "set": lambda ctx: {1},
        "frozenset": lambda ctx: frozenset({1}),
        "tuple": lambda ctx: (1, {"a": {2}}),
        "dataclass": lambda ctx: [Box("a", {1})],
        "numpy": lambda ctx: [np.float32(1.5), np.int64(2), np.bool_(True)],
        "keys": lambda ctx: {Colour.RED: 1, np.int64(2): 2},
        "image": lambda ctx: image(),
        "floats": lambda ctx: image("F"),
        "figure": lambda ctx: matplotlib.figure.Figure(figsize=(1, 1)),
        "bytes": lambda ctx: {"raw": b"abc", "png": b"\\x89PNG\\r\\n\\x1a\\n..."},
        "path": lambda ctx: in_tmpdir(ctx),
        "many": lambda ctx: [image(), {"second": image()}, in_tmpdir(ctx, "output.png")],
        "model": lambda ctx: Page(at=AT, parts=[image(), b"abc"]),
        "outside": lambda ctx: Path(__file__),
        "linked": lambda ctx: link(ctx),
        "folder": lambda ctx: ctx.tmpdir,
        "array": lambda ctx: {"a": np.zeros(3)},
        "array in model": lambda ctx: Page(at=AT, parts=np.zeros(3)),
        "object": lambda ctx: object(),
        "nan": lambda ctx: np.float32("nan"),
    }
    def f(name, ctx): return VALUES[name](ctx)
"""


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeWorker]:
    with running_executor(tmp_path_factory.mktemp("results"), MAKERS) as found:
        yield found


def output_of(ended: worker_protocol.AttemptEnded) -> Any:
    assert ended.code is None, ended
    assert ended.output is not None
    return json.loads(ended.output)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("datetime", "2026-01-02T00:00:00Z"),
        ("date", "2026-01-02"),
        ("time", "00:00:00"),
        ("uuid", "00000000-0000-0000-0000-000000000001"),
        ("enum", "red"),
        ("decimal", "1.50"),
        ("set", [1]),
        ("frozenset", [1]),
        ("tuple", [1, {"a": [2]}]),
        ("dataclass", [{"label": "a", "seen": [1]}]),
        ("numpy", [1.5, 2, True]),
        ("keys", {"red": 1, "2": 2}),
    ],
)
def test_what_pydantic_serialises_may_be_returned(worker: FakeWorker, name: str, expected: Any) -> None:
    assert output_of(worker.run(f"value {name}", name)) == expected


@pytest.mark.parametrize(
    ("name", "file_names", "content_types"),
    [
        ("image", ["output.png"], ["image/png"]),
        ("floats", ["output.tiff"], ["image/tiff"]),
        ("figure", ["output.png"], ["image/png"]),
        ("bytes", ["output.bin", "output.png"], ["application/octet-stream", "image/png"]),
        ("path", ["notes.txt"], ["text/plain"]),
        ("many", ["output.png", "output-2.png", "output-3.png"], ["image/png"] * 3),
        ("model", ["output.png", "output.bin"], ["image/png", "application/octet-stream"]),
    ],
)
def test_images_bytes_and_paths_become_files(
    worker: FakeWorker, name: str, file_names: list[str], content_types: list[str]
) -> None:
    ended = worker.run(f"file {name}", name)
    text = json.dumps(output_of(ended))
    assert [one.name for one in ended.files] == file_names
    assert [one.content_type for one in ended.files] == content_types
    for one in ended.files:
        assert f'"$file": "{one.id}"' in text
        assert (worker.files / f"file {name}" / "1" / one.id).stat().st_size == one.size > 0


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("outside", "is no file in ctx.tmpdir"),
        ("linked", "is no file in ctx.tmpdir"),
        ("folder", "is no file in ctx.tmpdir"),
        ("array", "numpy.ndarray; return a list: array.tolist(), or save it by ctx.save_file at /a"),
        ("array in model", "numpy.ndarray; return a list: array.tolist()"),
        ("object", "return JSON values, a pydantic model or a dataclass"),
        ("nan", "not a JSON number"),
    ],
)
def test_anything_else_is_refused_with_a_hint(worker: FakeWorker, name: str, hint: str) -> None:
    ended = worker.run(f"refused {name}", name)
    assert (ended.code, ended.retryable) == ("result_not_serialisable", False)
    assert hint in ended.message


def test_the_annotation_decides_how_a_result_is_serialised(tmp_path: Path) -> None:
    code = """
        import dataclasses, datetime
        from typing import Annotated
        from pydantic import BaseModel, PlainSerializer
        class Base(BaseModel):
            a: int
        class Secret(Base):
            password: str
        Seconds = Annotated[datetime.datetime, PlainSerializer(lambda at: at.timestamp(), return_type=float)]
        @dataclasses.dataclass
        class Out:
            at: Seconds
            base: Base
        def f(d) -> Out:
            return Out(datetime.datetime(1970, 1, 1, 0, 1, tzinfo=datetime.UTC), Secret(a=1, password="x"))
    """
    with running_executor(tmp_path, code) as worker:
        assert output_of(worker.run()) == {"at": 60.0, "base": {"a": 1}}


def test_chunks_are_converted_as_outputs_are(tmp_path: Path) -> None:
    code = """
        import datetime, sys
        def f(d, ctx):
            ctx.output({1})
            yield datetime.date(2026, 1, 2)
            yield b"abc"
    """
    with running_executor(tmp_path, code, kind="generator") as worker:
        ended = worker.run()
        chunks = [event["chunk"] for event in worker.events_of("output")]
        assert chunks[:2] == [[1], "2026-01-02"]
        assert chunks[2]["$file"] == ended.files[0].id
        assert output_of(ended) == chunks[1:]


def test_each_job_of_a_batch_gets_its_own_files(tmp_path: Path) -> None:
    code = """
        def f(values: list, ctx):
            paths = [ctx.tmpdir / f"{value}.txt" for value in values]
            for path in paths: path.write_text("x")
            return paths
    """
    with running_executor(tmp_path, code, is_batched=True) as worker:
        worker.send(worker_protocol.RunAttempts(7, [worker.attempt("a", 1), worker.attempt("b", 2)]))
        for job_id, name in (("a", "1.txt"), ("b", "2.txt")):
            ended = worker.wait_for_end(job_id)
            assert [one.name for one in ended.files] == [name]
            assert output_of(ended)["url"] == f"/v1/jobs/{job_id}/files/{name}"


def test_slots_convert_results_too(tmp_path: Path) -> None:
    code = "async def f(d): return {'raw': b'abc', 'ids': {1}}"
    with running_executor(tmp_path, code, kind="coroutine", slots=2) as worker:
        ended = worker.run()
        assert output_of(ended)["raw"]["$file"] == ended.files[0].id
        assert output_of(ended)["ids"] == [1]


def test_results_of_plain_types_import_nothing(tmp_path: Path) -> None:
    code = """
        import sys
        def f(d) -> dict[str, list[int] | None]:
            return {name: [1] for name in {"pydantic", "pydantic_core", "PIL", "numpy"} & set(sys.modules)}
    """
    with running_executor(tmp_path, code) as worker:
        assert output_of(worker.run()) == {}

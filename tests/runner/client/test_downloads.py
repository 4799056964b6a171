"""Effect: files of a job are written to a folder under names that harm nothing."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from runner import AsyncClient, Client
from runner.client.downloads import NAME_MAX_BYTES, Download, safe_name
from runner.errors import NotFound, RunnerError
from tests.runner.client.fake_server import ID, CannedReply, Script, fake_server, problem


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a b.png", "a b.png"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..\\x", "_x"),
        ("/root", "_root"),
        (".bashrc", "bashrc"),
        ("...", "file"),
        ("", "file"),
        ("a\x00b\n\x1b", "a_b__"),
        ("C:\\x", "C__x"),
    ],
)
def test_a_name_can_not_leave_its_folder(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_a_long_name_keeps_its_ending() -> None:
    found = safe_name("ä" * 300 + ".png")
    assert found.endswith(".png") and len(found.encode()) <= NAME_MAX_BYTES


def reference(name: str, data: bytes) -> dict[str, Any]:
    return {
        "$file": name,
        "id": name,
        "name": name,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def routes(*extra: dict[str, Any]) -> dict[tuple[str, str], Script]:
    listed = [reference("a.png", b"one"), reference("../a.png", b"two"), *extra]
    return {
        ("GET", f"/v1/jobs/{ID}/files"): CannedReply(200, {"data": listed}),
        ("GET", f"/v1/jobs/{ID}/files/a.png"): CannedReply(200, [b"o", b"ne"]),
        ("GET", f"/v1/jobs/{ID}/files/..%2Fa.png"): CannedReply(200, [b"two"]),
        ("GET", f"/v1/jobs/{ID}/files/wrong"): CannedReply(200, [b"other"]),
        ("GET", f"/v1/jobs/{ID}/files/gone"): problem(404, "not_found", "the file is gone"),
    }


def test_both_clients_write_all_files_and_replace_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"mine")
    arrived: list[tuple[str, int]] = []
    with fake_server(routes()) as server, Client(server.url) as client:
        paths = client.job(ID).download(tmp_path, on_bytes=lambda one, n: arrived.append((one["name"], n)))
        assert [one["name"] for one in client.job(ID).files()] == ["a.png", "../a.png"]
    assert paths == [tmp_path / "a-2.png", tmp_path / "_a.png"]
    assert [path.read_bytes() for path in (tmp_path / "a.png", *paths)] == [b"mine", b"one", b"two"]
    assert (arrived[-1], dict(arrived)["a.png"]) == (("../a.png", 3), 3)

    async def again() -> list[Path]:
        with fake_server(routes()) as server:
            async with AsyncClient(server.url) as client:
                assert len(await client.job(ID).files()) == 2
                return await client.job(ID).download(str(tmp_path / "new" / "folder"))

    assert [path.read_bytes() for path in asyncio.run(again())] == [b"one", b"two"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_a.png", "a-2.png", "a.png", "new"]


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [("wrong", RunnerError, "arrived incomplete or changed"), ("gone", NotFound, "the file is gone")],
)
def test_a_failed_download_leaves_nothing_behind(
    tmp_path: Path, name: str, error: type[RunnerError], said: str
) -> None:
    listed = routes(reference(name, b"right"))
    with fake_server(listed) as server, Client(server.url) as client, pytest.raises(error, match=said):
        client.download(ID, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_a.png", "a.png"]


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with Download(reference("a.tar.gz", b"x"), tmp_path, None) as download:
        download.write(b"x")
        (tmp_path / "a.tar.gz").write_bytes(b"mine")
        assert download.finish() == tmp_path / "a.tar-2.gz"
    assert (tmp_path / "a.tar.gz").read_bytes() == b"mine"

"""Effect: the Unix socket of a server: private, replaced when dead, refused when live, removed at the end."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from pathlib import Path

import pytest

from runner.coordinator.processes.listeners import Listeners, UnixListener
from runner.errors import RefusedStart


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_only_this_user_may_open_the_socket_and_the_umask_is_restored(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        listener = UnixListener(tmp_path / "r.sock", backlog=8)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    assert stat.S_IMODE(listener.path.stat().st_mode) == 0o600
    assert connects(listener.path)
    listener.close()
    assert not listener.path.exists()


def test_the_socket_of_a_dead_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.listen()
    dead.close()
    listener = UnixListener(path, backlog=8)
    assert connects(path)
    listener.close()


@pytest.mark.parametrize("is_full", [False, True])
def test_the_socket_of_a_live_server_is_refused_and_stays(tmp_path: Path, is_full: bool) -> None:
    path = tmp_path / "r.sock"
    live = UnixListener(path, backlog=0)
    with socket.socket(socket.AF_UNIX) as waiting:
        if is_full:
            waiting.connect(str(path))
        with pytest.raises(RefusedStart, match="another server listens on"):
            UnixListener(path, backlog=8, live_wait_s=0.1)
    assert path.exists()
    live.close()


def test_a_start_beside_another_one_waits_for_its_turn(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(RefusedStart, match="another server"):
        UnixListener(tmp_path / "r.sock", backlog=8, live_wait_s=0.1)
    os.close(folder)
    UnixListener(tmp_path / "r.sock", backlog=8, live_wait_s=0.1).close()


def test_what_is_no_socket_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(RefusedStart, match="is no socket"):
        UnixListener(path, backlog=8)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["x" * 120, "absent/r.sock"])
def test_a_path_that_cannot_be_bound_is_refused_with_advice(tmp_path: Path, name: str) -> None:
    with pytest.raises(RefusedStart, match="at most 107 bytes"):
        UnixListener(tmp_path / name, backlog=8)


def test_a_socket_that_another_server_has_made_since_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    first = UnixListener(path, backlog=8)
    path.rename(tmp_path / "moved.sock")
    second = UnixListener(path, backlog=8)
    first.close()
    assert connects(path)
    second.close()


def test_a_server_shows_both_addresses(tmp_path: Path) -> None:
    tcp = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{tcp.getsockname()[1]}"
    assert Listeners(tcp).urls == [url]
    listeners = Listeners(tcp, UnixListener(tmp_path / "r.sock", backlog=8))
    assert listeners.urls == [url, f"unix://{tmp_path}/r.sock"]
    listeners.close()
    assert not (tmp_path / "r.sock").exists()

"""Effect: a process that imports heavy libraries once and forks executors on demand.

It never initialises CUDA and has a single thread, which is checked before every fork: a forked process equals
a fresh interpreter with the same imports. Each executor is forked twice and the process in between exits, so
the worker, as the subreaper, becomes the executor's parent and reaps it like one that it started itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import socket
import sys
import time

from runner.executor import bootstrap
from runner.processes.orphans import MARKER, marker_of

#: In the environment of a fork server: the descriptor of the socket to its worker, and the modules to import,
#: separated by commas.
CONTROL_FD = "JOB_RUNNER_TEMPLATE_FD"
MODULES = "JOB_RUNNER_TEMPLATE_MODULES"
#: Pads the marker of a fork server, so that executors' markers can be written over it.
PADDING = "."
#: First message to the worker, unless an obstacle was found; that message is the obstacle's text.
READY = b"ready"
#: Longest wait of an executor until its worker is its parent; seconds.
ADOPTION_S = 2.0


def serve() -> None:
    """Fork executors until the worker is gone, then exit; return in each executor, as after a start.

    A request is the executor's marker with its descriptors: channel, page, standard output and error. The
    reply is the pid, or the reason why this server can't fork any more.
    """
    control = socket.socket(fileno=int(os.environ.pop(CONTROL_FD)))
    modules = os.environ.pop(MODULES).split(",")
    worker = os.getppid()
    obstacle = _import_modules(modules) or find_fork_obstacle()
    control.send(obstacle.encode()[:4000] if obstacle else READY)
    while not obstacle:
        message, fds, _, _ = socket.recv_fds(control, 4096, 4)
        if not message:
            break
        obstacle = find_fork_obstacle()
        if obstacle:
            control.send(obstacle.encode())
        elif _fork_executor(control, worker, message.decode(), fds):
            return
    os._exit(0)


def find_fork_obstacle() -> str:
    """Return why this process can't be forked; "" if it can."""
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        return f"it has {threads} threads: one of the modules starts threads when it is imported"
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{fd}").startswith("/dev/nvidia"):
                return "one of the modules has opened a GPU"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "one of the modules has initialised CUDA"
    return ""


def _import_modules(modules: list[str]) -> str:
    """Import the modules and prepare their memory for sharing; return why that failed, "" if it did not."""
    try:
        for name in modules:
            importlib.import_module(name)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    # Libraries that keep idle threads (OpenBLAS) end them at a fork and start them again when needed:
    # after this fork none is left, unless it belongs to another library.
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    gc.collect()
    # Executors' collections do not traverse objects that exist now: their pages stay shared.
    gc.freeze()
    return ""


def _fork_executor(control: socket.socket, worker: int, marker: str, fds: list[int]) -> bool:
    """Fork an executor and send its pid; return True in the executor itself."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    pid_reader, pid_writer = os.pipe()
    child = os.fork()
    if child:
        os.close(pid_writer)
        # Readers would not see the end of a pipe that stays open here when the executor exits.
        for fd in fds:
            os.close(fd)
        with open(pid_reader, "rb") as pipe:
            pid = pipe.read()
        os.waitpid(child, 0)
        control.send(b"pid " + pid if pid else b"no process could be forked")
        return False
    os.close(pid_reader)
    executor = 0
    try:
        executor = os.fork()
    except OSError:
        os._exit(1)
    if executor:
        os.write(pid_writer, str(executor).encode())
        os._exit(0)
    os.close(pid_writer)
    control.close()
    _become_executor(worker, marker, fds)
    return True


def _become_executor(worker: int, marker: str, fds: list[int]) -> None:
    """Set up this process as the worker would have started it."""
    until = time.monotonic() + ADOPTION_S
    while os.getppid() != worker:
        if time.monotonic() > until:
            bootstrap.exit_lost()
        time.sleep(0.0005)
    os.setsid()
    channel, page, out, err = fds
    for fd, standard in ((out, 1), (err, 2)):
        os.dup2(fd, standard)
        os.close(fd)
    for fd in (channel, page):
        os.set_inheritable(fd, False)
    os.environ[bootstrap.CHANNEL_FD] = str(channel)
    os.environ[bootstrap.PAGE_FD] = str(page)
    os.environ[bootstrap.PARENT_PID] = str(worker)
    _write_marker(marker)
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        # Else all forked executors would draw the same numbers. Python reseeds its own generator by itself.
        numpy_random.seed()


def _write_marker(marker: str) -> None:
    """Set the marker, which child processes inherit, where the kernel shows the environment too.

    The kernel shows the memory in which the environment lay at the start, so the marker is written there.
    """
    getenv = ctypes.CDLL(None).getenv
    getenv.argtypes, getenv.restype = [ctypes.c_char_p], ctypes.c_void_p
    address = getenv(MARKER.encode())
    size = len(os.environ[MARKER].encode())
    ctypes.memmove(address, marker.encode().ljust(size, b"\0"), size)
    os.environ[MARKER] = marker
    if marker_of(os.getpid()) != marker:
        # The worker could not find this process and kill it, so it must not run anything.
        bootstrap.exit_lost()

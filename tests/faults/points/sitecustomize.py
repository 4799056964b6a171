"""Effect: failpoints: a named fault, done once, where the processes of a server send or commit.

This folder is put on PYTHONPATH of a server under test, and Python imports a module of this name by itself in
every process of it. The environment names a file; while that file holds "POINT MODE", the first process
that comes to the point takes the file away (a rename: one process wins) and does the fault. A second file,
`FILE.then`, may hold the fault that follows: it is armed from the moment at which the first was done.

- `before`: it is killed before it sends or commits.
- `after`: it is killed when it has.
- `lost`: its peer is killed first, so that what it sends or has done is never heard of.
- `cut`: the frame is lost with the link, and both ends live on (only where a link can come back).

A point is named after its gate and the message's type, as in "worker>coordinator.AttemptEnded".
"""

from __future__ import annotations

import importlib.machinery
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any, get_args

#: The files that hold the fault to come and the one after it; `.done` is added to the name once it was done.
ARMED = os.environ.get("FAULT_ARMED", "")
THEN = ARMED + ".then"


def fires(gate: str, names: Iterable[str], *modes: str) -> str | None:
    """The mode, if the armed fault is of this gate, of one of these names and of one of these modes."""
    armed = THEN if os.path.exists(f"{ARMED}.done") else ARMED
    try:
        with open(armed) as file:
            point, mode = file.read().split()
        if point not in [f"{gate}.{name}" for name in names] or mode not in modes:
            return None
        os.rename(armed, f"{armed}.done")
    except OSError:
        # None is armed, or another process was first.
        return None
    return mode


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill(pid: int) -> None:
    """Back when it runs no more."""
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] in "ZX":
                    return
        except OSError:
            return


def around(mode: str | None, peer: int, call: Callable[[], Any]) -> Any:
    """The call with a fault done to it."""
    if mode == "before":
        die()
    if mode == "lost":
        kill(peer)
    done = call()
    if mode == "after":
        die()
    return done


def names_of(union: Any, messages: Iterable[Any]) -> list[str]:
    """The names of messages' types; most messages are encoded already."""
    from runner.protocol import worker as worker_protocol

    known = {kind.__struct_config__.tag: kind.__name__ for kind in get_args(union)}
    return [
        known.get(worker_protocol.tag_of(message), "")
        if isinstance(message, bytes)
        else type(message).__name__
        for message in messages
    ]


def wrapped(owner: Any, name: str, wrapper: Callable[..., Any], *, uses: Sequence[str] = ()) -> None:
    """Replace a method by `wrapper(original, self, ...)`, which uses these attributes of `self`."""
    original = getattr(owner, name)
    code = [each.__code__ for each in vars(owner).values() if hasattr(each, "__code__")]
    known = {*dir(owner), *(each for of_method in code for each in of_method.co_names)}
    if missing := set(uses) - known:
        raise AttributeError(f"{owner.__name__} has no {', '.join(sorted(missing))} any more")
    setattr(owner, name, lambda self, *args, **kwargs: wrapper(original, self, *args, **kwargs))


# Coordinator and workers.


def router(module: Any) -> None:
    from runner.protocol import worker as worker_protocol

    pids: dict[str, int] = {}

    def greet(original: Any, self: Any, identity: bytes, message: bytes) -> str:
        name: str = original(self, identity, message)
        hello: Any = worker_protocol.from_worker_decoder.decode(message)
        pids[name] = hello.pid
        return name

    def send(original: Any, self: Any, peer: str, messages: list[bytes]) -> Any:
        gate = "coordinator>probe" if ".probe." in peer else "coordinator>worker"
        mode = fires(gate, names_of(worker_protocol.ToWorker, messages), "before", "after", "lost")
        return around(mode, pids.get(peer, 0), lambda: original(self, peer, messages))

    wrapped(module.ZmqRouter, "_handle_hello", greet)
    wrapped(module.ZmqRouter, "send", send)


def dealer(module: Any) -> None:
    from runner.protocol import worker as worker_protocol

    role = "probe" if "probe" in sys.argv else "worker"

    def cut(self: Any) -> None:
        self._disconnect()
        self._connect()

    def init(original: Any, self: Any, endpoint: str, *, on_frame: Any, on_link: Any) -> None:
        def receive(messages: list[bytes]) -> None:
            if fires(f"coordinator>{role}", names_of(worker_protocol.ToWorker, messages), "cut"):
                cut(self)
            else:
                on_frame(messages)

        original(self, endpoint, on_frame=receive, on_link=on_link)

    def send(original: Any, self: Any, messages: list[bytes]) -> Any:
        if not self.is_linked:
            return False
        names = names_of(worker_protocol.FromWorker, messages)
        mode = fires(f"{role}>coordinator", names, "before", "after", "lost", "cut")
        if mode == "cut":
            self._loop.call_soon(cut, self)
            return True
        return around(mode, os.getppid(), lambda: original(self, messages))

    wrapped(module.ZmqDealer, "__init__", init, uses=["_disconnect", "_connect"])
    wrapped(module.ZmqDealer, "send", send, uses=["is_linked", "_loop"])


# Workers and executors.


def to_executor(module: Any) -> None:
    from runner.protocol import worker as worker_protocol

    def send(original: Any, self: Any, messages: list[bytes]) -> None:
        mode = fires(
            "worker>executor", names_of(worker_protocol.ToExecutor, messages), "before", "after", "lost"
        )
        around(mode, self.pid, lambda: original(self, messages))

    wrapped(module.ExecutorProcess, "send", send, uses=["pid"])


def from_executor(module: Any) -> None:
    from runner.protocol import worker as worker_protocol

    #: The frame at which an executor is to die has been made, and goes out with the next write.
    doomed: list[bool] = []

    def put(original: Any, self: Any, messages: list[bytes]) -> None:
        mode = fires(
            "executor>worker", names_of(worker_protocol.FromExecutor, messages), "before", "after", "lost"
        )
        if mode == "after":
            doomed.append(True)
            mode = None
        around(mode, os.getppid(), lambda: original(self, messages))

    def write(original: Any, self: Any) -> Any:
        is_written = original(self)
        if doomed and is_written:
            die()
        return is_written

    wrapped(module.Sender, "_append_frame", put)
    wrapped(module.Sender, "_write", write)


# Coordinator and fronts.


def to_front(module: Any) -> None:
    from runner.protocol import front as front_protocol

    def flush(original: Any, self: Any) -> None:
        mode = fires(
            "coordinator>front", names_of(front_protocol.ToFront, self._out), "before", "after", "lost"
        )
        around(mode, self.process.pid, lambda: original(self))

    wrapped(module.FrontHandle, "_flush", flush, uses=["_out", "process"])


def from_front(module: Any) -> None:
    from runner.protocol import front as front_protocol

    def flush(original: Any, self: Any) -> None:
        names = names_of(front_protocol.ToCoordinator, self._out)
        mode = fires("front>coordinator", names, "before", "after", "lost")
        around(mode, os.getppid(), lambda: original(self))

    wrapped(module.CoordinatorClient, "_flush", flush, uses=["_out"])


# Coordinator and writer.


def asked(request: Any) -> list[str]:
    """A request's name; a commit has one for each kind of rows that it writes."""
    name = type(request).__name__
    batch = getattr(request, "batch", None)
    if batch is None:
        return [name]
    return [f"{name}.{field}" for field in batch.__struct_fields__ if getattr(batch, field)]


def to_writer(module: Any) -> None:
    """A request also has a number, counted from the start of the coordinator, as in "Request.2"."""
    number = itertools.count(1)

    async def ask(original: Any, self: Any, request: Any) -> Any:
        names = [*asked(request), "Request", f"Request.{next(number)}"]
        mode = fires("coordinator>writer", names, "before", "after", "lost")
        if mode == "before":
            die()
        if mode == "lost":
            kill(self._child.pid)
        answer = await original(self, request)
        if mode == "after":
            die()
        return answer

    wrapped(module.SqliteAccess, "_send_request", ask, uses=["_child"])


#: What the writer does now, and whether it dies when it has answered.
doing = {"what": "", "then": ""}


def from_writer(module: Any) -> None:
    """Its answer is made when the commit is done."""
    encode_frame, kind = module.encode_frame, module.WriterReply

    def answer(message: Any) -> Any:
        if isinstance(message, kind):
            mode = fires("writer>coordinator", [doing["what"]], "before", "after", "lost")
            if mode == "after":
                doing["then"] = "die"
            else:
                around(mode, os.getppid(), lambda: None)
        return encode_frame(message)

    module.encode_frame = answer


def writing(module: Any) -> None:
    """When an answer was sent, the writer looks whether a checkpoint is due."""
    from runner.stores.sqlite import writer_protocol

    def take_epoch(original: Any, self: Any) -> Any:
        doing["what"] = writer_protocol.TakeEpoch.__name__
        return original(self)

    def commit(original: Any, self: Any, epoch: int, batch: Any) -> Any:
        doing["what"] = writer_protocol.Commit.__name__
        return original(self, epoch, batch)

    def answered(original: Any, self: Any) -> Any:
        if doing["then"]:
            die()
        return original(self)

    wrapped(module.SqliteStore, "take_epoch", take_epoch)
    wrapped(module.SqliteStore, "commit", commit)
    wrapped(module.SqliteStore, "checkpoint_if_due", answered)


# The spool.


def spool(module: Any) -> None:
    write, remove, sync = module.write_spool, module.remove_spool, module.sync_folder

    def write_spool(*args: Any) -> Any:
        mode = fires("spool", [write.__name__], "before", "after", "lost")
        if mode == "lost":
            # It stands there and nobody has said so.
            module.sync_folder = lambda folder: around("after", 0, lambda: sync(folder))
            mode = None
        return around(mode, 0, lambda: write(*args))

    def remove_spool(*args: Any) -> Any:
        return around(fires("spool", [remove.__name__], "before", "after"), 0, lambda: remove(*args))

    module.write_spool, module.remove_spool = write_spool, remove_spool


GATES: dict[str, Callable[[Any], None]] = {
    "runner.protocol.zmq_router": router,
    "runner.protocol.zmq_dealer": dealer,
    "runner.worker.processes.executor_process": to_executor,
    "runner.executor.sender": from_executor,
    "runner.coordinator.processes.front_pool": to_front,
    "api.coordinator.client": from_front,
    "runner.stores.sqlite.access": to_writer,
    "runner.stores.sqlite.writer_protocol": from_writer,
    "runner.stores.sqlite.sqlite_store": writing,
    "runner.protocol.spool": spool,
}


class Finder(MetaPathFinder):
    """Has the gates' modules changed as soon as they are loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        change = GATES.get(fullname)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path) if change is not None else None
        if spec is None or spec.loader is None or change is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            change(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def pass_on() -> None:
    """Python runs one module of this name alone: the next on the path, that of made-up GPUs, is run here."""
    here = os.path.dirname(os.path.abspath(__file__))
    others = [folder for folder in sys.path if os.path.abspath(folder) != here]
    spec = importlib.machinery.PathFinder.find_spec(__name__, others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(ModuleType(__name__))


if ARMED:
    sys.meta_path.insert(0, Finder())
    pass_on()

"""Effect: NVIDIA GPUs that a test makes up, in a folder that all processes of a server under test share.

How to run a whole real server on them:

    gpus = FakeGpus(tmp_path / "gpus", Card("GPU-a"), Card("GPU-b", total=80 * GIB))
    server = server_fixture.start("--gpus", "all", env=gpus.environ())
    gpus.change("GPU-a", foreign=20 * GIB)       # another program takes memory, while the server runs

In every process of that server `pynvml` is the real package over a driver that is made up (`nvml.py`), and
`torch` is a small look-alike (`site/torch`) whose tensors take bytes of these cards: a handler says
`torch.empty(GIB, dtype=torch.uint8, device=ctx.device)`, its process is named in the driver's list with what
it uses, the bytes of a process that dies are free again, and the fraction that a process may use holds.
Nothing of it is in the product: `environ` puts the folder `site` on PYTHONPATH, whose `sitecustomize` does
the rest.

What a card does wrong stands in its fields, see `Card`, and is changed by `change`; `lose` and `restore`,
`hang` and `answer`, `event` are words for what is needed often. A unit test takes the driver without a
server: `tests.fakes.fake_nvml.load(gpus.folder)` is a `pynvml` of its own.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

MIB = 1 << 20
GIB = 1 << 30
ROOT = Path(__file__).resolve().parents[2]
SITE = Path(__file__).with_name("site")
#: Names the folder to the processes of a server under test.
VARIABLE = "FAKE_GPUS"
#: Added to a pid where a container sees those of its host: no process of ours has it.
HOST = 1 << 23

EVENT_ECC = 0x2
EVENT_XID = 0x8
LOST = 15
NOT_SUPPORTED = 3


@dataclass
class Card:
    """A GPU, or an instance of one that is split up."""

    uuid: str
    name: str = "Fake GPU"
    #: All bytes, and those of them that the driver keeps for itself.
    total: int = 25 * GIB
    reserved: int = 1 * GIB
    #: What programs hold that stand in no list of processes, and what those hold that stand in it, by pid;
    #: None where the driver does not tell.
    foreign: int = 0
    strangers: dict[int, int | None] = field(default_factory=dict)
    #: Bytes of the processes that stand in the list of those that draw; a stranger may stand in both lists.
    drawing: dict[int, int | None] = field(default_factory=dict)
    #: How the driver tells of our processes: by "pid", by "host" pid (which matches none of ours), by pid
    #: with "unknown" figures, or not at all ("hidden").
    processes: str = "pid"
    #: What a process takes by opening the device, before any tensor.
    context: int = 256 * MIB
    #: What a process held stays taken after its death, until this is False again.
    holds: bool = False
    #: C function to the NVML error that it gives; "*" stands for every one that takes this card.
    errors: dict[str, int] = field(default_factory=dict)
    #: C functions that do not come back while they stand here; "*" as above.
    hangs: list[str] = field(default_factory=list)
    utilisation: int = 0
    #: The text with which the next kernels fail, and how many of them; the process is lost to CUDA after one.
    launch_error: str = ""
    launch_errors: int = 0
    #: None: it can't be split; otherwise its instances, None for an empty place.
    instances: list[Card | None] | None = None


@dataclass
class State:
    """All that the driver knows."""

    cards: list[Card] = field(default_factory=list)
    driver: str = "570.1"
    #: C function to the NVML error that it gives, whatever it is asked about, such as "nvmlInitWithFlags".
    errors: dict[str, int] = field(default_factory=dict)
    #: C functions that do not come back, whatever they are asked about; "*": none does.
    hangs: list[str] = field(default_factory=list)
    #: C functions that this driver is too old for.
    missing: list[str] = field(default_factory=list)
    #: (number, uuid, type, data), numbered from 1.
    events: list[tuple[int, str, int, int]] = field(default_factory=list)

    def find(self, uuid: str) -> Card | None:
        """The card or instance of that uuid."""
        for card in self.cards:
            parts: list[Card | None] = [card, *(card.instances or [])]
            for each in parts:
                if each is not None and each.uuid == uuid:
                    return each
        return None

    def parent(self, uuid: str) -> Card | None:
        """The card that an instance is part of; of a card itself it is that card."""
        for card in self.cards:
            if card.uuid == uuid or any(
                each is not None and each.uuid == uuid for each in card.instances or ()
            ):
                return card
        return None


class Folder:
    """What the processes share. `bytes_by_pid` and all that changes it hold the folder's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pids = path / "pids"

    def state(self) -> State:
        """As it is now."""
        values = json.loads((self.path / "state.json").read_bytes())
        values["cards"] = [_card(each) for each in values["cards"]]
        values["events"] = [tuple(each) for each in values["events"]]
        return State(**values)

    def write(self, state: State) -> None:
        """Put it in force at once for all processes."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._pids.mkdir(exist_ok=True)
        new = self.path / f"state.{os.getpid()}"
        new.write_text(json.dumps(asdict(state)))
        new.rename(self.path / "state.json")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Nobody else changes anything meanwhile."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / "lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def hold(self, uuid: str, nbytes: int) -> None:
        """This process holds so many bytes of that card, all in all. Asks for the lock."""
        path = self._pids / str(os.getpid())
        born = _born(os.getpid())
        held = json.loads(path.read_bytes()) if path.exists() else {}
        if held.get("born") != born:
            held = {"born": born, "bytes": {}}
        held["bytes"][uuid] = nbytes
        new = self.path / f"pid.{os.getpid()}"
        new.write_text(json.dumps(held))
        new.rename(path)

    def held(self, state: State, uuid: str) -> tuple[dict[int, int], int]:
        """Living process to its bytes on that card, and what dead ones still hold. Asks for the lock."""
        card = state.find(uuid)
        living: dict[int, int] = {}
        dead = 0
        for path in self._pids.iterdir():
            held = json.loads(path.read_bytes())
            nbytes = held["bytes"].get(uuid, 0)
            if not nbytes:
                continue
            if _born(int(path.name)) == held["born"]:
                living[int(path.name)] = nbytes
            elif card is not None and card.holds:
                dead += nbytes
            else:
                # Let go for good: it does not come back when the card holds on to others later.
                del held["bytes"][uuid]
                path.write_text(json.dumps(held))
        return living, dead

    def used(self, state: State, uuid: str) -> int:
        """All bytes that are taken of that card, without the driver's own. Asks for the lock."""
        card = state.find(uuid)
        assert card is not None
        living, dead = self.held(state, uuid)
        return (
            card.foreign
            + sum(nbytes or 0 for nbytes in card.strangers.values())
            + sum(living.values())
            + dead
        )


class CardMemory(Folder):
    """Cards of one process alone, which the test changes in place; no process of ours holds anything."""

    def __init__(self, state: State) -> None:
        self._state = state

    def state(self) -> State:
        return self._state

    @contextmanager
    def lock(self) -> Iterator[None]:
        yield

    def held(self, state: State, uuid: str) -> tuple[dict[int, int], int]:
        return {}, 0


class FakeGpus:
    """The test's side: makes the cards, and changes them while a server runs on them."""

    def __init__(self, folder: Path, *cards: Card, driver: str = "570.1") -> None:
        self.folder = Folder(folder)
        self.folder.write(State(cards=list(cards or [Card("GPU-fake-0")]), driver=driver))

    def environ(self, tree: Path = ROOT) -> dict[str, str]:
        """What is laid over a server's environment, so that it runs on these. `tree` is the product's."""
        path = os.pathsep.join(map(str, (SITE, tree, ROOT)))
        found = {VARIABLE: str(self.folder.path), "PYTHONPATH": path}
        if "CUDA_VISIBLE_DEVICES" in os.environ:
            # The mask that this machine has for cards of its own would hide these.
            found["CUDA_VISIBLE_DEVICES"] = ",".join(self._uuids())
        return found

    def _uuids(self) -> Iterator[str]:
        for card in self.folder.state().cards:
            parts = [each.uuid for each in card.instances or () if each is not None]
            yield from parts or [card.uuid]

    @contextmanager
    def edit(self) -> Iterator[State]:
        """The state, to be changed; in force when the block ends."""
        with self.folder.lock():
            state = self.folder.state()
            yield state
            self.folder.write(state)
            for card in state.cards:
                # What is let go by this is let go now, whether anybody reads it in time or not.
                self.folder.held(state, card.uuid)

    def change(self, uuid: str, **values: Any) -> None:
        """Set fields of a card."""
        known = {each.name for each in fields(Card)}
        assert values.keys() <= known, values.keys() - known
        with self.edit() as state:
            card = state.find(uuid)
            assert card is not None, f"there is no {uuid}"
            for name, value in values.items():
                setattr(card, name, value)

    def lose(self, uuid: str) -> None:
        """The card falls off the bus: all that is asked of it fails."""
        self.change(uuid, errors={"*": LOST})

    def restore(self, uuid: str) -> None:
        """Nothing fails any more."""
        self.change(uuid, errors={}, hangs=[], launch_error="", launch_errors=0)

    def hang(self, *calls: str) -> None:
        """These C functions, or all, do not come back."""
        with self.edit() as state:
            state.hangs = list(calls or ("*",))

    def answer(self) -> None:
        """They do again; those that hang come back."""
        with self.edit() as state:
            state.hangs = []

    def event(self, uuid: str, kind: int, data: int = 0) -> None:
        """The driver tells of an event, such as `EVENT_XID` with the number as data. One of an instance is
        told as the card's, with the instance's number."""
        with self.edit() as state:
            state.events.append((len(state.events) + 1, uuid, kind, data))

    def used(self, uuid: str) -> int:
        """What is taken of a card now."""
        with self.folder.lock():
            return self.folder.used(self.folder.state(), uuid)

    def users(self, uuid: str) -> dict[int, int]:
        """Living process to its bytes there."""
        with self.folder.lock():
            return self.folder.held(self.folder.state(), uuid)[0]


def _card(values: dict[str, Any]) -> Card:
    instances = values.pop("instances")
    card = Card(**values)
    card.strangers = {int(pid): nbytes for pid, nbytes in card.strangers.items()}
    card.drawing = {int(pid): nbytes for pid, nbytes in card.drawing.items()}
    if instances is not None:
        card.instances = [None if each is None else _card(each) for each in instances]
    return card


def _born(pid: int) -> str:
    """When a process began, in the kernel's words; nothing where it has ended, or waits to be reaped."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if words[0] in "ZX" else words[19]

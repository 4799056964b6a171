"""Effect: carries out the plan: hands attempts to executors, starts and ends executors."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from gpu import placement
from gpu.device import Device
from gpu.escalation import Rung
from gpu.view import View
from runner.coordinator.book import Live
from runner.coordinator.fleet import Fleet
from runner.coordinator.grants import CapBytes, Grants
from runner.coordinator.line import Line
from runner.coordinator.orders import attempt_order, load_order
from runner.coordinator.post import Post
from runner.coordinator.sleep import patiently
from runner.coordinator.wishes import Wishes
from runner.wire import Cancel, Kill, Recall, Run, Unload, encode

log = logging.getLogger(__name__)

#: What failed for reasons that nobody foresaw is tried again after so long.
FAILED_S = 1.0
#: The grace of a cancel that is not to wait for anything, see `wire.Cancel`.
AT_ONCE_S = -1.0

#: Reads inputs that are not in memory: job numbers -> JSON texts.
ReadInputs = Callable[[Sequence[int]], Awaitable[Mapping[int, bytes]]]


class Dispatch:
    """One turn: ask the plan, carry out what it says, send one frame to each worker."""

    def __init__(
        self,
        *,
        line: Line,
        view: View,
        fleet: Fleet,
        devices: Mapping[str, Device],
        read_inputs: ReadInputs,
        cap_bytes: CapBytes,
    ) -> None:
        self.grants = Grants(view=view, fleet=fleet, cap_bytes=cap_bytes)
        self._line = line
        self._view = view
        self._fleet = fleet
        self._devices = devices
        self._read_inputs = read_inputs
        self._numbers = itertools.count(1)
        self._awake = False
        self._armed_at = float("inf")
        self._tasks: set[asyncio.Task[None]] = set()
        self.posts: dict[int, Post] = {}
        self.wishes = Wishes(
            view=view,
            waiting=line.waiting,
            timers=line.timers,
            posts=self.posts,
            device_ids=devices.keys(),
            now=line.now,
            wake=self.wake,
        )
        #: Retired ones that still have something to end.
        self._retiring: list[Post] = []
        #: True while nothing may start: before recovery is done, and from shutdown on.
        self.held = True

    def wake(self) -> None:
        """A turn is wanted; however many ask, there is one a turn of the loop."""
        if not self._awake:
            self._awake = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._awake = False
        if not self.held:
            try:
                self._plan()
            except Exception:
                # The loop's boundary: jobs that run go on, and the next turn may fare better.
                log.exception("a turn of the plan failed")
                self._again_later()
        self._fleet.flush()

    def _plan(self) -> None:
        self._line.waiting.refill()
        self.wishes.before_plan()
        now = self._line.now()
        plan = placement.plan(self._view, now)
        self._line.waiting.reasons = plan.reasons
        for action in plan.actions:
            try:
                self._carry_out(action)
            except Exception:
                # What one job does to us must not keep the others from starting.
                log.exception("this could not be carried out: %s", action)
                self._again_later()
        if "waiting_for_device" in plan.reasons.values():
            self._fleet.start_missing(self._devices.values())
        for executor in self._view.expiry.due(now):
            self.unload(executor)
        if self._retiring:
            self._unload_retired()
        if self._view.ledger.regranted:
            self.grants.tell_lowered(self.posts)
        self._arm(plan.look_at)

    def _carry_out(self, action: placement.Action) -> None:
        match action:
            case placement.Start(executor, cls, ns) if cls.is_wish:
                self.wishes.met(ns[0], self.posts[executor])
            case placement.Start():
                self._start(action)
            case placement.Load():
                self._load(action)
            case placement.Evict():
                self.unload(action.executor)

    def _again_later(self) -> None:
        """A turn failed: nobody may wake us again, and at once it would fail again."""
        asyncio.get_running_loop().call_later(FAILED_S, self.wake)

    def _arm(self, look_at: float) -> None:
        """Wake when the plan wants to look again, or the next idle executor has idled for its keep_alive."""
        expiry = self._view.expiry.next()
        when = look_at if expiry is None else min(look_at, expiry)
        if when < self._armed_at:
            self._armed_at = when

            def due() -> None:
                self._armed_at = float("inf")
                self.wake()

            self._line.timers.at(when, due)

    def _start(self, action: placement.Start) -> None:
        post, lives = self.posts[action.executor], [self._line.book.by_n[n] for n in action.ns]
        now = self._line.now()
        self._view.start(action.executor, action.cls, action.ns, now, action.outlook)
        if post.is_lowered:
            self.grants.suit(post, action.cls)
        self._line.waiting.taken(action.cls)
        self._hand_over(post, lives)

    def _load(self, action: placement.Load) -> None:
        if action.cls.is_wish and (post := self.wishes.resident(action.n)) is not None:
            # A job of the same plan loads it.
            self.wishes.met(action.n, post)
            return
        worker = self._fleet.of_device(action.device_ids[0])
        if worker is None:
            log.error("the plan chose %s, which has no worker", action.device_ids[0])
            return
        spec = self._line.waiting.spec(action.cls.handler)
        executor = next(self._numbers)
        devices = [self._devices[device_id] for device_id in action.device_ids]
        self._view.load(
            executor,
            action.cls,
            action.n,
            action.device_ids,
            action.grant_bytes,
            action.exclusive,
            keep_alive_s=spec.options.keep_alive_s,
            max_jobs=spec.options.max_jobs,
            now=self._line.now(),
            outlook=action.outlook,
            mates=action.mates,
        )
        ids = list(action.device_ids)
        post = Post(executor, worker, spec, action.cls.model, ids, action.grant_bytes)
        self.posts[executor] = post
        cap = self.grants.cap_bytes(action.device_ids, action.grant_bytes, None)
        self._fleet.post(worker, encode(load_order(executor, action, spec, devices, cap)))
        if action.cls.is_wish:
            self.wishes.loads(action.n, executor)
            return
        lives = [self._line.book.by_n[n] for n in (action.n, *action.mates)]
        if lives[0].job.rung >= Rung.LARGER:
            # Idle neighbours of a job that was short of memory go: they may hold more than they were seen to.
            for other in self._view.floor.idle_on(action.device_ids):
                self.unload(other)
        self._line.waiting.taken(action.cls)
        self._hand_over(post, lives)

    def _hand_over(self, post: Post, lives: list[Live]) -> None:
        """Give these to the executor: at once, or when their input is read and their start durable."""
        for live in lives:
            live.where = "assigned"
            live.executor = post.executor
            live.flight = live.job.attempt + (not live.spare)
            post.line[live.job.n] = live
        if any(live.input is None for live in lives):
            task = asyncio.get_running_loop().create_task(self._read_and_send(post, lives))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        self._send_when_durable(post, lives)

    async def _read_and_send(self, post: Post, lives: list[Live]) -> None:
        missing = [live.job.n for live in lives if live.input is None]
        inputs = await patiently(self._read_inputs, missing, "inputs")
        for live in lives:
            if live.input is None:
                # One that the store lacks fails over its input, instead of holding its executor for ever.
                self._line.waiting.sleep.keep_input(live, inputs.get(live.job.n, b"null"))
        self._send_when_durable(post, lives)
        self._fleet.flush()

    def _send_when_durable(self, post: Post, lives: list[Live]) -> None:
        """A first attempt may go out before its submit is durable; a later start is committed first,
        so that a killer's count survives what it kills."""
        first, later = post.parted(lives)
        if first:
            self._send(post, first)
        if not later:
            return
        for live in later:
            if live.flight and live.executor == post.executor and not post.retired:
                self._begin(post, live)

        def send(_: object) -> None:
            self._send(post, later)
            self._fleet.flush()

        self._line.journal.when_durable(send, patient=True)

    def _send(self, post: Post, lives: list[Live]) -> None:
        attempts, back = [], []
        was_idle = post.sent == 0
        alive = post.executor in self.posts
        for live in lives:
            if live.executor != post.executor or live.where == "ended":
                continue
            if not alive:
                back.append(live)
            elif live.job.cancel_reason is not None:
                self._dropped(post, live)
            elif post.retired:
                self._take_off(post, live, done=False)
                back.append(live)
            else:
                self._mark(post, live, was_idle=was_idle)
                attempts.append(attempt_order(live, post.spec.options))
        # Each goes before all others, so the first one comes last.
        for live in reversed(back):
            self._line.put_back(live)
        if attempts:
            self._fleet.post(post.worker, encode(Run(post.executor, attempts)))
            if self._view.executors[post.executor].long_n is not None:
                # What runs there was found to take long while these were read or written.
                self.recall(post)

    def _mark(self, post: Post, live: Live, *, was_idle: bool) -> None:
        if live.job.attempt < live.flight:
            if post.starts_next(was_idle=was_idle):
                self._begin(post, live)
            else:
                live.where = "staged"
        post.sent += 1

    def _begin(self, post: Post, live: Live) -> None:
        self._line.begin(
            live,
            at=self._line.now(),
            worker=post.worker.name,
            devices=post.devices,
            loading=not post.loaded,
            granted_bytes=post.grant_bytes,
            meter=post.meter,
        )

    def _dropped(self, post: Post, live: Live) -> None:
        """Cancelled before the worker was told of it."""
        self._take_off(post, live)
        self._line.cancel_waiting(live, live.job.cancel_reason or "cancelled")
        self.wake()

    def _take_off(self, post: Post, live: Live, *, done: bool = True) -> None:
        """The executor does not hold the attempt any more; its worker was never told of it."""
        post.line.pop(live.job.n, None)
        if live.cls is not None:
            self._view.ended(post.executor, live.cls, live.job.n, self._line.now(), done=done)

    def cancel(self, live: Live, reason: str, *, force: bool) -> bool:
        """Begin to end a job; True when it has ended already (no executor held it)."""
        if live.executor is None:
            self._line.cancel_waiting(live, reason)
            return True
        if live.job.cancel_reason is None:
            self._line.cancelling(live, reason)
        post = self.posts.get(live.executor)
        if post is not None and live.where != "assigned":
            # Aimed at the attempt: its executor may be in the next one before this comes to it.
            grace_s = AT_ONCE_S if force else post.spec.options.grace_s
            message = encode(Cancel(live.job.id, live.flight, "cancelled", reason, grace_s))
            self._fleet.post(post.worker, message)
            self._fleet.flush()
        return False

    def tell_caps(self) -> None:
        """Contexts are known better than before, and with them what torch may have of each grant."""
        for post in self.posts.values():
            self.grants.tell(post, post.grant_bytes)
        self._fleet.flush()

    def kill(self, post: Post, code: str, message: str, detail: Any) -> None:
        """End an executor, whatever it does; its attempt ends with this code."""
        self.leaves(post)
        self._fleet.post(post.worker, encode(Kill(post.executor, code, message, detail, spares=False)))

    def unload(self, executor: int) -> None:
        """End an idle executor; its bytes count until its process is gone."""
        post = self.posts.get(executor)
        if post is None or post.leaving:
            return
        self.leaves(post)
        self._fleet.post(post.worker, encode(Unload(executor)))

    def leaves(self, post: Post, *, lingers: bool = False) -> None:
        """The executor takes no further attempt; its worker says when it is gone. One that `lingers` ends
        what it runs first."""
        if not post.leaving:
            post.leaving = True
            self._view.evict(post.executor, lingers=lingers)

    def retire(self, handler: str, *, replaced: bool) -> None:
        """The handler is another now: its executors go. One that still loads is not waited for where it is
        `replaced`."""
        for post in self.posts.values():
            if post.spec.name == handler:
                self.retire_one(post, replaced=replaced)
        self.wake()

    def retire_one(self, post: Post, *, replaced: bool = False) -> None:
        """The executor ends what runs in it; what has not started goes back to the line, and it goes."""
        if post.retired:
            return
        post.retired = True
        is_killed = replaced and not post.loaded
        # Also one that is to be killed: it may be spared, and end a long job first.
        self.leaves(post, lingers=True)
        self._retiring.append(post)
        if is_killed:
            why = "its handler was reloaded while it loaded"
            # Word that it has loaded may be on its way: then its first job ends in the old code.
            self._fleet.post(post.worker, encode(Kill(post.executor, "interrupted", why)))
        elif post.loaded and post.sent:
            self._fleet.post(post.worker, encode(Recall(post.executor)))

    def _unload_retired(self) -> None:
        alive = [post for post in self._retiring if post.executor in self.posts]
        for post in alive:
            if not post.line:
                self._fleet.post(post.worker, encode(Unload(post.executor)))
        self._retiring = [post for post in alive if post.line]

    def repeat(self, post: Post) -> None:
        """Orders to this executor may have been lost with a link: say again what is still to be done."""
        if post.grant_bytes:
            # Whoever missed that it may use less would go on as before, and nobody would ask.
            self.grants.tell(post, post.grant_bytes)
        for live in post.line.values():
            if live.job.cancel_reason is not None:
                self.cancel(live, live.job.cancel_reason, force=False)
        if len(post.line) > 1:
            self._fleet.post(post.worker, encode(Recall(post.executor)))
        elif post.leaving and not post.line:
            self._fleet.post(post.worker, encode(Unload(post.executor)))

    @property
    def is_idle(self) -> bool:
        """Whether no executor holds an attempt."""
        return not any(post.line for post in self.posts.values())

    def recall_all(self) -> None:
        """What is staged anywhere shall not start."""
        for post in self.posts.values():
            self.recall(post)
        self._fleet.flush()

    def recall(self, post: Post) -> None:
        """The running attempt takes long: what is staged behind it goes elsewhere."""
        if len(post.line) > 1 and not post.leaving:
            self._fleet.post(post.worker, encode(Recall(post.executor)))

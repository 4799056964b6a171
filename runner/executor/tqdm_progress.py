"""Effect: turns the progress bars of tqdm into progress of the running attempt.

tqdm is not imported here: its class is changed when user code imports it, or at once where that was before.
diffusers, transformers and datasets show their progress by subclasses of that class.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import weakref
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from math import isfinite
from types import ModuleType
from typing import TYPE_CHECKING, Any

from runner.executor.output_capture import LineWriter

if TYPE_CHECKING:
    from runner.executor.active_run import ActiveRun

#: The module that defines the class `tqdm`, from which all others derive.
TQDM_MODULE = "tqdm.std"
#: Most characters of a bar's description that are reported.
MESSAGE_MAX = 200
#: Attribute of a bar with the run that it reports to.
_RUN_ATTR = "_runner_run"

#: Returns the run that a bar drawn now belongs to; None: no attempt runs.
CurrentRun = Callable[[], "ActiveRun | None"]


def follow_tqdm(current_run: CurrentRun) -> None:
    """Report the bars of tqdm as progress of the run that is current when they are first drawn."""
    module = sys.modules.get(TQDM_MODULE)
    if module is not None:
        _change_class(module.tqdm, current_run)
    else:
        sys.meta_path.insert(0, _TqdmFinder(current_run))


class _TqdmFinder:
    """Finds the module once, through the other finders, and changes it when it has been executed."""

    def __init__(self, current_run: CurrentRun) -> None:
        self._current_run = current_run

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != TQDM_MODULE:
            return None
        sys.meta_path.remove(self)
        spec: Any = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _TqdmLoader(spec.loader, self._current_run)
        found: ModuleSpec | None = spec
        return found


class _TqdmLoader:
    """Executes the module with its own loader, then changes its class.

    Not derived from `importlib.abc.Loader`, whose module is slow to import.
    """

    def __init__(self, loader: Any, current_run: CurrentRun) -> None:
        self._loader = loader
        self._current_run = current_run

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None:
            # Tools that look for the source ask the module's own loader.
            spec.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        _change_class(module.tqdm, self._current_run)


def _change_class(tqdm: Any, current_run: CurrentRun) -> None:
    """Replace the methods of the class that draw; a captured stream gets the last state of the outermost bar.

    tqdm calls `display` when a bar is created, at most ten times a second while it moves, and when it is
    closed; never for a bar with `disable=True`.
    """
    begin, display, clear, close = tqdm.__init__, tqdm.display, tqdm.clear, tqdm.close

    @functools.wraps(begin)
    def new_begin(bar: Any, *args: Any, **options: Any) -> None:
        # None disables a bar that is not on a terminal, where it would only fill a log.
        if "disable" in options and options["disable"] is None and isinstance(sys.stderr, LineWriter):
            options["disable"] = False
        begin(bar, *args, **options)

    @functools.wraps(display)
    def new_display(bar: Any, msg: Any = None, pos: Any = None) -> Any:
        run = _run_of(bar, current_run)
        if run is None:
            return display(bar, msg, pos)
        is_outermost = _is_outermost(bar, run)
        if is_outermost and not run.closed:
            _report(bar, run)
        is_final = bar.disable and is_outermost and msg is None
        return display(bar, msg, pos) if is_final or not _is_captured(bar) else False

    @functools.wraps(clear)
    def new_clear(bar: Any, *args: Any, **options: Any) -> None:
        if _run_of(bar, current_run) is None or not _is_captured(bar):
            clear(bar, *args, **options)

    @functools.wraps(close)
    def new_close(bar: Any) -> None:
        run = getattr(bar, _RUN_ATTR, None)
        if run is None or getattr(bar, "disable", True):
            close(bar)
            return
        if (run.closed or not _is_outermost(bar, run)) and _is_captured(bar):
            bar.leave = False
        try:
            close(bar)
        finally:
            # By identity: bars compare by their position.
            run.bars[:] = [one for one in run.bars if one() is not None and one() is not bar]

    tqdm.__init__, tqdm.display, tqdm.clear, tqdm.close = new_begin, new_display, new_clear, new_close


def _run_of(bar: Any, current_run: CurrentRun) -> ActiveRun | None:
    """Return the run that a bar reports to, chosen when it is first drawn, and again after that run's end.

    A bar that is closed late, for example by the garbage collector, stays with the run that has ended.
    """
    run: ActiveRun | None = getattr(bar, _RUN_ATTR, None)
    if run is None or (run.closed and not bar.disable):
        run = current_run()
        if run is not None and not run.closed:
            setattr(bar, _RUN_ATTR, run)
            run.bars.append(weakref.ref(bar))
    return run


def _is_outermost(bar: Any, run: ActiveRun) -> bool:
    """Return whether the bar is the oldest one of the run that is open."""
    return next((one() is bar for one in list(run.bars) if one() is not None), True)


def _is_captured(bar: Any) -> bool:
    """Return whether the bar is drawn to the log of the job, not to a file of the handler."""
    return isinstance(getattr(bar.fp, "_wrapped", bar.fp), LineWriter)


def _report(bar: Any, run: ActiveRun) -> None:
    done, total = float(bar.n), None if bar.total is None else float(bar.total)
    if not isfinite(done) or (total is not None and not isfinite(total)):
        return
    message = str(bar.desc or "").removesuffix(": ")[:MESSAGE_MAX] or None
    run.add_bar_progress(_plain(done), None if total is None else _plain(total), message)


def _plain(number: float) -> float:
    """Return a whole number as an integer, which is how counts are shown."""
    return int(number) if number.is_integer() else number

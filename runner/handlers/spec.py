"""Pure: the description of a handler without its code: its source, options and schemas."""

from __future__ import annotations

from typing import Literal

import msgspec

from runner.jobs.retry import Backoff


class Source(msgspec.Struct, frozen=True, array_like=True):
    """Where a process that runs user code finds a handler."""

    #: "file": `target` is an absolute path of a .py file; "module": a module's dotted name.
    kind: Literal["file", "module"]
    target: str
    #: The attribute path of the decorated object inside the module.
    attr: str
    #: Folders that are put first on sys.path of describe and executor, in this order.
    path: tuple[str, ...] = ()


class BatchOptions(msgspec.Struct, frozen=True, array_like=True):
    """How jobs are gathered for a handler that takes lists."""

    max: int = 8
    #: An incomplete batch starts once its oldest job has waited this long.
    wait_s: float = 0.02
    #: Fields of the input that must be equal within one batch.
    by: tuple[str, ...] = ()


class HandlerOptions(msgspec.Struct, frozen=True, array_like=True):
    """A handler's options after parsing: seconds and bytes as numbers. None means "not set"."""

    queue: str = "default"
    #: 0 needs no GPU, 1 one GPU. The describe step resolves the decorator's None.
    gpus: int = 0
    #: Peak device memory of one executor, weights included. None: learn it.
    vram_bytes: int | None = None
    #: Host memory of one executor: a cap everywhere, on the cpu device its grant.
    ram_bytes: int | None = None
    timeout_s: float | None = 600.0
    load_timeout_s: float | None = 600.0
    queue_timeout_s: float | None = None
    stall_timeout_s: float | None = None
    grace_s: float = 0.5
    retries: int = 0
    backoff: Backoff = Backoff()
    priority: int = 50
    #: How long an idle executor stays loaded; 0 unloads at once, -1 never.
    keep_alive_s: float = 300.0
    #: Attempts running at once, over all executors. None: no limit.
    concurrency: int | None = None
    #: Attempts after which an executor is replaced. None: never.
    max_jobs: int | None = None
    #: Field of the input that names the model: an executor is one (handler, version, model).
    model_by: str | None = None
    #: Fields of the input by which jobs are expected to need alike.
    size_by: tuple[str, ...] = ()
    #: Models for which an executor is kept ready while memory allows; ("",) without `model_by`.
    preload: tuple[str, ...] = ()
    #: Never grant more than `vram_bytes`, whatever was learned.
    strict: bool = False
    #: Concurrent attempts in one executor; more than 1 for coroutine functions only.
    slots: int = 1
    #: None: `run` gets one input.
    batch: BatchOptions | None = None


HandlerKind = Literal["function", "coroutine", "generator", "async_generator"]


class HandlerSpec(msgspec.Struct, frozen=True, array_like=True):
    """A described handler, or a broken one (`state` says which)."""

    name: str
    version: str
    state: Literal["ok", "describing", "broken"]
    source: Source
    options: HandlerOptions = HandlerOptions()
    kind: HandlerKind = "function"
    description: str = ""
    #: JSON Schema documents as JSON text; `true` accepts anything.
    input_schema: bytes = b"true"
    output_schema: bytes = b"true"
    #: A traceback where state is "broken".
    error: str = ""


class SourceDescription(msgspec.Struct, frozen=True, array_like=True):
    """Result of importing a source."""

    specs: list[HandlerSpec] = []
    #: Why it could not be imported; there are no specs then.
    error: str = ""
    #: Its own files that were read, by path: the digest of the content, "" if that was not certain.
    files: dict[str, str] = {}

    @property
    def is_complete(self) -> bool:
        """Return whether all its handlers can be used."""
        return not self.error and all(spec.state == "ok" for spec in self.specs)

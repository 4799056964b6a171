"""Pure: the description of a handler without its code: source, options and schemas."""

from __future__ import annotations

from typing import Literal

import msgspec

from runner.jobs.retry import Backoff


class Source(msgspec.Struct, frozen=True, array_like=True):
    """Where a process that runs user code finds a handler."""

    #: "file": `target` is the absolute path of a .py file; "module": a module's dotted name.
    kind: Literal["file", "module"]
    target: str
    #: The attribute path of the decorated object inside the module.
    attr: str
    #: Folders to put first on sys.path of describing processes and executors, in this order.
    path: tuple[str, ...] = ()


class BatchOptions(msgspec.Struct, frozen=True, array_like=True):
    """How jobs are combined for a handler that takes lists of inputs."""

    #: Largest number of jobs in a batch.
    max: int = 8
    #: An incomplete batch starts once its oldest job has waited this long.
    wait_s: float = 0.02
    #: Fields of the input that must be equal within one batch.
    by: tuple[str, ...] = ()


class HandlerOptions(msgspec.Struct, frozen=True, array_like=True):
    """A handler's options after parsing, in seconds and bytes; None means "not set"."""

    queue: str = "default"
    #: Number of GPUs of one executor; 0: none, it runs on the CPU.
    gpus: int = 0
    #: Peak device memory of one executor, weights included. None: learn it.
    vram_bytes: int | None = None
    #: Host memory of one executor: a cap everywhere, on the cpu device also its grant.
    ram_bytes: int | None = None
    #: Limits on one run, on one load (import included), on the wait before the first start, and on the time
    #: without any call of `ctx`. None: no limit.
    timeout_s: float | None = 600.0
    load_timeout_s: float | None = 600.0
    queue_timeout_s: float | None = None
    stall_timeout_s: float | None = None
    #: Time to clean up after a cancel or a shutdown.
    grace_s: float = 0.5
    retries: int = 0
    backoff: Backoff = Backoff()
    priority: int = 50
    #: How long an idle executor stays loaded; 0 unloads at once, -1 never.
    keep_alive_s: float = 300.0
    #: Limit on running attempts over all executors. None: no limit.
    concurrency: int | None = None
    #: Number of attempts after which an executor is replaced. None: never.
    max_jobs: int | None = None
    #: Field of the input that names the model: an executor is one (handler, version, model).
    model_by: str | None = None
    #: Input fields by which memory and run times are learned separately.
    size_by: tuple[str, ...] = ()
    #: Models to keep loaded while memory allows; ("",) without `model_by`.
    preload: tuple[str, ...] = ()
    #: Never grant more than `vram_bytes`, whatever was learned.
    strict: bool = False
    #: Concurrent attempts in one executor; more than 1 for coroutine functions only.
    slots: int = 1
    #: None: `run` gets one input.
    batch: BatchOptions | None = None


HandlerKind = Literal["function", "coroutine", "generator", "async_generator"]


class HandlerSpec(msgspec.Struct, frozen=True, array_like=True):
    """A described handler, or a broken one (see `state`)."""

    name: str
    #: Identifies the code: executors and learned figures of another version are not used.
    version: str
    state: Literal["ok", "describing", "broken"]
    source: Source
    options: HandlerOptions = HandlerOptions()
    kind: HandlerKind = "function"
    description: str = ""
    #: JSON Schema documents as JSON text; `true` accepts anything.
    input_schema: bytes = b"true"
    output_schema: bytes = b"true"
    #: The traceback if `state` is "broken".
    error: str = ""


class SourceDescription(msgspec.Struct, frozen=True, array_like=True):
    """The result of importing a source."""

    specs: list[HandlerSpec] = []
    #: Why the import failed; `specs` is empty then.
    error: str = ""
    #: Digests of the source's own imported files by path; "" if a file may have changed during the import.
    files: dict[str, str] = {}

    @property
    def is_complete(self) -> bool:
        """Return whether all its handlers can be used."""
        return not self.error and all(spec.state == "ok" for spec in self.specs)

"""Pure: the class of a wish: an executor that is to be ready, without a job that waits for it."""

from __future__ import annotations

from gpu.job_class import JobClass

#: Below all jobs; what an operator asks for goes before what is to be there when there is room.
REQUESTED_PRIORITY, PRELOAD_PRIORITY = -1, -2


def prewarm_class(
    handler: str,
    version: str,
    model: str,
    *,
    need_bytes: int | None,
    gpus: int,
    device_id: str | None = None,
    is_preload: bool = False,
) -> JobClass:
    """The class in whose line a wish waits: one that was asked for has idle executors go as a job would, a
    preload waits for room that is free."""
    return JobClass(
        queue="",
        handler=handler,
        version=version,
        model=model,
        priority=PRELOAD_PRIORITY if is_preload else REQUESTED_PRIORITY,
        need_bytes=need_bytes,
        gpus=gpus,
        allowed_devices=() if device_id is None else (device_id,),
        may_evict=not is_preload,
    )

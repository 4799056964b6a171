"""Pure: the job class of a prewarm request: an executor to load in advance, without a waiting job."""

from __future__ import annotations

from gpu.job_class import JobClass

#: Below all jobs; an operator's request goes before a preload, which needs free capacity.
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
    """Return the class in whose backlog a prewarm request waits.

    A requested prewarm evicts idle executors as a job would; a preload waits for free capacity.
    """
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

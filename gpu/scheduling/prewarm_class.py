"""Pure: the job class of a prewarm request: an executor to load in advance, without a waiting job."""

from __future__ import annotations

from gpu.job_class import JobClass

#: Below the priorities of all jobs; an operator's request goes before a preload.
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

    A requested prewarm evicts idle executors as a job would; a preload waits for free capacity. With a
    `device_id` the executor loads on that device only. `need_bytes` and `gpus` are as in `JobClass`.
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

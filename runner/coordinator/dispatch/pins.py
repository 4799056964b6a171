"""Pure: whether an executor that its handler pins may be pinned, and if not, why."""

from __future__ import annotations

from gpu.job_class import JobClass
from gpu.scheduling.prewarm_class import prewarm_class
from gpu.scheduling.residency import Residency
from runner.handlers.spec import HandlerSpec


def explain_refused_pin(spec: HandlerSpec, job_class: JobClass, residency: Residency) -> str | None:
    """Return why one more executor of the class could not be pinned now; None where it could, or need not be.

    On every device one place always remains for executors that are not pinned, so that no set of pinned ones
    keeps other handlers out. A job of the handler runs all the same; its executor is kept until its place is
    needed.
    """
    if spec.options.keep_alive_s >= 0:
        return None
    slots = residency.device_pool(job_class)
    if sum(slot.takes_pin for slot in slots) >= residency.device_count(job_class):
        return None
    counts = ", ".join(
        f"{slot.device.id} has {len(slot.pinned)} pinned of at most {slot.max_residents} executors"
        for slot in slots
    )
    return (
        f"{spec.name} pins its executors (keep_alive=-1), but {counts or 'there is no device for it'}, and "
        "one place stays free for others; unload a pinned one, or raise max_resident under [devices]"
    )


def explain_handler_pin(spec: HandlerSpec | None, residency: Residency) -> str | None:
    """Return why the next executor of a handler could not be pinned; None for an unknown handler, too."""
    if spec is None:
        return None
    job_class = prewarm_class(spec.name, spec.version, "", need_bytes=None, gpus=spec.options.gpus)
    return explain_refused_pin(spec, job_class, residency)

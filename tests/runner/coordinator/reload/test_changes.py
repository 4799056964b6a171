"""What a reload has made of the handlers, told by name."""

from __future__ import annotations

from msgspec.structs import replace

from runner.coordinator.reload.changes import ReloadResult, compare_handlers
from runner.handlers.spec import HandlerOptions, HandlerSpec, Source


def spec(name: str, version: str = "1", state: str = "ok") -> HandlerSpec:
    return HandlerSpec(name, version, state, Source("file", "/h.py", name))  # type: ignore[arg-type]


def shelf(*specs: HandlerSpec) -> dict[str, HandlerSpec]:
    return {one.name: one for one in specs}


def test_each_name_stands_in_one_list() -> None:
    before = shelf(*(spec(name) for name in ("gone", "same", "code", "files", "options", "torn", "mended")))
    before["mended"] = before["still"] = spec("mended", "", "broken")
    after = shelf(
        spec("same"),
        spec("code", "2"),
        spec("files"),
        replace(spec("options"), options=HandlerOptions(retries=1)),
        spec("torn", "", "broken"),
        spec("mended"),
        spec("still", "", "broken"),
        spec("new"),
    )
    found = compare_handlers(before, after, {"files", "code", "new", "gone"})
    assert found == ReloadResult(
        added=["new"],
        changed=["code", "files", "mended", "options"],
        removed=["gone"],
        broken=["still", "torn"],
        unchanged=["same"],
    )
    assert (
        found.summary() == "added new; changed code, files, mended, options; removed gone; broken still, torn"
    )


def test_nothing_is_told_as_nothing_and_many_are_not_all_named() -> None:
    assert ReloadResult(unchanged=["a"]).summary() == "nothing has changed"
    many = ReloadResult(added=[f"h{n:02}" for n in range(12)])
    assert many.summary().endswith("h09 and 2 more")

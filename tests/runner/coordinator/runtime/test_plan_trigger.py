"""Planning cycles: many requests lead to one, and none is lost."""

from __future__ import annotations

import asyncio

from runner.coordinator.runtime.plan_trigger import PlanTrigger


def test_requests_of_one_iteration_lead_to_one_cycle() -> None:
    async def body() -> None:
        trigger, cycles = PlanTrigger(), list[int]()
        trigger.connect(lambda: cycles.append(1))
        for _ in range(3):
            trigger.wake()
        assert cycles == []
        await asyncio.sleep(0)
        assert cycles == [1]
        await asyncio.sleep(0)
        assert cycles == [1]

    asyncio.run(body())


def test_a_request_made_by_a_cycle_leads_to_another_one() -> None:
    async def body() -> None:
        trigger, cycles = PlanTrigger(), list[int]()

        def run_cycle() -> None:
            cycles.append(1)
            if len(cycles) == 1:
                trigger.wake()

        trigger.connect(run_cycle)
        trigger.wake()
        await asyncio.sleep(0)
        assert cycles == [1]
        await asyncio.sleep(0)
        assert cycles == [1, 1]

    asyncio.run(body())


def test_a_cycle_that_fails_does_not_end_the_requests() -> None:
    async def body() -> None:
        trigger, cycles = PlanTrigger(), list[int]()

        def run_cycle() -> None:
            cycles.append(1)
            if len(cycles) == 1:
                raise ValueError("first")

        failures: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: failures.append(context["exception"])
        )
        trigger.connect(run_cycle)
        for _ in range(2):
            trigger.wake()
            await asyncio.sleep(0)
        assert [str(failure) for failure in failures] == ["first"]
        assert cycles == [1, 1]

    asyncio.run(body())


def test_requests_before_the_connection_have_no_effect() -> None:
    async def body() -> None:
        trigger, cycles = PlanTrigger(), list[int]()
        trigger.wake()
        await asyncio.sleep(0)
        trigger.connect(lambda: cycles.append(1))
        await asyncio.sleep(0)
        assert cycles == []
        trigger.wake()
        await asyncio.sleep(0)
        assert cycles == [1]

    asyncio.run(body())

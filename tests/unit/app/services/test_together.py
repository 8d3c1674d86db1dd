"""Work that is shared: by whom, and what each of them gets."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from app.services.together import Together


def test_who_comes_while_work_is_under_way_shares_the_next_one_and_the_same_question() -> None:
    noted: list[list[int]] = []
    begun, gate = threading.Event(), threading.Event()

    def work(questions: Sequence[int]) -> list[int]:
        noted.append(list(questions))
        begun.set()
        gate.wait(10)
        return [2 * each for each in questions]

    async def main() -> list[int]:
        together = Together(work, most_at_once=3)
        first = asyncio.create_task(together.ask(1))
        await asyncio.to_thread(begun.wait, 10)
        others = [asyncio.create_task(together.ask(each)) for each in (2, 3, 2, 4, 1)]
        await asyncio.sleep(0)
        gate.set()
        return [await each for each in (first, *others)]

    assert asyncio.run(main()) == [2, 4, 6, 4, 8, 2]
    assert noted == [[1], [2, 3, 4], [1]]


def test_an_error_is_told_to_those_who_shared_the_work_and_to_nobody_else() -> None:
    def work(questions: Sequence[int]) -> list[int]:
        if 0 in questions:
            raise ZeroDivisionError
        return list(questions)

    async def main() -> list[object]:
        together = Together(work, most_at_once=2)
        asked = [together.ask(each) for each in (1, 0, 2, 3)]
        return list(await asyncio.gather(*asked, return_exceptions=True))

    first, second, *others = asyncio.run(main())
    assert isinstance(first, ZeroDivisionError)
    assert isinstance(second, ZeroDivisionError)
    assert others == [2, 3]


@pytest.mark.parametrize("error", [None, ZeroDivisionError])
def test_who_leaves_takes_nothing_from_the_others(error: type[Exception] | None) -> None:
    begun, gate = threading.Event(), threading.Event()

    def work(questions: Sequence[int]) -> list[int]:
        begun.set()
        gate.wait(10)
        if error is not None:
            raise error
        return list(questions)

    async def main() -> list[object]:
        together = Together(work, most_at_once=2)
        leaves, stays = (asyncio.create_task(together.ask(each)) for each in (1, 2))
        await asyncio.to_thread(begun.wait, 10)
        leaves.cancel()
        await asyncio.sleep(0)
        gate.set()
        return list(await asyncio.gather(leaves, stays, return_exceptions=True))

    left, stayed = asyncio.run(main())
    assert isinstance(left, asyncio.CancelledError)
    assert stayed == 2 if error is None else isinstance(stayed, error)

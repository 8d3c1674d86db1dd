"""One piece of work for all who ask for it at the same time."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from itertools import chain
from typing import Generic, TypeVar

from anyio import to_thread

Question = TypeVar("Question", bound=Hashable)
Answer = TypeVar("Answer")


class Together(Generic[Question, Answer]):
    """Works once at a time, in a thread; who comes meanwhile shares the next time. Of one event loop.

    To ask a database for fifty things takes about as long as to ask for one. An answer is never older than
    its question: nobody joins work that has begun. Who asks the same before it begins shares the answer.
    """

    def __init__(self, work: Callable[[Sequence[Question]], Sequence[Answer]], most_at_once: int) -> None:
        self._work = work
        """Answers to the questions, in their order."""
        self._most_at_once = most_at_once
        self._waiting: dict[Question, list[asyncio.Future[Answer]]] = {}
        self._working: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        """The answer. Who leaves before it comes takes it from nobody else.

        Raises:
            Exception: the work failed, for all who shared it.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(question, []).append(answer)
        if self._working is None:
            self._working = asyncio.create_task(self._work_for_all())
        return await answer

    async def _work_for_all(self) -> None:
        try:
            while self._waiting:
                await self._work_for([*self._waiting][: self._most_at_once])
        finally:  # or nobody would ever work again
            self._working = None

    async def _work_for(self, questions: Sequence[Question]) -> None:
        asked = [self._waiting.pop(question) for question in questions]
        try:
            answers = await to_thread.run_sync(self._work, questions)
        except Exception as error:  # noqa: BLE001  (told to each of those who wait)
            for waiting in chain.from_iterable(asked):
                if not waiting.done():
                    waiting.set_exception(error)
        else:
            for those, answer in zip(asked, answers, strict=True):
                for waiting in those:
                    if not waiting.done():
                        waiting.set_result(answer)

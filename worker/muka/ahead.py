"""The next shard's tokens, made while the model works on this one (section 9.4)."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from worker.muka.batching import TokenisedTexts, tokenise
from worker.muka.teacher import Teacher


@dataclass(frozen=True)
class Upcoming:
    """A shard that is probably asked about next.

    Attributes:
        shard: Its number in the corpus.
        texts: Reads its texts; called in another thread.
    """

    shard: int
    texts: Callable[[], Sequence[str]]


class TokenisedAhead:
    """Tokens of one corpus, cut to one length.

    A GPU would wait for them. On a CPU nothing is made ahead: the model would lack the cores.
    """

    def __init__(self, max_length: int) -> None:
        self._max_length = max_length
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokenise")
        self._ahead: dict[str, tuple[int, Future[TokenisedTexts]]] = {}

    def take(
        self, teacher: Teacher, shard: int, texts: Sequence[str], upcoming: Upcoming | None = None
    ) -> TokenisedTexts:
        """Tokens of this shard's texts; afterwards the upcoming shard's are made, if the model is on a GPU.

        Raises:
            CorpusEmptyError: There are no texts.
        """
        number, made = self._ahead.pop(teacher.digest, (None, None))
        if made is not None:
            made.exception()  # waits: a tokenizer serves one thread at a time
        tokens = made.result() if made is not None and number == shard else self._tokenise(teacher, texts)
        _ = teacher.has_dropout  # asks the tokenizer, too, when it is first asked
        if upcoming is not None and teacher.device.type == "cuda":
            begun = self._thread.submit(lambda: self._tokenise(teacher, upcoming.texts()))
            self._ahead[teacher.digest] = upcoming.shard, begun
        return tokens

    def _tokenise(self, teacher: Teacher, texts: Sequence[str]) -> TokenisedTexts:
        return tokenise(teacher.tokenizer, texts, min(self._max_length, teacher.max_length))

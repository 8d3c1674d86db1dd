"""What is wrong with an uploaded file: the first ten faults, and how many there are."""

from app.domain.errors import Fault, InvalidCorpusError

SHOWN = 10


class FaultLog:
    """Keeps the first ten faults and counts the others."""

    def __init__(self) -> None:
        self.first: list[Fault] = []
        self.total = 0

    def add(self, fault: Fault) -> None:
        """Note one more."""
        self.total += 1
        if len(self.first) < SHOWN:
            self.first.append(fault)

    def refuse(self) -> None:
        """Raise `InvalidCorpusError` when there are any."""
        if not self.total:
            return
        first = self.first[0]
        count = "1 error" if self.total == 1 else f"{self.total} errors"
        shown = f", of which the first {SHOWN} are listed" if self.total > SHOWN else ""
        raise InvalidCorpusError(
            f"the corpus has {count}{shown}; nothing was stored. {first.pointer}: {first.detail}",
            faults=self.first,
        )

"""Messages of a support inbox, generated from the written templates in the TOML files beside this module.

Each team has a file, in which the templates are grouped by intent and part. In a template, ``{slot}`` is
filled with one of the slot's values, the same at each place in the message, and ``[one|another]`` with one
of the alternatives. ``{city2}`` is a city other than ``{city}``, ``{month2}`` a month after ``{month}``.
A template that begins with a small letter is written as in a chat; the others may get a salutation and a
closing. A few messages get a slip of the keyboard.

Everything follows from the seed.
"""

import random
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Final, Literal, get_args

Part = Literal["train", "corpus", "test"]

PARTS: Final[tuple[Part, ...]] = get_args(Part)

COUNTS: Final[Mapping[Part, int]] = {"train": 60, "corpus": 110, "test": 50}
"""How many messages of each intent a part holds."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the inbox.

    Attributes:
        text: What the customer wrote.
        team: The team that answers it.
        intent: What the customer wants, one of the team's intents.
        template: Which template the text was made from, as ``team/intent/part/number``.
    """

    text: str
    team: str
    intent: str
    template: str


def _load(name: str) -> dict[str, Any]:
    file = resources.files(__package__).joinpath(f"{name}.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))


_BOOK: Final[Mapping[str, Mapping[str, Mapping[Part, Sequence[str]]]]] = {
    team: _load(team) for team in ("billing", "shipping", "technical")
}
_SHARED: Final = _load("shared")
_SLOTS: Final[Mapping[str, Sequence[str]]] = _SHARED["slots"]
_TYPOS: Final[Mapping[str, str]] = _SHARED["typos"]

TEAMS: Final[dict[str, tuple[str, ...]]] = {team: tuple(intents) for team, intents in _BOOK.items()}
"""The intents that each team deals with."""

_ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_OWN_GREETING = re.compile(r"(hi|hey|hello|dear|to whom|um|oops)\b", re.IGNORECASE)
_FRAMINGS = 3
_TERSE_UP_TO = 60
_ROOM_FOR_MORE = 130


def templates(team: str, intent: str, part: Part) -> tuple[str, ...]:
    """The templates of an intent that belong to a part, as they are written."""
    return tuple(_BOOK[team][intent][part])


def messages(part: Part, *, seed: int = 7) -> list[Message]:
    """The messages of one part, shuffled.

    Args:
        part: ``train`` for the teams' own teachers, ``corpus`` for the student (who is not shown the
            intents), ``test`` to measure all of them.
        seed: The same seed gives the same messages.

    Returns:
        ``COUNTS[part]`` messages of each intent. No text occurs twice, in this part or in another.
    """
    return list(_inbox(seed)[part])


@lru_cache(maxsize=4)
def _inbox(seed: int) -> dict[Part, tuple[Message, ...]]:
    seen: set[str] = set()
    inbox: dict[Part, tuple[Message, ...]] = {}
    for part in PARTS:
        found = [
            message
            for team, intents in TEAMS.items()
            for intent in intents
            for message in _of_intent(team, intent, part, seed, seen)
        ]
        random.Random(f"{seed}/{part}").shuffle(found)
        inbox[part] = tuple(found)
    return inbox


def _of_intent(team: str, intent: str, part: Part, seed: int, seen: set[str]) -> list[Message]:
    """Goes round the templates; the same wording may come back, but in another framing only."""
    rng = random.Random(f"{seed}/{team}/{intent}/{part}")
    book = templates(team, intent, part)
    wordings: Counter[str] = Counter()
    found: list[Message] = []
    for attempt in range(100 * COUNTS[part]):
        if len(found) == COUNTS[part]:
            return found
        number = attempt % len(book)
        values = _Values(rng)
        wording = values.fill(book[number])
        # So a template without much to vary comes up less often than the others.
        if wordings[wording] == _FRAMINGS:
            continue
        text = _frame(book[number], wording, part, values, rng)
        if text.casefold() in seen:
            continue
        wordings[wording] += 1
        seen.add(text.casefold())
        found.append(Message(text, team, intent, f"{team}/{intent}/{part}/{number:02d}"))
    raise ValueError(f"the {part} templates of {team}/{intent} give too few messages; write some more")


class _Values:
    """The values of the slots in one message: each is drawn when it is first asked for."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._drawn: dict[str, str] = {}
        self._made: dict[str, Callable[[], str]] = {
            "amount": lambda: (
                rng.choice("£$€") + rng.choice(["{}", "{}.50", "{}.90"]).format(rng.randint(8, 190))
            ),
            "email": self._email,
            "fee": lambda: (
                rng.choice("£$€") + rng.choice(["{}", "{}.50", "{}.99"]).format(rng.randint(5, 19))
            ),
            "invoice": lambda: f"INV-{rng.randint(20100, 29900)}",
            "last4": lambda: f"{rng.randint(1100, 9900)}",
            "month2": self._later_month,
            "n_cap": lambda: str.capitalize(self["n"]),
            "nth": lambda: f"{rng.choice([4, 9, 14, 17, 24])}th",
            "order": lambda: rng.choice(["", "", "#", "HF-"]) + str(rng.randint(31000, 89999)),
            "products": lambda: self["product"] + "s",
            "small": lambda: str(rng.randint(4, 88)),
            "date": self._date,
        }

    def __getitem__(self, slot: str) -> str:
        if slot not in self._drawn:
            self._drawn[slot] = self._draw(slot)
        return self._drawn[slot]

    def fill(self, template: str) -> str:
        """The template with its alternatives chosen and its slots filled."""
        chosen = _ALTERNATIVES.sub(lambda match: self._rng.choice(match[1].split("|")), template)
        return _SLOT.sub(lambda match: self[match[1]], chosen)

    def used(self, template: str) -> bool:
        """Whether the message already speaks of something that this template would mention too."""
        return any(slot in self._drawn for slot in _SLOT.findall(template))

    def _draw(self, slot: str) -> str:
        if slot in self._made:
            return self._made[slot]()
        kind = slot.rstrip("2")
        other = self[kind] if kind != slot else None
        if kind == "street":
            roads = [road for road in _SLOTS["road"] if other is None or not other.endswith(road)]
            return f"{self._rng.randint(2, 140)} {self._rng.choice(roads)}"
        return self._rng.choice([value for value in _SLOTS[kind] if value != other])

    def _later_month(self) -> str:
        months = _SLOTS["month"]
        first = self._rng.randrange(len(months) - 1)
        if "month" in self._drawn:
            first = months.index(self["month"])
        self._drawn["month"] = months[first]
        return months[(first + self._rng.randint(1, 4)) % len(months)]

    def _date(self) -> str:
        day, month = self._rng.randint(1, 28), self._rng.choice(_SLOTS["month"])
        ending = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd"}.get(day, "th")
        return self._rng.choice([f"{day} {month}", f"{month} {day}", f"the {day}{ending}"])

    def _email(self) -> str:
        first, last = self["first"].lower(), self["last"].lower()
        name = self._rng.choice(
            [f"{first}.{last}", f"{first[0]}.{last}", f"{last}{self._rng.randint(60, 99)}"]
        )
        return f"{name}@{self._rng.choice(['example.com', 'example.org', 'mail.example'])}"


def _frame(template: str, wording: str, part: Part, values: _Values, rng: random.Random) -> str:
    """Puts a salutation, some small talk and a closing around the matter, each of them now and then."""
    if template[0].islower():
        return _misspell(_chat(wording, rng), rng, share=0.2)
    text = wording
    finished = text[-1] in ".?!"
    if len(text) < _ROOM_FOR_MORE and finished:
        where = rng.random()
        if where < 0.10 and not _OWN_GREETING.match(text) and len(text) > _TERSE_UP_TO:
            text = _small_talk("before", part, text, values, rng)
        elif where < 0.22 and not template.endswith("?!"):
            text = _small_talk("after", part, text, values, rng)
    if rng.random() < 0.08 and len(text) < _ROOM_FOR_MORE:
        # A hurried writer, all in small letters and without the last full stop.
        hurried = " ".join(_lower(word) for word in text.split(" "))
        return _misspell(hurried.removesuffix("."), rng, share=0.3)
    if rng.random() < 0.28 and not _OWN_GREETING.match(text):
        greeting = rng.choice(_SHARED["formal"]["greetings"])
        text = f"{greeting} {_decapitalise(text) if greeting.endswith(',') else text}"
    if rng.random() < 0.28 and finished:
        text = f"{text} {values.fill(rng.choice(_SHARED['formal']['closings']))}"
    return _misspell(text, rng, share=0.06)


def _chat(wording: str, rng: random.Random) -> str:
    text = wording
    if rng.random() < 0.2 and not _OWN_GREETING.match(text):
        text = f"{rng.choice(_SHARED['chat']['greetings'])} {text}"
    if rng.random() < 0.2 and not re.search(r"\b(pls|help|please)\b", text):
        closing = rng.choice(_SHARED["chat"]["closings"])
        text = f"{text} {closing}" if text[-1] in "?!." else f"{text}, {closing}"
    return text


def _small_talk(where: str, part: Part, text: str, values: _Values, rng: random.Random) -> str:
    fitting = [line for line in _SHARED[where][part] if not values.used(line)]
    line = values.fill(rng.choice(fitting))
    return f"{line} {text}" if where == "before" else f"{text} {line}"


def _lower(word: str) -> str:
    """The word in small letters, unless it is something like ``INV-20931`` or ``DHL``."""
    return word if any(map(str.isdigit, word)) or sum(map(str.isupper, word)) > 1 else word.lower()


def _decapitalise(text: str) -> str:
    word = re.split(r"[\s,.'?:]", text, maxsplit=1)[0]
    names = {*_SLOTS["courier"], *(name.split()[0] for kind in ("tool", "hub") for name in _SLOTS[kind])}
    keep = word == "I" or word in names or (word != "A" and not word[1:].islower())
    return text if keep else text[0].lower() + text[1:]


def _misspell(text: str, rng: random.Random, *, share: float) -> str:
    """Now and then, one slip of the keyboard in a word where people do make one."""
    if rng.random() >= share:
        return text
    words = text.split(" ")
    places = [place for place, word in enumerate(words) if word.rstrip(",.?!") in _TYPOS]
    if places:
        place = rng.choice(places)
        word = words[place].rstrip(",.?!")
        words[place] = _TYPOS[word] + words[place][len(word) :]
    return " ".join(words)

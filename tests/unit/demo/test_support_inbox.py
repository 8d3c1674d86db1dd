"""The demo's support inbox: how much there is of it, and that a stranger could take it for a real one."""

import re
from collections import Counter

import pytest

from demo.support_inbox import COUNTS, PARTS, TEAMS, Message, Part, messages, templates

INBOX: list[Message] = [message for part in PARTS for message in messages(part)]
INTENTS = [(team, intent) for team, intents in TEAMS.items() for intent in intents]

ENOUGH_TEMPLATES: dict[Part, int] = {"train": 18, "corpus": 20, "test": 12}

# "a hour", "an parcel"; not "a user", "a one-time code", "an hour", "an XML file" or "a UPS shop".
ARTICLE_SLIP = re.compile(
    r"\ba (?!(?:us|uni|eu|one|ups\b|a\b))[aeiou]\w+|\ban (?!hour|honest|xml\b|sms\b|hf-)[^aeiou\W\d]\w+",
    re.IGNORECASE,
)


def test_three_teams_of_five_intents_that_nobody_shares() -> None:
    assert [len(intents) for intents in TEAMS.values()] == [5, 5, 5]
    assert len({intent for _, intent in INTENTS}) == 15


def test_thousands_of_messages_and_no_text_twice_in_any_part() -> None:
    assert len(INBOX) >= 2000
    assert len({message.text.casefold() for message in INBOX}) == len(INBOX)


@pytest.mark.parametrize("part", PARTS)
def test_every_intent_is_equally_frequent_in_a_part(part: Part) -> None:
    counts = Counter((message.team, message.intent) for message in messages(part))
    assert counts == dict.fromkeys(INTENTS, COUNTS[part])


@pytest.mark.parametrize(("team", "intent"), INTENTS)
def test_an_intent_is_written_in_many_ways_and_each_way_belongs_to_one_part(team: str, intent: str) -> None:
    written = [template for part in PARTS for template in templates(team, intent, part)]
    assert len({template.casefold() for template in written}) == len(written) >= 24
    for part, least in ENOUGH_TEMPLATES.items():
        assert len(templates(team, intent, part)) >= least


def test_no_template_is_written_twice_for_different_intents() -> None:
    written = Counter(
        t.casefold() for part in PARTS for team, intent in INTENTS for t in templates(team, intent, part)
    )
    assert [template for template, times in written.items() if times > 1] == []


@pytest.mark.parametrize("part", PARTS)
def test_a_message_names_the_template_that_it_was_made_from(part: Part) -> None:
    used = Counter(message.template for message in messages(part))
    everything = {
        f"{team}/{intent}/{part}/{number:02d}"
        for team, intent in INTENTS
        for number in range(len(templates(team, intent, part)))
    }
    assert set(used) == everything
    assert max(used.values()) <= COUNTS[part] * 0.12, "no template dominates its intent"


def test_the_seed_decides_everything() -> None:
    first = messages("train")
    assert messages("train", seed=7) == first
    other = messages("train", seed=8)
    assert [message.text for message in other] != [message.text for message in first]
    assert Counter(message.intent for message in other) == Counter(message.intent for message in first)


def test_the_returned_list_is_the_callers_own() -> None:
    messages("test").clear()
    assert len(messages("test")) == COUNTS["test"] * len(INTENTS)


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_no_trace_of_the_generator_is_left_in_the_texts(seed: int) -> None:
    odd = [
        message.text
        for part in PARTS
        for message in messages(part, seed=seed)
        if re.search(r"[{}\[\]|\n]|  | [,.?!]|,,|^\W|,$", message.text.replace("#", "").replace(" ..", ".."))
        or message.text != message.text.strip()
    ]
    assert odd == []


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_filling_the_slots_makes_no_slips_with_articles(seed: int) -> None:
    texts = [message.text for part in PARTS for message in messages(part, seed=seed)]
    assert [text for text in texts if ARTICLE_SLIP.search(text)] == []


@pytest.mark.parametrize("text", ["put it in a envelope", "an parcel came", "At a Evri shop"])
def test_the_check_for_articles_would_notice(text: str) -> None:
    assert ARTICLE_SLIP.search(text)


def test_teams_share_their_vocabulary_so_that_no_single_word_gives_them_away() -> None:
    for word in ("order", "account", "card", "email", "app", "delivery", "parcel", "payment"):
        teams = {
            message.team for message in INBOX if re.search(rf"\b{word}s?\b", message.text, re.IGNORECASE)
        }
        assert teams == set(TEAMS), word

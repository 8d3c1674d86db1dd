from typing import Any

import pytest

from app.ingestion.model_facts import model_facts


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"n_layers": 6, "dim": 768, "dropout": 0.1, "seq_classif_dropout": 0.2}, (6, 768, 0.2, True)),
        ({"num_hidden_layers": 12, "d_model": 512, "attention_dropout": 0}, (12, 512, 0.0, False)),
        ({"n_layer": 12, "n_embd": 768, "resid_pdrop": 0.1}, (12, 768, 0.1, True)),
        ({"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0.1}, (None, None, 0.1, None)),
        ({}, (None, None, None, None)),
        (
            {"num_hidden_layers": True, "hidden_size": -1, "dropout": float("nan"), "embd_pdrop": "high"},
            (None, None, None, None),
        ),
        ({"num_hidden_layers": 1.5, "hidden_size": 10**400, "dropout": 10**400}, (None, None, None, None)),
    ],
)
def test_every_familys_names_are_known_and_nonsense_is_nothing(
    config: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    facts = model_facts(config, [])
    assert (facts.layers, facts.hidden_size, facts.dropout, facts.can_be_sampled) == expected


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["vocab.txt", "tokenizer.json"], "fast"),
        (["vocab.txt"], "wordpiece"),
        (["vocab.json", "merges.txt"], "byte-pair"),
        (["vocab.json"], None),
        (["spiece.model"], "sentencepiece"),
        (["qwen.tiktoken"], "tiktoken"),
    ],
)
def test_the_tokenizer_is_known_by_its_files(files: list[str], kind: str | None) -> None:
    assert model_facts({}, files).tokenizer == kind

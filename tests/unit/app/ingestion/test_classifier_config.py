"""What makes a `config.json` a teacher, and what does not."""

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import InvalidModelError
from app.ingestion.classifier_config import check_classifier_config

GOOD: dict[str, Any] = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "id2label": {"0": "refund", "1": " invoice "},
}


def _refused(**changes: Any) -> InvalidModelError:
    with pytest.raises(InvalidModelError) as caught:
        check_classifier_config(GOOD | changes)
    assert caught.value.problem_code == "teacher_not_classifier"
    return caught.value


def _codes(error: InvalidModelError) -> list[str]:
    return [fault.code for fault in error.faults]


def test_names_come_canonical_and_in_class_order() -> None:
    config = check_classifier_config(GOOD | {"id2label": {"1": "cafe\u0301", "0": " b "}})
    assert config.labels == ("b", "caf\u00e9")
    assert not config.placeholder_labels
    assert (config.architecture, config.model_type) == ("BertForSequenceClassification", "bert")


@pytest.mark.parametrize(
    ("changes", "count"), [({"id2label": None}, 2), ({"id2label": None, "num_labels": 3}, 3)]
)
def test_classes_without_names_are_placeholders(changes: dict[str, Any], count: int) -> None:
    config = check_classifier_config(GOOD | changes)
    assert config.labels == tuple(f"LABEL_{index}" for index in range(count))
    assert config.placeholder_labels


@pytest.mark.parametrize("architectures", [None, [], ["BertModel"], "BertForSequenceClassification", [7]])
def test_other_architectures_are_refused(architectures: Any) -> None:
    error = _refused(architectures=architectures)
    assert _codes(error) == ["not_sequence_classification"]
    assert error.faults[0].pointer == "config.json#/architectures"


@pytest.mark.parametrize("changes", [{"id2label": {"0": "score"}}, {"id2label": None, "num_labels": 1}])
def test_a_regression_head_is_refused_by_name(changes: dict[str, Any]) -> None:
    error = _refused(**changes)
    assert _codes(error) == ["regression_head"]
    assert "regresses" in error.detail


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification"])
def test_other_problem_types_are_refused(problem: str) -> None:
    assert _codes(_refused(problem_type=problem)) == ["wrong_problem_type"]


def test_custom_code_is_refused() -> None:
    assert _codes(_refused(auto_map={"AutoModel": "modeling.Mine"})) == ["custom_code"]


def test_code_of_a_part_is_refused_too() -> None:
    """transformers would fetch an attention kernel from any repository that a config names."""
    for name in ("attn_implementation", "_attn_implementation"):
        assert _codes(_refused(**{name: "kernels-community/flash-attn2"})) == ["custom_code"]
    told = str(_refused(**{"\ud800attn_implementation": "acme/kernel"}))
    assert r"`\ud800attn_implementation` names code" in told
    check_classifier_config(GOOD | {"attn_implementation": "sdpa"})


@pytest.mark.parametrize("layers", [0, -1, 257, 10**9])
def test_a_number_of_layers_that_takes_for_ever_to_build_is_refused(layers: int) -> None:
    for name in ("num_hidden_layers", "n_layers"):
        assert _codes(_refused(**{name: layers})) == ["layers_invalid"]


@pytest.mark.parametrize(
    "changes",
    [
        {"id2label": {"0": "a", "2": "b"}},
        {"id2label": {"0": "a", "1": " a "}},
        {"id2label": {"0": "a", "1": "  "}},
        {"id2label": {"0": "a", "1": 5}},
        {"id2label": {"0": "a", "1": "x" * 257}},
        {"id2label": ["a", "b"]},
        {"num_labels": 3},
        {"num_labels": True},
        {"id2label": {}},
        {"id2label": None, "num_labels": 10**9},
    ],
)
def test_inconsistent_labels_are_refused(changes: dict[str, Any]) -> None:
    assert set(_codes(_refused(**changes))) == {"labels_invalid"}


def test_all_faults_come_at_once() -> None:
    error = _refused(architectures=["GPT2LMHeadModel"], problem_type="regression", id2label={"0": "a"})
    assert _codes(error) == ["not_sequence_classification", "wrong_problem_type", "regression_head"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["architectures", "model_type", "id2label", "num_labels", "problem_type", "auto_map"]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_any_config_is_read_or_refused(config: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidModelError):
        check_classifier_config(GOOD | config)

import math

import pytest

from worker.muka import methods, uncertainty
from worker.muka.recipe import METHODS, SCORES, Method, Training


def test_the_defaults_are_the_papers():
    method, training = Method(), Training()
    assert (method.name, method.integration, method.mc_samples, method.temperature) == (
        "muka",
        "soft",
        16,
        0.2,
    )
    assert (training.epochs, training.batch_size, training.learning_rate) == (3, 32, 2e-5)
    assert (training.max_length, training.warmup_ratio, training.max_grad_norm) == (128, 0.1, 1.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "nonsense"),
        ("integration", "medium"),
        ("score", "luck"),
        ("reweight", "twice"),
        ("mc_samples", -1),
        ("temperature", 0.0),
        ("temperature", math.nan),
        ("teacher_temperature", -1.0),
    ],
)
def test_a_method_refuses_a_value_out_of_range_and_names_field_value_and_range(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value!r}.*allowed"):
        Method(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("max_length", 1),
        ("seed", -1),
        ("precision", "float16"),
        ("warmup_ratio", 1.5),
        ("weight_decay", -0.1),
        ("max_grad_norm", 0.0),
    ],
)
def test_a_training_refuses_a_value_out_of_range_and_names_field_value_and_range(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value!r}.*allowed"):
        Training(**{field: value})


def test_every_named_method_and_score_is_registered_and_the_other_way_round():
    assert tuple(methods.METHODS) == METHODS
    assert tuple(uncertainty.SCORES) == SCORES


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="allowed: muka"):
        methods.get_method("nonsense")

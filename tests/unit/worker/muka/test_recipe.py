import math

import pytest

from worker.muka import methods, uncertainty
from worker.muka.methods import Muka, get_method
from worker.muka.recipe import SCORES, Training


def test_the_defaults_are_the_papers():
    method, training = Muka(), Training()
    assert (method.integration, method.mc_samples, method.temperature) == ("soft", 16, 0.2)
    assert (method.score, method.reweight, method.adaptive) == ("entropy", "margin", False)
    assert get_method("muka") == method
    assert (training.epochs, training.batch_size, training.learning_rate) == (3, 32, 2e-5)
    assert (training.max_length, training.warmup_ratio, training.max_grad_norm) == (128, 0.1, 1.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("integration", "medium"),
        ("score", "luck"),
        ("reweight", "twice"),
        ("mc_samples", -1),
        ("temperature", 0.0),
        ("mc_samples", 2.5),
        ("mc_samples", True),
        ("adaptive", 1),
        ("temperature", math.nan),
        ("teacher_temperature", -1.0),
    ],
)
def test_a_method_refuses_a_value_out_of_range_and_names_field_value_and_range(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value!r}.*allowed"):
        Muka(**{field: value})


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


def test_the_other_methods_have_their_own_defaults():
    assert get_method("vanilla_kd").settings() == {"name": "vanilla_kd", "teacher_temperature": 5.0}
    assert get_method("uhc").sampling.passes == get_method("dfa").sampling.passes == 0
    assert get_method("ensemble").sampling.passes == 16


def test_every_named_score_is_registered_and_the_other_way_round():
    assert tuple(uncertainty.SCORES) == SCORES


def test_every_method_of_the_specification_is_there():
    assert set(methods.METHODS) == {"muka", "consensus", "vanilla_kd", "uhc", "dfa", "cfl", "ensemble"}


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="allowed: cfl, consensus, dfa, ensemble, muka"):
        get_method("nonsense")


def test_a_setting_that_a_method_does_not_take_is_refused_with_those_it_takes():
    with pytest.raises(ValueError, match="uhc takes no mc_samples; allowed: teacher_temperature"):
        get_method("uhc", mc_samples=4)

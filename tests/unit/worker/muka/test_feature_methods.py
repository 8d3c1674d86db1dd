"""DFA and CFL: what they add to vanilla_kd, with numbers worked out by hand and gradients checked."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.func import functional_call

from tests.unit.worker.muka.evidence import outputs, random_evidence
from worker.muka.forward import Answer
from worker.muka.label_space import LabelSpace
from worker.muka.methods import Evidence, Objective, Supervision, get_method
from worker.muka.methods.cfl import CFL, CommonFeatures, squared_mmd
from worker.muka.methods.dfa import DFA, AmalgamatedFeatures
from worker.muka.methods.features import standardised_features

UNIFORM = {"q": torch.full((1, 2), 0.5), "m": torch.ones(1)}
"""What a student with equal logits answers already: the distillation adds nothing."""


def fill(module: nn.Module, *values: float) -> None:
    """Every weight of each linear layer is its value, every bias is zero."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    for layer, value in zip(layers, values, strict=True):
        nn.init.constant_(layer.weight, value)
        nn.init.zeros_(layer.bias)


def student(made: Supervision, n: int = 6) -> Answer:
    generator = torch.Generator().manual_seed(1)
    classes = made.columns["q"].shape[-1]
    return Answer(torch.randn(n, classes, generator=generator), torch.randn(n, 8, generator=generator))


class TestStandardisedFeatures:
    def test_have_mean_0_and_variance_1_and_a_constant_is_0(self):
        features = torch.tensor([[1.0, 7.0], [3.0, 7.0]])
        evidence = Evidence(LabelSpace.union(["ab"]), [outputs(torch.zeros(2, 2), features=features)])
        assert standardised_features(evidence)[0].tolist() == [[-1.0, 0.0], [1.0, 0.0]]

    @pytest.mark.parametrize("name", ["dfa", "cfl"])
    def test_evidence_without_features_or_width_is_refused(self, name):
        bare = Evidence(LabelSpace.union(["ab", "cd"]), [outputs(torch.zeros(2, 2))] * 2, student_width=8)
        with pytest.raises(ValueError, match="no teacher features"):
            get_method(name).supervise(bare)
        whole = random_evidence("ab", "cd")
        with pytest.raises(ValueError, match="no student_width"):
            get_method(name).supervise(Evidence(whole.label_space, whole.outputs))


class TestDFA:
    @pytest.mark.parametrize(("weights", "expected"), [((1.0, 1.0), 5.0), ((2.0, 0.5), 4.0), ((0, 0), 0.0)])
    def test_a_hand_computed_example(self, weights, expected):
        settings = DFA(feature_weight=weights[0], reconstruction_weight=weights[1])
        objective = AmalgamatedFeatures(1, 2, settings=settings)
        for layer, value in ((objective.encoder, 1.0), (objective.decoder, 0.0), (objective.adapter, 2.0)):
            fill(layer, value)
        objective.decoder.weight.data[0] = 1.0
        # Features 1, 2 have the code 3, rebuilt as 3, 0: (2² + 2²)/2 = 4. The student's 2 becomes 4: 1.
        columns = {**UNIFORM, "features": torch.tensor([[1.0, 2.0]])}
        loss = objective(Answer(torch.zeros(1, 2), torch.tensor([[2.0]])), columns)
        assert loss.item() == pytest.approx(expected, abs=1e-6)

    def test_matching_does_not_move_the_encoder(self):
        made = get_method("dfa", reconstruction_weight=0.0).supervise(random_evidence("ab", "cde"))
        made.objective(student(made), made.columns).backward()
        assert made.objective.encoder.weight.grad.abs().max() == 0
        assert made.objective.adapter.weight.grad.abs().max() > 0

    def test_gradients_are_those_of_the_loss(self):
        made = get_method("dfa").supervise(random_evidence("ab", "cde", n=3))
        check_gradients(made, without="encoder.")
        check_gradients(get_method("dfa", feature_weight=0.0).supervise(random_evidence("ab", "cde", n=3)))


class TestSquaredMMD:
    def test_a_hand_computed_example(self):
        x, y = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 0.5]])
        # Directions at a squared distance of 2: exp(-1/σ²) for σ² = 1/4, 1/2, 1, 2, 4 sums to 1.9068618.
        assert squared_mmd(x, y).item() == pytest.approx(5 + 5 - 2 * 1.9068618)

    def test_the_same_sample_in_any_order_is_no_discrepancy(self):
        x = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
        assert squared_mmd(x, x.flip(0)).item() == pytest.approx(0.0, abs=1e-5)

    def test_samples_of_different_distributions_are_further_apart(self):
        x, y, z = torch.randn(3, 200, 4, generator=torch.Generator().manual_seed(0))
        assert squared_mmd(x, y) < squared_mmd(x, z + 1) / 5


class TestCFL:
    def test_a_hand_computed_example(self):
        objective = CommonFeatures(1, [1], settings=CFL(reconstruction_weight=3.0))
        for module, values in (
            (objective.student_adapter, [1.0]),
            (objective.teacher_adapters, [1.0]),
            (objective.extractor, [1.0, 1.0]),
            (objective.decoders, [1.0, 0.5]),
        ):
            fill(module, *values)
        # In one dimension 3 and 2 have the same direction. The feature 2 is rebuilt as 1: 1², times 3.
        columns = {**UNIFORM, "features_0": torch.tensor([[2.0]])}
        loss = objective(Answer(torch.zeros(1, 2), torch.tensor([[3.0]])), columns)
        assert loss.item() == pytest.approx(3.0)

    def test_it_is_the_sum_of_its_three_parts(self):
        evidence = random_evidence("ab", "cde")
        made = get_method("cfl", feature_weight=0.5, reconstruction_weight=2.0).supervise(evidence)
        objective, answer = made.objective, student(made)
        ours = objective.extractor(objective.student_adapter(answer.features))
        expected = objective.distillation(answer, made.columns)
        for i in range(2):
            features = made.columns[f"features_{i}"]
            theirs = objective.extractor(objective.teacher_adapters[i](features))
            rebuilt = objective.decoders[i](theirs)
            expected = expected + 0.5 * squared_mmd(ours, theirs) + 2 * (rebuilt - features).square().mean()
        torch.testing.assert_close(objective(answer, made.columns), expected)

    def test_gradients_are_those_of_the_loss(self):
        check_gradients(get_method("cfl").supervise(random_evidence("ab", "cde", n=3)))


@pytest.mark.parametrize("name", ["dfa", "cfl"])
def test_distillation_is_that_of_vanilla_kd(name):
    evidence = random_evidence("ab", "bcd")
    plain = get_method("vanilla_kd").supervise(evidence)
    made = get_method(name, feature_weight=0.0, reconstruction_weight=0.0).supervise(evidence)
    answer = student(made)
    torch.testing.assert_close(
        made.objective(answer, made.columns), plain.objective(Answer(answer.logits), plain.columns)
    )


@pytest.mark.parametrize("name", ["dfa", "cfl"])
def test_first_weights_depend_on_the_seed_alone(name):
    evidence = random_evidence("ab", "cd")
    other = Evidence(evidence.label_space, evidence.outputs, student_width=8, seed=2)
    torch.manual_seed(3)
    one, same, changed = (flat(get_method(name).supervise(e).objective) for e in (evidence, evidence, other))
    assert torch.equal(one, same)
    assert not torch.equal(one, changed)


@pytest.mark.parametrize("name", ["dfa", "cfl"])
def test_a_student_that_was_run_without_features_is_refused(name):
    made = get_method(name).supervise(random_evidence("ab", "cd"))
    assert made.objective.wants_features
    with pytest.raises(ValueError, match="no features"):
        made.objective(Answer(torch.zeros(6, 4)), made.columns)


def flat(objective: Objective) -> Tensor:
    return torch.cat([parameter.flatten() for parameter in objective.parameters()])


def check_gradients(made: Supervision, without: str = "nothing") -> None:
    """Compare with differences, in float64: by the student's logits and features, and by the adapters."""
    objective, columns = made.objective.double(), {k: v.double() for k, v in made.columns.items()}
    answer = student(made, len(made))
    named = dict(objective.named_parameters())
    fixed = {name: value.detach() for name, value in named.items() if name.startswith(without)}
    checked = {name: value.detach().requires_grad_() for name, value in named.items() if name not in fixed}

    def loss(logits: Tensor, features: Tensor, *weights: Tensor) -> Tensor:
        parameters = fixed | dict(zip(checked, weights, strict=True))
        return functional_call(objective, parameters, (Answer(logits, features), columns))

    inputs = [each.double().requires_grad_() for each in (answer.logits, answer.features)]
    assert gradcheck(loss, (*inputs, *checked.values()))

"""What must hold for all of them (section 8)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny_models import TEXTS
from tests.unit.worker.muka.evidence import permuted, random_evidence
from worker.muka import Training, amalgamate, parts
from worker.muka.forward import Answer
from worker.muka.methods import METHODS, get_method

STUDENTS = [name for name, method in METHODS.items() if method.trains_student]

_names = st.sampled_from(["a", "b", "c", "d", "e", None])
_teacher = st.lists(_names, min_size=2, max_size=6).filter(lambda names: len(set(names) - {None}) >= 2)


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=40, deadline=None)
@given(
    teachers=st.lists(_teacher, min_size=2, max_size=4),
    texts=st.tuples(st.integers(1, 3), st.sampled_from([0, 4, 21])),
    scale=st.sampled_from([0.0, 1.0, 30.0, 1e4]),
    seed=st.integers(0, 2**31),
)
def test_any_label_spaces_teachers_and_batch_give_distributions_and_a_finite_loss(
    name, teachers, texts, scale, seed
):
    """`consensus` has clusters to learn from 3 texts a label on, and believes them alone from 20 on."""
    some, a_label = texts
    n = some + a_label * len({label for names in teachers for label in names if label is not None})
    evidence = random_evidence(*teachers, n=n, scale=scale, seed=seed)
    made = get_method(name).supervise(evidence)
    for column in [made.columns[key] for key in made.columns if key == "q" or key.startswith("p_")]:
        torch.testing.assert_close(column.sum(-1), torch.ones(n), atol=1e-5, rtol=0)
        assert column.min() >= 0
    logits = torch.randn(n, len(evidence.label_space), generator=torch.Generator().manual_seed(seed))
    answer = Answer(logits.requires_grad_(), torch.zeros(n, 8, requires_grad=True))
    loss = made.objective(answer, made.columns)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert loss > -1e-4
    assert answer.logits.grad.isfinite().all()


@pytest.mark.parametrize("n", [10, 90])
@pytest.mark.parametrize("name", METHODS)
def test_a_corpus_in_parts_on_disk_is_supervised_as_the_whole_in_memory(name, n, monkeypatch, tmp_path):
    monkeypatch.setattr(parts, "ROWS_AT_ONCE", 4)
    method, evidence = get_method(name), random_evidence("ab", "bcd", n=n)
    whole, made = method.supervise(evidence), parts.supervise(method, evidence, tmp_path)
    assert set(made.columns) == set(whole.columns)
    for column, values in whole.columns.items():
        torch.testing.assert_close(made.columns[column], values)
    assert (made.choice is None) == (whole.choice is None)
    if made.choice and whole.choice:
        torch.testing.assert_close(vars(made.choice), vars(whole.choice))
    assert repr(made.objective) == repr(whole.objective)
    assert list(tmp_path.iterdir()) == [], "its files have no names"


@pytest.mark.parametrize("n", [6, 150])
@pytest.mark.parametrize("name", METHODS)
def test_permuting_the_teachers_permutes_nothing_but_the_order_of_the_labels(name, n):
    evidence, order = random_evidence("ab", "bcd", ["e", None, "a"], n=n), [2, 0, 1]
    other = permuted(evidence, order)
    one, two = (get_method(name).supervise(each) for each in (evidence, other))
    places = [other.label_space.label2id[label] for label in evidence.label_space.labels]
    assert one.columns.keys() == two.columns.keys()
    if "q" in one.columns:
        torch.testing.assert_close(two.columns["q"][:, places], one.columns["q"])
        torch.testing.assert_close(two.columns["m"], one.columns["m"])
    for i, teacher in enumerate(order):
        if (column := f"p_{i}") in two.columns:
            torch.testing.assert_close(two.columns[column], one.columns[f"p_{teacher}"])
    assert (one.choice is None) == (two.choice is None)
    if one.choice is not None and two.choice is not None:
        torch.testing.assert_close(two.choice.w, one.choice.w[:, order])


@pytest.mark.parametrize("name", METHODS)
def test_a_student_in_half_precision_has_a_float32_loss(name):
    made = get_method(name).supervise(random_evidence("ab", "bcd"))
    answer = Answer(torch.zeros(6, 4, dtype=torch.bfloat16), torch.zeros(6, 8, dtype=torch.bfloat16))
    assert made.objective(answer, made.columns).dtype == torch.float32


@pytest.mark.parametrize("name", METHODS)
def test_its_settings_change_how_its_objective_is_told(name):
    """By which a checkpoint of another loss is known: the fingerprint holds it."""
    evidence = random_evidence("ab", "bcd")
    one, other = (
        get_method(name, teacher_temperature=temperature).supervise(evidence) for temperature in (1.0, 2.0)
    )
    same = get_method(name, teacher_temperature=1.0).supervise(evidence)
    assert repr(one.objective) == repr(same.objective)
    if name != "ensemble":
        assert repr(one.objective) != repr(other.objective)


@pytest.mark.parametrize("name", STUDENTS)
def test_the_same_call_makes_the_same_student_bit_for_bit(name, bank, travel):
    def weights() -> torch.Tensor:
        method = get_method(name, **({"mc_samples": 2} if name == "muka" else {}))
        training = Training(epochs=1, batch_size=4, precision="float32")
        student = amalgamate([bank, travel], TEXTS * 2, method=method, training=training, progress=False)
        assert student.report["method"] == method.settings()
        return torch.cat([parameter.detach().flatten() for parameter in student.model.parameters()])

    assert torch.equal(weights(), weights())


def test_a_method_without_a_student_cannot_be_amalgamated(bank, travel):
    with pytest.raises(ValueError, match="ensemble trains no student"):
        amalgamate([bank, travel], TEXTS, method=get_method("ensemble"), progress=False)

import pytest
import torch

from worker.muka.errors import LabelConflictError
from worker.muka.label_space import LabelSpace, teacher_labels


class TestTeacherLabels:
    def test_names_are_trimmed_and_composed(self):
        assert teacher_labels({0: " cafe\u0301 ", 1: "tea"}) == ("caf\u00e9", "tea")

    def test_case_matters(self):
        assert teacher_labels({0: "Tea", 1: "tea"}) == ("Tea", "tea")

    def test_order_is_that_of_the_class_indices(self):
        assert teacher_labels({1: "b", 0: "a", 10: "c"}) == ("a", "b", "c")

    def test_labels_are_renamed_and_dropped(self):
        mapping = {"LABEL_0": "refund", "other": None}
        assert teacher_labels({0: "LABEL_0", 1: "bill", 2: "other"}, mapping) == ("refund", "bill", None)

    def test_placeholders_left_unmapped_are_refused_by_name(self):
        with pytest.raises(LabelConflictError, match="LABEL_1") as caught:
            teacher_labels({0: "LABEL_0", 1: "LABEL_1"}, {"LABEL_0": "a"})
        assert caught.value.code == "label_conflict"
        assert "LABEL_0" not in str(caught.value)

    def test_a_mapping_of_unknown_labels_is_refused(self):
        with pytest.raises(LabelConflictError, match="refnud"):
            teacher_labels({0: "refund", 1: "bill"}, {"refnud": "x"})

    @pytest.mark.parametrize("mapping", [{"a": None}, {"a": None, "b": None}, {"a": "b"}, {"a": " "}])
    def test_fewer_than_two_named_labels_are_refused(self, mapping):
        with pytest.raises(LabelConflictError, match="at least two"):
            teacher_labels({0: "a", 1: "b"}, mapping)


class TestUnion:
    def test_equal_names_are_one_class_and_the_rest_keeps_teacher_and_label_order(self):
        space = LabelSpace.union([["b", "a"], ["c", " a ", None, "d"]])
        assert space.labels == ("b", "a", "c", "d")
        assert space.id2label == {0: "b", 1: "a", 2: "c", 3: "d"}
        assert space.label2id["c"] == 2
        assert space.indices(1).tolist() == [2, 1, 3]

    def test_a_teacher_with_one_label_left_is_refused(self):
        with pytest.raises(LabelConflictError):
            LabelSpace.union([["a", "b"], ["c", None]])


class TestScatter:
    def test_probabilities_go_to_their_names_and_zeros_elsewhere(self):
        space = LabelSpace.union([["a", "b"], ["c", "a"]])
        assert space.scatter(1, torch.tensor([0.25, 0.75])).tolist() == [0.75, 0.0, 0.25]

    def test_dropped_mass_is_removed_and_the_rest_renormalised(self):
        space = LabelSpace.union([["a", None, "b"]])
        united = space.scatter(0, torch.tensor([[0.2, 0.5, 0.3]]))
        torch.testing.assert_close(united, torch.tensor([[0.4, 0.6]]))

    def test_two_labels_of_one_name_add_up(self):
        space = LabelSpace.union([["a", "b", "a"]])
        torch.testing.assert_close(space.scatter(0, torch.tensor([0.2, 0.5, 0.3])), torch.tensor([0.5, 0.5]))

    def test_where_all_mass_is_dropped_the_teacher_knows_nothing(self):
        space = LabelSpace.union([["a", None, "b"], ["c", "d"]])
        assert space.scatter(0, torch.tensor([0.0, 1.0, 0.0])).tolist() == [0.5, 0.5, 0.0, 0.0]

    def test_any_leading_dimensions_and_types_are_kept(self):
        space = LabelSpace.union([["a", "b"], ["c", "d"]])
        united = space.scatter(0, torch.full((2, 3, 2), 0.5, dtype=torch.float64))
        assert united.shape == (2, 3, 4)
        assert united.dtype == torch.float64

    def test_a_wrong_number_of_classes_is_refused(self):
        with pytest.raises(ValueError, match="2 classes"):
            LabelSpace.union([["a", "b"]]).scatter(0, torch.ones(3) / 3)

"""The mixture of label clusters, on numbers worked out by hand."""

import math

import pytest
import torch
from torch.distributions import Normal

from worker.muka.clusters import FeatureSpace, LabelClusters, Mixture


class TestFeatureSpace:
    def test_it_keeps_the_directions_of_largest_variance_of_the_unit_vectors(self):
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(200, 5, generator=generator) * torch.tensor([1.0, 9.0, 1.0, 4.0, 1.0])
        space = FeatureSpace.of(features, 2)
        assert space.directions.abs().argmax(0).tolist() == [1, 3]
        torch.testing.assert_close(space.directions.T @ space.directions, torch.eye(2))

    def test_lengths_of_features_do_not_count(self):
        features = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        space = FeatureSpace.of(features, 2)
        torch.testing.assert_close(space(3 * features), space(features))

    def test_there_are_no_more_directions_than_the_features_are_wide(self):
        assert FeatureSpace.of(torch.eye(3), 7)(torch.eye(3)).shape == (3, 3)


class TestLabelClusters:
    # Four texts on a line: at 1 and 3 two of the label that the teacher knows, at -8 and -12 two of another.
    Z = torch.tensor([[1.0], [3.0], [-8.0], [-12.0]])
    R = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    KNOWN = torch.tensor([True, False])

    def test_means_and_variances(self):
        found = LabelClusters.fit(self.Z, self.R, self.KNOWN)
        torch.testing.assert_close(found.means, torch.tensor([[2.0], [-10.0]]))
        torch.testing.assert_close(found.variances, torch.tensor([[1.0], [4.0]]) + 1e-4)

    def test_labels_of_few_texts_lie_nearer_to_the_mean_of_their_kind(self):
        z = torch.tensor([[0.0], [0.0], [0.0], [8.0]])
        r = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        known = LabelClusters.fit(z, r, torch.tensor([True, True]))  # all at 2; a prior of one text
        torch.testing.assert_close(known.means, torch.tensor([[2 / 4], [(8 + 2) / 2]]))
        foreign = LabelClusters.fit(z, r, torch.tensor([False, False]))  # a prior of ten texts
        torch.testing.assert_close(foreign.means, torch.tensor([[20 / 13], [(8 + 20) / 11]]))

    def test_a_label_without_texts_lies_in_the_middle(self):
        r = torch.cat([self.R, torch.zeros(4, 1)], dim=-1)
        found = LabelClusters.fit(self.Z, r, torch.tensor([True, False, True]))
        torch.testing.assert_close(found.means[2], torch.tensor([2.0]))

    def test_the_density_is_the_normal_one_tempered_by_the_number_of_directions(self):
        generator = torch.Generator().manual_seed(0)
        clusters = LabelClusters(
            torch.randn(3, 4, generator=generator), torch.rand(3, 4, generator=generator) + 0.1
        )
        z = torch.randn(5, 4, generator=generator)
        expected = Normal(clusters.means, clusters.variances.sqrt()).log_prob(z[:, None]).sum(-1)
        constant = 4 * math.log(2 * math.pi) / 2
        torch.testing.assert_close(clusters.log_density(z), (expected + constant) / 2)


class TestMixture:
    def test_a_teacher_has_the_densities_of_its_labels_in_all_spaces_together(self):
        clusters = LabelClusters(torch.tensor([[0.0], [2.0], [4.0]]), torch.ones(3, 1))
        other = LabelClusters(torch.zeros(3, 1), torch.ones(3, 1))
        known = torch.tensor([[True, True, False], [False, False, True]])
        z = [torch.tensor([[1.0]]), torch.tensor([[0.0]])]
        found = Mixture([], [clusters, other], known).scores(z)
        both = math.log(math.exp(-0.5) + math.exp(-0.5))
        torch.testing.assert_close(found, torch.tensor([[both, -4.5]]))

    @pytest.mark.parametrize("seed", range(3))
    def test_rounds_of_fitting_tell_apart_what_the_answers_confuse(self, seed):
        """Two teachers of one label each; one answer in five is wrong, and the spaces tell it."""
        generator = torch.Generator().manual_seed(seed)
        owner = torch.arange(200) % 2
        own, foreign = 0.2, 1.0
        features = []
        for i in range(2):
            spread = torch.where(owner == i, own, foreign)[:, None]
            centre = torch.nn.functional.one_hot(owner, 2).float() * 3
            features.append(
                torch.nn.functional.pad(centre, (0, 6)) + spread * torch.randn(200, 8, generator=generator)
            )
        wrong = torch.rand(200, generator=generator) < 0.2
        w = torch.nn.functional.one_hot(torch.where(wrong, 1 - owner, owner), 2).float()
        spaces = [FeatureSpace.of(each, 2) for each in features]
        z = [space(each) for space, each in zip(spaces, features, strict=True)]
        for _ in range(5):
            mixture = Mixture.fit(spaces, z, w, torch.eye(2, dtype=torch.bool))
            w = mixture.scores(z).softmax(-1)
        assert (w.argmax(-1) == owner).float().mean() > 0.97
        torch.testing.assert_close(mixture.scores_of(features), mixture.scores(z))

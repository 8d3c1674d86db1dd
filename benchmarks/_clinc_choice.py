"""How often the most certain teacher is the right one: the choice on which all of MUKA stands."""

from collections.abc import Sequence
from pathlib import Path

import torch

from worker.muka import SHARD_SIZE, Teacher
from worker.muka.scoring import ShardSampler
from worker.muka.uncertainty import entropy_score


def right_teacher(
    folders: Sequence[Path], texts: Sequence[str], truth: Sequence[int], *, mc_samples: int, seed: int
) -> dict[str, float]:
    """Share of the n texts on which the teacher with the largest u is the one that knows the text's class.

    Args:
        folders: of the N teachers.
        texts: n texts.
        truth: which teacher is right, for each text.
        mc_samples: K.
        seed: of the dropout.
    """
    scores = [_certainty(Teacher.load(folder), texts, mc_samples, seed) for folder in folders]
    right = torch.tensor(truth)
    names = ("right teacher by a single pass", "right teacher by MC dropout")
    columns = zip(names, zip(*scores, strict=True), strict=True)
    return {name: float((torch.stack(u).argmax(0) == right).float().mean()) for name, u in columns}


def _certainty(
    teacher: Teacher, texts: Sequence[str], mc_samples: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Certainty u [n] by the deterministic pass, and by the mean of K dropout passes."""
    single, sampled = [], []
    for start in range(0, len(texts), SHARD_SIZE):
        shard = texts[start : start + SHARD_SIZE]
        sampler = ShardSampler(teacher, shard, seed=seed, shard=start // SHARD_SIZE, max_length=128)
        rows = torch.arange(len(shard)).numpy()
        p_hat = sampler.dropout_passes(0, mc_samples, rows).mean(1)
        single.append(entropy_score(torch.softmax(sampler.deterministic().logits, -1), teacher.num_labels))
        sampled.append(entropy_score(p_hat, teacher.num_labels))
    return torch.cat(single), torch.cat(sampled)

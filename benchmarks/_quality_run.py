"""One line of the quality benchmark with one seed: teachers, what they say, every student, the references."""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from benchmarks._quality_encoders import make_encoder
from benchmarks._quality_lines import Line, Split
from worker.muka import (
    Ensemble,
    Evidence,
    LabelSpace,
    Method,
    Sampling,
    Student,
    Supervision,
    Teacher,
    Training,
    create_student,
    distil,
    fine_tune,
    get_method,
    orphans,
    predictive_entropy,
)
from worker.muka.amalgamate import score_corpus
from worker.muka.evaluate import evaluate
from worker.muka.forward import feature_width
from worker.muka.methods.interface import HeadStart
from worker.muka.scoring import TeacherOutputs
from worker.muka.supervision import golden_supervision

MUKA: Mapping[str, Any] = {"name": "muka", "mc_samples": 16, "adaptive": True}
METHODS: Mapping[str, Mapping[str, Any]] = {
    "consensus": {"name": "consensus"},
    "muka": MUKA,
    **{name: {"name": name} for name in ("vanilla_kd", "uhc", "dfa", "cfl")},
}
"""Settings of methods by the name of their column."""
ONE_PASS: Mapping[str, Mapping[str, Any]] = {
    "certainty": {"name": "muka", "mc_samples": 0},
    "consensus": {"name": "consensus"},
}
"""What chooses a teacher without dropout passes."""
TEACHERS, PERFECT, GOLD = "teachers", "perfect choice of teacher", "gold labels"

Result = dict[str, Any]


def _digest(*facts: Any) -> str:
    """Short, for names of files that hang on these facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


@dataclass
class LineRun:
    """What is done is kept in `kept`, so that a run that was stopped goes on."""

    line: Line
    seed: int
    data: Path
    encoder: Path
    kept: Path
    device: torch.device
    say: Callable[[str], None]
    methods: Mapping[str, Mapping[str, Any]]
    """As `METHODS`."""

    @property
    def folder(self) -> Path:
        """Of what this line and seed have."""
        return self._folder_of(self.line.name)

    def _folder_of(self, line: str) -> Path:
        return self.kept / re.sub("[^a-z0-9]+", "-", line).strip("-") / f"seed-{self.seed}"

    @cached_property
    def split(self) -> Split:
        """The texts."""
        return self.line.split(self.data, self.seed)

    @cached_property
    def teachers(self) -> list[Teacher]:
        """Fine-tuned, or loaded from an earlier run."""
        loaded = []
        for i, team in enumerate(self.line.teams(self.data)):
            own = {self.line.own_name(i, label): label for label in team}
            folder = self._fine_tuned(i, list(own))
            loaded.append(Teacher.load(folder, device=self.device, mapping=own))
        return loaded

    @cached_property
    def space(self) -> LabelSpace:
        """The union of the teachers' labels."""
        return LabelSpace.union([teacher.labels for teacher in self.teachers])

    @cached_property
    def one_pass(self) -> Evidence:
        """What the teachers say about the corpus without dropout."""
        return self._evidence(Sampling())

    def run(self, only: Collection[str] = ()) -> dict[str, Result]:
        """Every column's result, or those of `only` these."""
        found = {TEACHERS: self._kept(TEACHERS, self._of_teachers)}
        for name, make in self._supervisions().items():
            if not only or name in only:
                found[name] = self._kept(name, partial(self._of_student, make))
        return found

    def heads(self) -> dict[str, Result]:
        """Of the students of consensus and of a perfect choice, each with either start of its head."""
        consensus = partial(self._supervised, get_method("consensus"))
        starts: tuple[HeadStart, ...] = ("random", "discriminant")
        return {
            (column := f"{name}, {head}"): self._kept(column, partial(self._of_student, make, head))
            for name, make in (("consensus", consensus), (PERFECT, self._perfect))
            for head in starts
        }

    def choices(self) -> dict[str, float]:
        """The share of texts for which each method chooses the right teacher; nobody is trained."""
        made = {name: self._supervised(get_method(**settings)) for name, settings in self.methods.items()}
        return {name: self._right(of.choice.w) for name, of in made.items() if of.choice is not None}

    def _supervisions(self) -> dict[str, Callable[[], Supervision]]:
        asked = {name: get_method(**settings) for name, settings in self.methods.items()}
        made = {name: partial(self._supervised, method) for name, method in asked.items()}
        return made | {PERFECT: self._perfect, GOLD: self._gold}

    def _supervised(self, method: Method) -> Supervision:
        return method.supervise(self._evidence(method.sampling) if method.sampling.passes else self.one_pass)

    def _evidence(self, sampling: Sampling) -> Evidence:
        """What the teachers say about the corpus."""
        start = self._student(self.space.labels)
        texts = [row.text for row in self.split.corpus]
        outputs = self._scored(texts, "corpus", sampling)
        return Evidence(self.space, outputs, student_width=feature_width(start.model), seed=self.seed)

    def _kept(self, name: str, make: Callable[[], Result]) -> Result:
        told = (
            "labelled",
            "corpus",
            "test",
            "student",
            "encoders",
            "renamed",
            "rare",
            "strangers",
            "missing",
        )
        line = {field: value for field, value in asdict(self.line).items() if field in told}
        # The references differ from the student of consensus in what they learn alone; the teachers are
        # combined as `muka` chooses them.
        of = MUKA if name == TEACHERS else self.methods.get(name, {})
        method = get_method(**of).settings()
        settings = json.loads(json.dumps([asdict(self._training), method, line]))
        path = self.folder / f"{name.replace(' ', '-')}.json"
        if path.exists():
            kept: Result = json.loads(path.read_text())
            if kept["settings"] == settings:
                return kept
        self.say(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        result = make() | {"settings": settings}
        path.write_text(json.dumps(result, indent=1))
        return result

    @property
    def _training(self) -> Training:
        line = self.line
        return Training(
            epochs=line.epochs,
            batch_size=line.batch_size,
            learning_rate=line.learning_rate,
            max_length=line.max_length,
            seed=self.seed,
        )

    def _teacher_folder(self, i: int) -> Path:
        """Named by what the teacher is made of: with other settings it is another one."""
        line = self.line
        facts = (asdict(self._training), line.labelled, asdict(line.encoder_of(i)), line.teams(self.data)[i])
        return self._folder_of(line.family) / f"teacher-{i}-{_digest(*facts, line.renamed)}"

    def _fine_tuned(self, i: int, team: Sequence[str]) -> Path:
        target = self._teacher_folder(i)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Other lines of the family may want the same teacher at the same time.
        with FileLock(target.with_suffix(".lock")):
            if not (target / "model.safetensors").exists():
                self._fine_tune(i, team, target)
        return target

    def _fine_tune(self, i: int, team: Sequence[str], target: Path) -> None:
        rows = [row for row in self.split.labelled if row.owner == i]
        self.say(f"teacher {i}: fine-tuning on {len(rows)} labelled texts")
        encoder = self.line.encoder_of(i)
        fine_tune(
            make_encoder(encoder.kind, self.encoder, target.with_name(f"encoder-{i}"), seed=self.seed),
            [row.text for row in rows],
            [self.line.own_name(i, row.label) for row in rows],
            training=self._training,
            label_names=team,
            output_dir=target,
            layers=encoder.layers,
            device=self.device,
        )

    def _scored(self, texts: Sequence[str], part: str, sampling: Sampling) -> list[TeacherOutputs]:
        line = self.line
        sizes = (line.corpus, line.test, line.rare, line.strangers, line.missing)
        made_by = [self._teacher_folder(i).name for i in range(len(self.teachers))]
        name = f"{part}-{'dropout' if sampling.passes else 'one-pass'}-"
        name += _digest(asdict(sampling), sizes, made_by)
        paths = [self.folder / f"{name}-{i}.safetensors" for i in range(len(self.teachers))]
        if not all(path.exists() for path in paths):
            self.say(f"asking the teachers about the {part}: {name}")
            self.folder.mkdir(parents=True, exist_ok=True)
            wants = not sampling.passes and part == "corpus"
            training, sampling = self._training, replace(sampling, seed=self.seed)
            outputs = score_corpus(self.teachers, texts, sampling=sampling, training=training, features=wants)
            for path, of_teacher in zip(paths, outputs, strict=True):
                of_teacher.save(path)
        return [TeacherOutputs.load(path) for path in paths]

    def _student(self, labels: Sequence[str]) -> Student:
        start = self._teacher_folder(0) if self.line.student is None else self.encoder
        layers = None if self.line.student is None else self.line.student.layers
        return create_student(start, labels, layers=layers, seed=self.seed).to(self.device)

    def _of_student(self, make: Callable[[], Supervision], head: HeadStart | None = None) -> Result:
        supervision = make()
        if head is not None:
            supervision = replace(supervision, head=head)
        student = self._student(self.space.labels)
        texts = [row.text for row in self.split.corpus]
        done = distil(student, texts, supervision, self._training)
        found = self._measured(student.predict([row.text for row in self.split.test]))
        right = {} if supervision.choice is None else {"right_teacher": self._right(supervision.choice.w)}
        return found | right | {"seconds": done.seconds, "steps": done.steps}

    def _of_teachers(self) -> Result:
        """Each alone, and all of them together at test time, in two ways."""
        together = Ensemble.like(get_method(**MUKA))
        outputs = self._scored([row.text for row in self.split.test], "test", together.sampling)
        alone = [
            self._measured(self.space.scatter(i, torch.softmax(o.logits, dim=-1)))
            for i, o in enumerate(outputs)
        ]
        logits = torch.full((len(outputs[0]), len(self.space)), -torch.inf)
        for i, o in enumerate(outputs):  # a label that teachers share has the larger one of theirs
            places = self.space.indices(i)
            logits[:, places] = torch.maximum(logits[:, places], o.logits)
        q = together.supervise(Evidence(self.space, outputs)).columns["q"]
        found = {} if not self.line.strangers else {"orphans": self._orphans()}
        return found | {
            "alone": [found["accuracy"] for found in alone],
            "largest logit": self._measured(logits)["accuracy"],
            "ensemble": self._measured(q)["accuracy"],
        }

    def _orphans(self) -> dict[str, int]:
        """How many of the strangers are orphans, and of the other texts, by one pass of each teacher."""
        of_all = orphans(self.space, predictive_entropy(self.space, self.one_pass.outputs))
        is_strange = self._owners < 0
        return {
            "strangers": int(is_strange.sum()),
            "found": int(of_all[is_strange].sum()),
            "others": int((~is_strange).sum()),
            "false": int(of_all[~is_strange].sum()),
        }

    def _measured(self, scores: Tensor) -> Result:
        labels = self.space.labels
        found = evaluate(scores, [row.label for row in self.split.test], labels)
        recalls = [each.recall for each in found.per_label if each.support]
        return {
            "accuracy": found.accuracy,
            "macro_f1": found.macro_f1,
            "recall": {each.label: each.recall for each in found.per_label if each.support},
            "vanished": sum(recall == 0.0 for recall in recalls),
        }

    def _right(self, w: Tensor) -> float:
        """Share of texts of which a teacher that knows the label has the largest weight.

        Among those whose label any teacher knows.
        """
        labels, has_owner = self.space.label2id, self._owners >= 0
        places = torch.tensor([labels.get(row.label, 0) for row in self.split.corpus])
        return float(self.space.known[w.argmax(-1), places][has_owner].float().mean())

    @property
    def _owners(self) -> Tensor:
        return torch.tensor([row.owner for row in self.split.corpus])

    def _perfect(self) -> Supervision:
        """MUKA's supervision with all weight on the teacher that knows the text's class."""
        count, owner = len(self.one_pass.outputs), self._owners
        w = torch.nn.functional.one_hot(owner.clamp_min(0), count).float()
        w[owner < 0] = 1 / count
        p = [torch.softmax(o.logits, dim=-1) for o in self.one_pass.outputs]
        q = golden_supervision(p, w, self.space)
        return Supervision({"q": q, "m": (owner >= 0).float()}, head="discriminant")

    def _gold(self) -> Supervision:
        labels = self.space.label2id
        known = torch.tensor([row.owner >= 0 for row in self.split.corpus])
        index = torch.tensor([labels.get(row.label, 0) for row in self.split.corpus])
        q = torch.nn.functional.one_hot(index, len(labels)).float()
        return Supervision({"q": q, "m": known.float()}, head="discriminant")

"""CLINC150, one seed: teachers, the job through the service, the references, and what each scores."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from app.client import Job, MukaClient
from benchmarks._clinc_data import DOMAINS, Row, Split
from demo.comparison import answers_of, compare
from demo.encoder import minilm

Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What is the same for all seeds; cached results of other settings are not used."""

    mc_samples: int = 8
    epochs: int = 8
    learning_rate: float = 3e-4
    batch_size: int = 32

    def training(self, seed: int) -> dict[str, Any]:
        """The part `training` of a recipe; also of the teachers and of the gold-label reference."""
        fields = {"epochs": self.epochs, "learning_rate": self.learning_rate, "batch_size": self.batch_size}
        return fields | {"seed": seed}


@dataclass
class SeedRun:
    """One seed under way; `folder` keeps models, so that a run that was stopped goes on."""

    settings: Settings
    split: Split
    seed: int
    folder: Path
    say: Say
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, client: MukaClient) -> dict[str, Any]:
        """All of it; plain values."""
        teachers = [self._fine_tuned(domain, self._of(domain), minilm()) for domain in DOMAINS]
        student, job = self._student(client, teachers)
        gold = self._fine_tuned("gold", self.split.corpus, teachers[0])
        self.say("measuring")
        with self._timed("measure"):
            accuracy = self._accuracy(teachers, student, gold)
            right = self._right_teacher(teachers)
        return {
            "seed": self.seed,
            "settings": asdict(self.settings),
            "accuracy": accuracy,
            "right_teacher": right,
            "seconds": self.seconds,
            "stage_seconds": stage_seconds(job),
            "report": job.report,
        }

    def _of(self, domain: str) -> list[Row]:
        return [row for row in self.split.teachers if row.domain == domain]

    def _fine_tuned(self, name: str, rows: Sequence[Row], start: Path) -> Path:
        from worker.muka import Training, fine_tune  # noqa: PLC0415  (torch takes seconds to load)

        target = self.folder / name
        if (target / "model.safetensors").exists():
            self.say(f"{name}: there already")
            return target
        self.say(f"{name}: fine-tuning on {len(rows)} labelled texts")
        with self._timed(name):
            fine_tune(
                start,
                [row.text for row in rows],
                [row.label for row in rows],
                training=Training(**self.settings.training(self.seed)),
                output_dir=target,
            )
        return target

    def _student(self, client: MukaClient, teachers: Sequence[Path]) -> tuple[Path, Job]:
        uploaded = [client.models.upload(folder) for folder in teachers]
        corpus = client.corpora.upload(row.text for row in self.split.corpus)
        job = client.amalgamations.create(
            name=f"clinc-{self.seed}",
            teachers=uploaded,
            corpus=corpus,
            method={"name": "muka", "mc_samples": self.settings.mc_samples},
            training=self.settings.training(self.seed),
        )
        self.say(f"the job: {job.id}, {corpus.texts} texts without labels")
        job.wait()
        return client.students.download(job.student().id, self.folder / "student"), job

    def _accuracy(self, teachers: Sequence[Path], student: Path, gold: Path) -> dict[str, float]:
        texts, labels = [row.text for row in self.split.test], [row.label for row in self.split.test]
        answers = [(folder.name, answers_of(folder, texts)) for folder in teachers]
        scores = compare(answers, answers_of(student, texts), labels)
        reference = compare(answers, answers_of(gold, texts), labels)[-1]
        names = [*(f"teacher {domain}" for domain in DOMAINS), "naive combination", "student"]
        found = {name: score.all for name, score in zip(names, scores, strict=True)}
        return found | {"student on gold labels": reference.all}

    def _right_teacher(self, teachers: Sequence[Path]) -> dict[str, float]:
        from benchmarks._clinc_choice import right_teacher  # noqa: PLC0415

        texts = [row.text for row in self.split.corpus]
        truth = [DOMAINS.index(row.domain) for row in self.split.corpus]
        return right_teacher(teachers, texts, truth, mc_samples=self.settings.mc_samples, seed=self.seed)

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[what] = round(time.monotonic() - started, 1)


def stage_seconds(job: Job) -> dict[str, float]:
    """Wall time of each stage of a job that has ended, by its events; `queued`: before the first."""
    made, ended = job.amalgamation.created_at, job.amalgamation.finished_at
    begun = [(event.data["stage"], event.created_at) for event in job.events() if event.type == "stage"]
    marks = [("queued", made), *begun, ("", ended)]
    found: dict[str, float] = {}
    for (stage, start), (_, end) in pairwise(marks):
        if start and end:
            found[stage] = round(found.get(stage, 0.0) + (end - start).total_seconds(), 1)
    return found

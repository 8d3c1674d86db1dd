"""The demo's path, step by step: what a user of muka does, through MukaClient."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from app.cli.live_progress import download_bar, job_bar
from app.client import Corpus, Job, Model, MukaClient
from demo import comparison, teachers
from demo.support_inbox import TEAMS, Message, messages
from demo.table import comparison_table

TRAINING = {"epochs": 8, "learning_rate": 3e-4}


class Story:
    """Tells on the console what it does, and how long the whole thing has taken."""

    def __init__(self, console: Console, folder: Path, seed: int) -> None:
        self.console = console
        self.folder = folder
        self.seed = seed
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """One line, with the time since the start."""
        elapsed = int(time.monotonic() - self._started)
        self.console.print(f"[dim]{elapsed // 60}:{elapsed % 60:02}[/dim]  {text}")

    def prepare_teachers(self) -> list[Path]:
        """Three teams fine-tune a teacher each: in real life this has happened long before."""
        classes = sum(len(intents) for intents in TEAMS.values())
        self.say(
            f"Three teams of a support desk have a text classifier each. Together: {classes} intents. "
            "First these teachers are made, from a real pre-trained encoder (MiniLM, 22 million parameters)."
        )

        def on_team(team: str) -> None:
            self.say(f"  fine-tuning the teacher of [bold]{team}[/bold]: {', '.join(TEAMS[team])}")

        return teachers.prepare(messages("train"), self.folder / "teachers", self.seed, on_team)

    def upload(self, client: MukaClient, folders: Sequence[Path]) -> tuple[list[Model], Corpus]:
        """Teachers and texts; the texts' intents are not told to anybody."""
        self.say(f"Uploading the teachers to {client.base_url}")
        uploaded = [client.models.upload(folder) for folder in folders]
        corpus = client.corpora.upload(
            (message.text for message in messages("corpus")), name="support-inbox.jsonl"
        )
        self.say(f"Uploading the inbox: {corpus.texts:,} texts without labels ({corpus.id})")
        return uploaded, corpus

    def amalgamate(self, client: MukaClient, uploaded: Sequence[Model], corpus: Corpus) -> Job:
        """POST the job, and watch it."""
        job = client.amalgamations.create(
            name="support-router",
            teachers=uploaded,
            corpus=corpus,
            training=TRAINING | {"seed": self.seed},
            metadata={"from": "demo"},
        )
        self.say(f"POST /amalgamations: {job.id}")
        with job_bar(self.console) as show:
            job.wait(on_progress=show)
        return job

    def download(self, client: MukaClient, job: Job) -> Path:
        """The student, checked against its manifest."""
        student = job.student()
        self.say(
            f"Downloading {student.id}: {len(student.labels)} classes, {student.size_bytes / 1e6:.0f} MB"
        )
        with download_bar(self.console, "download") as show:
            return client.students.download(student.id, self.folder / "student", on_progress=show)

    def compare(self, folders: Sequence[Path], student: Path) -> None:
        """On texts that neither the teachers nor the student have seen."""
        test: list[Message] = messages("test")
        self.say(f"Asking everybody about {len(test)} texts that nobody has seen")
        texts, gold = [message.text for message in test], [message.intent for message in test]
        answers = [(f"teacher {folder.name}", comparison.answers_of(folder, texts)) for folder in folders]
        scores = comparison.compare(answers, comparison.answers_of(student, texts), gold)
        self.console.print()
        self.console.print(comparison_table(scores, len(test)))
        self.console.print(comparison.verdict(scores))

"""Three teams, three teachers: each is fine-tuned on its own team's messages and knows nothing else."""

from collections.abc import Callable, Sequence
from pathlib import Path

from demo.encoder import minilm
from demo.support_inbox import TEAMS, Message

EPOCHS = 8
LEARNING_RATE = 1e-4  # gentle: an overfitted teacher is sure of texts that are not its own


def prepare(train: Sequence[Message], folder: Path, seed: int, on_team: Callable[[str], None]) -> list[Path]:
    """Fine-tune one teacher a team.

    Args:
        train: labelled messages of all teams; a teacher sees those of its team only.
        folder: where the teachers are saved, one folder a team.
        seed: of heads, dropout and order.
        on_team: told the team whose teacher comes next.

    Returns:
        The teachers' folders, in the order of the teams.
    """
    from worker.muka import Training, fine_tune  # noqa: PLC0415  (torch takes seconds to load)

    training = Training(epochs=EPOCHS, learning_rate=LEARNING_RATE, seed=seed)
    for team in TEAMS:
        on_team(team)
        own = [message for message in train if message.team == team]
        fine_tune(
            minilm(),
            [message.text for message in own],
            [message.intent for message in own],
            training=training,
            label_names=TEAMS[team],
            output_dir=folder / team,
        )
    return [folder / team for team in TEAMS]

"""The comparison as a table for the terminal."""

from collections.abc import Sequence

from rich.table import Table

from demo.comparison import Score


def comparison_table(scores: Sequence[Score], texts: int) -> Table:
    """Teachers first, then all of them together, then the student."""
    table = Table(title=f"Accuracy on {texts} held-out texts", title_justify="left")
    table.add_column("who answers", no_wrap=True)
    table.add_column("classes", justify="right")
    table.add_column("on its own texts", justify="right")
    table.add_column("on all", justify="right")
    table.add_column("models", justify="right")
    for score in scores:
        is_student = score is scores[-1]
        table.add_row(
            score.name,
            str(score.classes),
            f"{100 * score.own:.1f} %",
            f"{100 * score.all:.1f} %",
            str(score.models),
            style="bold" if is_student else None,
            end_section=score is scores[-3],
        )
    return table

"""The pictures: what they show, in numbers worked out by hand, and that their bytes hang on nothing else."""

import hashlib
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from worker.plots import draw_all
from worker.plots.canvas import shortened, style
from worker.plots.choice import draw_certainty, draw_margin, draw_shares
from worker.plots.confusion import draw as draw_confusion
from worker.plots.confusion import matrix
from worker.plots.loss import draw as draw_loss
from worker.plots.loss import running_mean

CURVE = [{"step": step, "loss": 1 / step} for step in range(1, 9)]


def a_report(labels: int = 3, teachers: int = 2) -> dict[str, Any]:
    names = [f"label $_{i}$ <&> 客" for i in range(labels)]
    half = labels // teachers or 1
    return {
        "teachers": [
            {"name": f"acme/t{i}@{'0' * 40}", "labels": [*names[i * half : (i + 1) * half], None]}
            for i in range(teachers)
        ],
        "method": {"name": "muka", "score": "entropy"},
        "training": {"steps": 8, "epoch_losses": [0.5, 0.2]},
        "choice": {
            "chosen_share": [1 / teachers] * teachers,
            "mean_weight": [1 / teachers] * teachers,
            "score_histogram": [[1, 0, 4]] * teachers,
            "margin_histogram": [2, 3],
        },
        "orphans": {"certainty_below": 0.5},
        "evaluation": {
            "student": {
                "per_label": [{"label": name, "support": 4} for name in names],
                "confusion_cells": 2,
                "confusion": [
                    {"gold": names[0], "predicted": names[0], "texts": 3},
                    {"gold": names[0], "predicted": names[-1], "texts": 1},
                ],
            }
        },
    }


def digests(folder: Path) -> dict[str, str]:
    files = sorted((folder / "plots").iterdir())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_there_are_five_pictures_each_as_svg_and_png(tmp_path: Path) -> None:
    drawn = draw_all(tmp_path, a_report(), CURVE)
    assert [picture.name for picture in drawn] == [
        "loss",
        "teacher_shares",
        "uncertainty",
        "margin",
        "confusion",
    ]
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        f"{picture.name}.{kind}" for picture in drawn for kind in ("svg", "png")
    }
    for picture in drawn:
        ET.parse(tmp_path / picture.svg)
        with Image.open(tmp_path / picture.png) as image:
            assert image.width >= 400


def test_what_there_is_nothing_of_is_not_drawn(tmp_path: Path) -> None:
    report = {key: value for key, value in a_report().items() if key != "evaluation"}
    assert [picture.name for picture in draw_all(tmp_path, report, [])] == [
        "teacher_shares",
        "uncertainty",
        "margin",
    ]


def test_another_process_draws_the_same_bytes(tmp_path: Path) -> None:
    draw_all(tmp_path / "here", a_report(), CURVE)
    code = (
        "from pathlib import Path; from worker.plots import draw_all; "
        f"draw_all(Path({str(tmp_path / 'there')!r}), {a_report()!r}, {CURVE!r}); "
        "import sys; assert 'matplotlib.pyplot' not in sys.modules, 'no window and no global figure'"
    )
    settings = {"PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "1", "TZ": "Asia/Tokyo", "PATH": ""}
    root = Path(__file__).parents[4]
    subprocess.run([sys.executable, "-c", code], check=True, env=settings, cwd=root)
    assert digests(tmp_path / "here") == digests(tmp_path / "there")


def test_150_labels_can_be_read(tmp_path: Path) -> None:
    draw_all(tmp_path, a_report(labels=150, teachers=10), CURVE)
    texts = [node.text for node in ET.parse(tmp_path / "plots/confusion.svg").iter() if node.text]
    assert sum("label $_149$" in text for text in texts) == 4, "on every side"
    with Image.open(tmp_path / "plots/confusion.png") as image:
        assert 150 * 15 < image.width <= 4000


def test_more_labels_than_can_be_read_get_numbers(tmp_path: Path) -> None:
    with style():
        figure = draw_confusion(a_report(labels=400))
    assert len(figure.axes[0].get_yticklabels()) == 2 * 20, "on both sides"


def test_warnings_and_settings_of_the_caller_are_left_alone(tmp_path: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415

    mpl.rcParams["font.size"] = 3.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_all(tmp_path / "small", a_report(), CURVE)
    assert mpl.rcParams["font.size"] == 3.5
    mpl.rcdefaults()
    draw_all(tmp_path / "plain", a_report(), CURVE)
    assert digests(tmp_path / "small") == digests(tmp_path / "plain")


class TestNumbers:
    @pytest.fixture(autouse=True)
    def _style(self) -> Any:
        with style():
            yield

    def test_the_running_mean_starts_where_the_loss_does(self) -> None:
        # weights 0.2 and 0.16: (1·0.16 + 3·0.2) / 0.36
        assert running_mean([1.0, 3.0]) == pytest.approx([1.0, 0.76 / 0.36])

    def test_the_mean_of_an_epoch_lies_at_its_end(self) -> None:
        step, _, epochs = draw_loss(CURVE, {"steps": 8, "epoch_losses": [0.5, 0.2]}).axes[0].lines
        assert list(step.get_ydata()) == [point["loss"] for point in CURVE]
        assert (list(epochs.get_xdata()), list(epochs.get_ydata())) == ([4.0, 8.0], [0.5, 0.2])

    def test_a_bar_is_a_teachers_share(self) -> None:
        report = a_report()
        report["choice"] |= {"chosen_share": [0.75, 0.25], "mean_weight": [0.6, 0.4]}
        axes = draw_shares(report).axes[0]
        assert [bar.get_width() for bar in axes.patches] == [0.75, 0.25]
        assert list(axes.lines[0].get_xdata()) == [0.6, 0.4]
        assert [text.get_text() for text in axes.texts] == ["75.0%", "25.0%"]
        assert axes.get_yticklabels()[0].get_text().startswith("acme/t0\nlabel $_0$")

    def test_the_tallest_bar_of_all_teachers_is_told(self) -> None:
        report = a_report()
        report["choice"]["score_histogram"] = [[8, 0, 4], [0, 2, 0]]
        axes = draw_certainty(report).axes[0]
        assert "tallest bar: 8 texts" in axes.get_xlabel()
        first, _, second, _ = (patch.get_data() for patch in axes.patches)
        assert list(first.edges) == pytest.approx([0, 1 / 3, 2 / 3, 1])
        assert list(first.baseline - first.values) == pytest.approx([0.85, 0, 0.425])
        assert list(second.baseline - second.values) == pytest.approx([0, 0.2125, 0])
        assert list(axes.lines[0].get_xdata()) == [0.5, 0.5]

    def test_other_scores_than_entropy_have_no_line_of_orphans(self) -> None:
        report = a_report() | {"method": {"name": "muka", "score": "bald"}}
        axes = draw_certainty(report).axes[0]
        assert not axes.lines
        assert "(bald)" in axes.get_xlabel()

    @pytest.mark.parametrize(
        ("decides", "title"), [(True, "Chosen teacher"), (False, "Most certain teacher")]
    )
    def test_whom_nobody_chose_is_not_called_chosen(self, decides: bool, title: str) -> None:
        report = a_report()
        report["choice"]["decides"] = decides
        assert draw_shares(report).axes[0].get_title("left") == title

    def test_the_margins_are_the_histogram(self) -> None:
        data = draw_margin(a_report()).axes[0].patches[0].get_data()
        assert (list(data.values), list(data.edges)) == ([2, 3], [0, 0.5, 1])

    def test_right_and_wrong_answers_are_shares_of_their_gold_label(self) -> None:
        report = a_report()
        labels, texts = matrix(report["evaluation"]["student"])
        assert texts.tolist() == [[3, 0, 1], [0, 0, 0], [0, 0, 0]]
        axes = draw_confusion(report).axes[0]
        right, wrong = (image.get_array() for image in axes.images)
        assert right.filled(-1).tolist() == [[0.75, -1, -1], [-1, -1, -1], [-1, -1, -1]]
        assert wrong.filled(-1).tolist() == [[-1, -1, 0.25], [-1, -1, -1], [-1, -1, -1]]
        assert [text.get_text() for text in axes.texts] == ["3", "1"]
        assert len(labels) == 3

    def test_a_matrix_that_was_cut_says_so_and_keeps_its_shares(self) -> None:
        report = a_report()
        student = report["evaluation"]["student"]
        student["confusion"].pop()
        axes = draw_confusion(report).axes[0]
        assert axes.get_title("left") == "Confusion matrix (the largest 1 of 2 cells)"
        assert axes.images[0].get_array()[0, 0] == 0.75
        assert axes.images[0].get_array().shape == (1, 1), "labels without a cell that is known are left out"

    def test_a_line_parts_the_labels_of_two_teachers(self) -> None:
        axes = draw_confusion(a_report(labels=4)).axes[0]
        assert [list(line.get_ydata()) for line in axes.lines][::2] == [[1.5, 1.5]]


def test_a_label_with_control_characters_leaves_the_svg_well_formed(tmp_path: Path) -> None:
    report = a_report()
    report["teachers"][0]["labels"][0] = "\x01\x1b[31m"
    report["evaluation"]["student"]["per_label"][1]["label"] = "\x02"
    for picture in draw_all(tmp_path, report, CURVE):
        ET.parse(tmp_path / picture.svg)


def test_names_are_shortened_where_they_tell_least() -> None:
    assert shortened("two\nlines") == "two lines"
    assert shortened("mdl-0123456789abcdef", 10) == "mdl-…bcdef"
    assert shortened("a, b, c, d", 6, tail=0) == "a, b,…"

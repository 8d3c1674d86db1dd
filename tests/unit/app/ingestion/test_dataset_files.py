"""Which files of a data set are which split."""

import pytest

from app.ingestion.dataset_files import splits_by_config

LAYOUTS = {
    "pushed": (
        [
            "README.md",
            "data/test-00000-of-00001.parquet",
            "data/train-00001-of-00002.parquet",
            "data/train-00000-of-00002.parquet",
        ],
        {
            "default": {
                "test": ["data/test-00000-of-00001.parquet"],
                "train": ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
            }
        },
    ),
    "with configs": (
        ["en/train-00000-of-00001.parquet", "de/train-00000-of-00001.parquet"],
        {
            "de": {"train": ["de/train-00000-of-00001.parquet"]},
            "en": {"train": ["en/train-00000-of-00001.parquet"]},
        },
    ),
    "converted": (
        ["default/train/0000.parquet", "default/train/0001.parquet", "plus/partial-test/0000.parquet"],
        {
            "default": {"train": ["default/train/0000.parquet", "default/train/0001.parquet"]},
            "plus": {"test": ["plus/partial-test/0000.parquet"]},
        },
    ),
    "plain": (
        ["train.parquet", "en/test.parquet"],
        {"default": {"train": ["train.parquet"]}, "en": {"test": ["en/test.parquet"]}},
    ),
    "folder a split": (
        ["data/train/train-0.parquet"],
        {"default": {"train": ["data/train/train-0.parquet"]}},
    ),
    "none": (["train.csv", "README.md"], {}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_understood(layout: str) -> None:
    paths, expected = LAYOUTS[layout]
    assert splits_by_config(paths) == expected

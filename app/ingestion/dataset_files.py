"""Which Parquet files of a Hub data set hold a split, in the layouts that `push_to_hub` and the Hub write."""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

DEFAULT_CONFIG = "default"
_SHARD = re.compile(r"(?P<split>.+?)-\d+(-of-\d+)?")
_NO_CONFIG = {"", "data", DEFAULT_CONFIG}


def splits_by_config(paths: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """Config to split to its files, in order.

    Understood are `data/train-00000-of-00002.parquet`, `CONFIG/train-….parquet`, `train.parquet`,
    and `CONFIG/train/0000.parquet`, which is how the branch `refs/convert/parquet` looks.
    """
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(paths):
        if path.endswith(".parquet"):
            config, split = _place(PurePosixPath(path))
            found[config][split].append(path)
    return {config: dict(splits) for config, splits in found.items()}


def _place(path: PurePosixPath) -> tuple[str, str]:
    stem, folders = path.stem, list(path.parts[:-1])
    if stem.isdecimal() or stem.startswith("part-"):
        split = folders.pop().removeprefix("partial-") if folders else "train"
    else:
        match = _SHARD.fullmatch(stem)
        split = match["split"] if match else stem
        if folders and folders[-1] == split:
            folders.pop()
    config = folders[-1] if folders else ""
    return (DEFAULT_CONFIG if config in _NO_CONFIG else config), split

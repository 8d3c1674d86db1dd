"""Texts of data sets on the Hugging Face Hub, read from their Parquet files, one file at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from app.domain.errors import Fault, HubUnavailableError, InvalidCorpusError, PayloadTooLargeError
from app.domain.recipe import LONGEST_CONFIG, HubDataset
from app.ingestion.dataset_files import DEFAULT_CONFIG, splits_by_config
from app.ingestion.parquet_reader import read_parquet
from app.ingestion.rows import Columns, Rows

TIMEOUT_SECONDS = 10.0
CONVERTED = "refs/convert/parquet"
"""The branch where the Hub keeps a Parquet copy of data sets in other formats."""


@dataclass(frozen=True)
class _Listing:
    """The files of one commit, with their sizes; `folder` is where they are when we are offline."""

    commit: str
    sizes: dict[str, int]
    folder: Path | None = None


@dataclass(frozen=True)
class HubSplit:
    """A split that was found.

    Attributes:
        pinned: What was asked for, with the commit and the config that it was: asked for again, it has the
            same texts whatever becomes of the data set.
    """

    pinned: HubDataset
    _listing: _Listing
    _paths: list[str]

    @classmethod
    def find(cls, spec: HubDataset) -> Self:
        """At the revision itself, else on the converted branch.

        Raises:
            InvalidCorpusError: There is no such data set, config or split.
            HubUnavailableError: The Hub does not answer.
        """
        listing, splits = _splits(spec)
        config = _config(spec, splits)
        if spec.split not in splits[config]:
            detail = f"{spec.dataset} has no split {spec.split!r}; there are {_named(sorted(splits[config]))}"
            raise _refusal("/corpus/split", "split_not_found", detail)
        # A folder's name may be longer than what a recipe takes; it is found again as it was found now.
        known = config if len(config) <= LONGEST_CONFIG else spec.config
        pinned = spec.model_copy(update={"revision": listing.commit, "config": known})
        return cls(pinned, listing, splits[config][spec.split])

    def rows(self, folder: Path, max_bytes: int) -> Rows:
        """The texts. Files are downloaded to `folder` one after the other, and removed.

        Raises:
            HubUnavailableError: The Hub does not answer.
            PayloadTooLargeError: The split is larger than `max_bytes`.
        """
        spec, listing = self.pinned, self._listing
        total = sum(listing.sizes[path] for path in self._paths)
        if total > max_bytes:
            raise PayloadTooLargeError(
                f"{spec.dataset} ({spec.split}) has {total:,} bytes; the limit is {max_bytes:,}"
            )
        row = 1
        for path in self._paths:
            with _downloaded(spec, listing, path, folder) as file:
                for found in read_parquet(file, Columns(spec.text_column), max_bytes, first_row=row):
                    if isinstance(found, Fault):
                        column = found.code in {"missing_column", "not_a_string"}
                        yield replace(found, pointer="/corpus/text_column" if column else "/corpus/dataset")
                        return
                    yield found
                    row += 1


def _splits(spec: HubDataset) -> tuple[_Listing, dict[str, dict[str, list[str]]]]:
    """The files of every split of every config."""
    listing = _list(spec, spec.revision)
    splits = splits_by_config(listing.sizes)
    if not splits and spec.revision is None:
        try:
            listing = _list(spec, CONVERTED)
        except InvalidCorpusError as error:
            detail = (
                f"{spec.dataset} has no Parquet files; convert it, or upload the texts with POST /corpora"
            )
            raise _refusal("/corpus/dataset", "no_parquet", detail) from error
        splits = splits_by_config(listing.sizes)
    return listing, splits


def _config(spec: HubDataset, splits: dict[str, dict[str, list[str]]]) -> str:
    configs = sorted(splits)
    config = spec.config or (configs[0] if len(configs) == 1 else DEFAULT_CONFIG)
    if config not in splits:
        detail = f"{spec.dataset} has the configs {_named(configs)}; state `config`"
        raise _refusal("/corpus/config", "config_not_found", detail)
    return config


def _named(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:20]) or "none"


def _refusal(pointer: str, code: str, detail: str) -> InvalidCorpusError:
    return InvalidCorpusError(f"{detail}. Nothing was stored", faults=[Fault(pointer, code, detail)])


# --- The Hub ---------------------------------------------------------------------------------------


def _list(spec: HubDataset, revision: str | None) -> _Listing:
    from huggingface_hub import HfApi, is_offline_mode  # noqa: PLC0415  (loads with the first data set)

    if is_offline_mode():
        return _list_cached(spec, revision)
    with _hub_errors(spec, revision):
        info = HfApi().dataset_info(
            spec.dataset, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS
        )
    return _Listing(str(info.sha), {file.rfilename: file.size or 0 for file in info.siblings or ()})


def _list_cached(spec: HubDataset, revision: str | None) -> _Listing:
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        folder = Path(
            snapshot_download(spec.dataset, repo_type="dataset", revision=revision, local_files_only=True)
        )
    except (LocalEntryNotFoundError, HFValidationError) as error:
        detail = (
            f"{spec.dataset} is not in the local cache, and muka is offline (HF_HUB_OFFLINE): fetch it with "
            "`hf download --repo-type dataset` while online, or go online"
        )
        raise _refusal("/corpus/dataset", "dataset_not_found", detail) from error
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*.parquet")}
    return _Listing(folder.name, files, folder)


@contextmanager
def _downloaded(spec: HubDataset, listing: _Listing, path: str, folder: Path) -> Iterator[Path]:
    if listing.folder is not None:
        yield listing.folder / path
        return
    file = _download(spec, listing, path, folder)
    try:
        yield file
    finally:
        file.unlink()


def _download(spec: HubDataset, listing: _Listing, path: str, folder: Path) -> Path:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # noqa: PLC0415

    disable_progress_bars()
    with _hub_errors(spec, listing.commit):
        return Path(
            hf_hub_download(
                spec.dataset,
                path,
                repo_type="dataset",
                revision=listing.commit,
                local_dir=folder / "hub",
                etag_timeout=TIMEOUT_SECONDS,
            )
        )


@contextmanager
def _hub_errors(spec: HubDataset, revision: str | None) -> Iterator[None]:
    """What `huggingface_hub` raises, as our errors, whichever HTTP library it is built on."""
    from huggingface_hub.errors import (  # noqa: PLC0415
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    http_error: type[BaseException] = next(
        base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"
    )
    name = spec.dataset if revision is None else f"{spec.dataset}@{revision}"
    try:
        yield
    except HFValidationError as error:
        detail = f"{spec.dataset[:100]!r} is no name of a data set: give `org/name` of the Hub"
        raise _refusal("/corpus/dataset", "reference_invalid", detail) from error
    except GatedRepoError as error:
        detail = f"{name} is gated: accept its conditions on the Hub with the account of muka's HF_TOKEN"
        raise _refusal("/corpus/dataset", "dataset_gated", detail) from error
    except RepositoryNotFoundError as error:
        detail = (
            f"the Hub has no data set {name}, or it is private: check the spelling, or give muka a HF_TOKEN"
        )
        raise _refusal("/corpus/dataset", "dataset_not_found", detail) from error
    except RevisionNotFoundError as error:
        detail = f"the Hub has no revision {name}"
        raise _refusal("/corpus/revision", "dataset_not_found", detail) from error
    except (http_error, OSError, ValueError) as error:
        detail = (
            f"the Hub did not answer about {name}; try again later, or upload the texts with POST /corpora"
        )
        raise HubUnavailableError(detail) from error

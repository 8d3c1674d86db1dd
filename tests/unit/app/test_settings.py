"""Settings that contradict each other, or lead nowhere, are refused with what to do."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import Settings


@pytest.mark.parametrize("url", ["s3://bucket", "s3://my.bucket-1/", "s3://bucket/a/b c", "s3://bucket/a/"])
def test_a_bucket_is_named_with_or_without_a_prefix(url: str) -> None:
    assert Settings(store_url=url).store_url == url


@pytest.mark.parametrize(
    "url", ["s3://", "s3://Bucket", "gs://bucket", "/mnt", "s3://bucket//a", "s3://b/a?x=1"]
)
def test_anything_else_is_no_bucket(url: str) -> None:
    with pytest.raises(ValidationError, match="MUKA_STORE_URL must be s3://BUCKET or s3://BUCKET/PREFIX"):
        Settings(store_url=url)


def test_two_stores_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="MUKA_STORE_DIR and MUKA_STORE_URL name two stores"):
        Settings(store_url="s3://bucket", store_dir=tmp_path)


def test_a_variable_that_is_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUKA_STORE_URL", "")
    monkeypatch.setenv("MUKA_STORE_PUBLIC_URL", "")
    settings = Settings()
    assert (settings.store_url, settings.store_public_url) == (None, None)

"""Versions of what is installed."""

from importlib.metadata import PackageNotFoundError, version


def version_of(package: str) -> str:
    """As its metadata tells."""
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that was not installed
        return "unknown"

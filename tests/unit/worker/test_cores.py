from pathlib import Path

import pytest

from worker.cores import usable_cores


def version_2(folder: Path, limit: str) -> Path:
    (folder / "cpu.max").write_text(f"{limit} 100000\n")
    return folder


def version_1(folder: Path, limit: str) -> Path:
    (folder / "cpu").mkdir()
    (folder / "cpu" / "cpu.cfs_quota_us").write_text(f"{limit.replace('max', '-1')}\n")
    (folder / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    return folder


@pytest.mark.parametrize("cgroup", [version_2, version_1])
class TestQuota:
    def test_half_a_core_is_one_thread(self, tmp_path, cgroup):
        assert usable_cores(cgroup(tmp_path, "50000")) == 1

    def test_a_quota_above_the_machine_adds_no_cores(self, tmp_path, cgroup):
        assert usable_cores(cgroup(tmp_path, "90000000")) == usable_cores(tmp_path / "none")

    def test_no_quota_leaves_all_cores(self, tmp_path, cgroup):
        assert usable_cores(cgroup(tmp_path, "max")) == usable_cores(tmp_path / "none") >= 1

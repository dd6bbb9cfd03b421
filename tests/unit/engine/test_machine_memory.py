"""Free memory: the machine's, and the limits of control groups of both versions, nested."""

from __future__ import annotations

from pathlib import Path

import pytest

from rocmforge.engine.machine_memory import available_bytes, available_memory

V2 = "30 20 0:26 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
HYBRID = V1 + "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
FREE = 2048_000


def machine(root: Path, cgroup: str, mountinfo: str, **groups: dict[str, str]) -> Path:
    """A root with 2000 kB free; groups: folder below /sys/fs/cgroup (`_` for `/`) → its files."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal:   8000 kB\nMemAvailable:    2000 kB\n")
    (root / "proc/self/cgroup").write_text(cgroup)
    (root / "proc/self/mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda rw\n" + mountinfo)
    for name, files in groups.items():
        folder = root / "sys/fs/cgroup" / name.replace("_", "/").strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text + "\n")
    return root


def v2(limit: str, used: int, inactive: int = 0, high: str = "max") -> dict[str, str]:
    return {
        "memory.max": limit,
        "memory.high": high,
        "memory.current": str(used),
        "memory.stat": f"anon 5\ninactive_file {inactive}\nactive_file 7",
    }


def v1(limit: int, used: int, inactive: int = 0) -> dict[str, str]:
    return {
        "memory.limit_in_bytes": str(limit),
        "memory.usage_in_bytes": str(used),
        "memory.stat": f"inactive_file 3\ntotal_inactive_file {inactive}",
    }


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (v2("max", 100), FREE),
        (v2("1000000", 400_000), 600_000),
        (v2("1000000", 1_400_000), 0),
        (v2("9000000", 100), FREE),
        (v2("1000000", 900_000, inactive=300_000), 400_000),
        (v2("max", 400_000, high="500000"), 100_000),
        ({"memory.max": "1000000"}, FREE),
    ],
)
def test_a_limit_of_version_2(tmp_path, group, expected):
    assert available_bytes(machine(tmp_path, "0::/a/b\n", V2, a_b=group)) == expected


def test_a_limit_of_an_ancestor_counts(tmp_path):
    groups = {"a": v2("700000", 200_000), "a_b": v2("max", 10), "a_b_c": v2("900000", 10)}
    memory = available_memory(machine(tmp_path, "0::/a/b/c\n", V2, **groups))
    assert memory.n_bytes == 500_000
    assert memory.limit_bytes == 700_000
    assert memory.source.endswith("/a/memory.max")
    assert "0.00 GB in" in memory.describe()


def test_a_container_sees_its_group_at_the_mount(tmp_path):
    inside = V2.replace(" / /sys", " /docker/x /sys")
    for number, path in enumerate(("/docker/x", "/", "/../other")):
        root = machine(tmp_path / str(number), f"0::{path}\n", inside, _=v2("600000", 100_000))
        assert available_bytes(root) == 500_000


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (v1(9223372036854771712, 100), FREE),
        (v1(1_000_000, 400_000), 600_000),
        (v1(1_000_000, 900_000, inactive=300_000), 400_000),
    ],
)
def test_a_limit_of_version_1_beside_version_2(tmp_path, group, expected):
    root = machine(
        tmp_path, "4:memory:/pod/app\n0::/\n", HYBRID, memory_pod=group, memory_pod_app=v1(2**62, 1)
    )
    assert available_bytes(root) == expected


def test_a_group_of_version_1_with_other_controllers(tmp_path):
    root = machine(tmp_path, "4:cpu,cpuacct:/a\n3:hugetlb,memory:/b\n", V1, memory_b=v1(9000, 0))
    assert available_bytes(root) == 9000


def test_without_control_groups_the_machine_counts(tmp_path):
    memory = available_memory(machine(tmp_path, "", ""))
    assert memory.n_bytes == FREE
    assert "machine" in memory.describe()


def test_this_machine_has_memory(tmp_path):
    assert available_bytes() > 0
    assert available_bytes(tmp_path) > 0

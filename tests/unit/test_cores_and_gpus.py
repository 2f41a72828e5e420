"""What a machine has: cores within a container's quota, GPUs that may be seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from cliptrase import machine
from cliptrase.errors import UserError

ONE, TWO = "GPU-1aaa", "GPU-2bbb"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def version_2(root: Path, own: str, **groups: str) -> None:
    """Control groups of version 2: where this process is, and cpu.max by group."""
    write(root / "proc/self/cgroup", f"0::{own}\n")
    write(root / "proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n")
    for group, text in groups.items():
        write(root / "sys/fs/cgroup" / group.replace("_", "/") / "cpu.max", f"{text}\n")


def version_1(root: Path, own: str, at: str, quota: int) -> None:
    write(root / "proc/self/cgroup", f"5:memory:/\n4:cpu,cpuacct:{own}\n0::/\n")
    mounts = "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
    mounts += "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n"
    write(root / "proc/self/mounts", mounts)
    folder = root / "sys/fs/cgroup/cpu,cpuacct" / at
    write(folder / "cpu.cfs_quota_us", f"{quota}\n")
    write(folder / "cpu.cfs_period_us", "100000\n")


def test_the_quota_of_a_container_is_the_least_of_all_levels(tmp_path):
    assert machine.cpu_quota(tmp_path) is None, "no control groups"
    version_2(tmp_path, "/pods/one", pods="300000 100000", pods_one="max 100000")
    assert machine.cpu_quota(tmp_path) == 3
    version_2(tmp_path, "/pods/one", pods_one="150000 100000")
    assert machine.cpu_quota(tmp_path) == 1.5
    version_2(tmp_path, "/elsewhere")
    assert machine.cpu_quota(tmp_path) is None


def test_a_group_is_found_where_the_container_mounts_it(tmp_path):
    version_2(tmp_path, "/", **{"": "200000 100000"})
    assert machine.cpu_quota(tmp_path) == 2


@pytest.mark.parametrize(
    ("own", "at", "quota", "found"),
    [
        ("/docker/abc", "docker/abc", 250000, 2.5),
        ("/docker/abc", "", 50000, 0.5),  # mounted as the container's own
        ("/", "", -1, None),
    ],
)
def test_version_1_says_it_elsewhere(own, at, quota, found, tmp_path):
    version_1(tmp_path, own, at, quota)
    assert machine.cpu_quota(tmp_path) == found


@pytest.mark.parametrize(
    ("pinned", "quota", "found"), [(8, None, 8), (8, 2.5, 2), (2, 64.0, 2), (4, 0.2, 1)]
)
def test_a_share_of_a_core_is_none_but_the_first(pinned, quota, found, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(pinned)))
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    assert machine.cores() == found


@pytest.mark.parametrize(
    ("said", "here", "left"),
    [
        (None, 3, ["0", "1", "2"]),
        ("", 3, []),
        ("-1", 3, []),
        ("NoDevFiles", 3, []),
        ("2,0", 3, ["2", "0"]),
        (" 1 , 2", 3, ["1", "2"]),
        ("1,-1,2", 3, ["1"]),
        ("0,3,1", 3, ["0"]),
        ("0,0", 3, []),
        ("GPU-2b,GPU-1", 2, ["GPU-2b", "GPU-1"]),
        ("GPU-3,GPU-1", 2, []),
        ("MIG-77,MIG-78", 2, ["MIG-77"]),
    ],
)
def test_the_gpus_that_cuda_sees(said, here, left, monkeypatch):
    if said is None:
        monkeypatch.delenv(machine.VISIBLE, raising=False)
    else:
        monkeypatch.setenv(machine.VISIBLE, said)
    uuids = [ONE, TWO, "GPU-4ddd"][:here]
    assert machine.visible_gpus(uuids) == left
    monkeypatch.setattr(machine, "gpu_uuids", lambda: uuids)
    assert machine.usable_gpus("auto") == len(left)
    assert machine.usable_gpus("cuda") == max(1, len(left)), "the pass says that there is none"
    assert (machine.usable_gpus("cuda:1"), machine.usable_gpus("cpu")) == (1, 0)


def test_a_machine_without_a_driver_has_no_gpu(monkeypatch):
    monkeypatch.setattr(machine, "gpu_uuids", lambda: [])
    monkeypatch.setenv(machine.VISIBLE, "0,1")
    assert (machine.usable_gpus("auto"), machine.usable_gpus("cuda")) == (0, 2)
    monkeypatch.delenv(machine.VISIBLE)
    assert (machine.usable_gpus("auto"), machine.usable_gpus("cuda")) == (0, 1)


def test_the_driver_says_which_gpus_there_are(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for minor, uuid in ((0, ONE), (1, TWO), (2, "GPU-????????-????")):
        write(
            tmp_path / f"proc/driver/nvidia/gpus/0000:0{minor}:00.0/information",
            f"Model: \t\t H100\nIRQ:   \t\t 1\nGPU UUID: \t {uuid}\nDevice Minor: \t {minor}\n",
        )
    assert machine.gpu_uuids(tmp_path) == [], "the files of /proc show through in any container"
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidia3", "nvidiactl", "nvidia-uvm"):
        write(tmp_path / "dev" / name, "")
    assert machine.gpu_uuids(tmp_path) == [ONE, TWO, "", ""]


@pytest.mark.parametrize("name", ["nvidia0", "nvidiactl", "nvhost-ctrl-gpu", "nvmap", "kfd", "dxg"])
def test_a_device_file_of_any_maker_may_be_a_gpu(name, tmp_path):
    """NVIDIA's, those of its boards, AMD's under ROCm, and that of Windows' Linux."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/null").touch()
    assert not machine.may_have_gpu(tmp_path, "libnone.so.1")
    (tmp_path / "dev" / name).touch()
    assert machine.may_have_gpu(tmp_path, "libnone.so.1")


def test_a_driver_without_device_files_may_have_a_gpu(tmp_path):
    assert machine.may_have_gpu(tmp_path, "libc.so.6")


def test_a_gpu_is_refused_only_where_there_is_surely_none(monkeypatch):
    monkeypatch.setattr(machine, "may_have_gpu", lambda: False)
    machine.check_gpu("auto")
    machine.check_gpu("cpu")
    with pytest.raises(UserError, match="device=cuda:1: torch sees no GPU here; take device=cpu"):
        machine.check_gpu("cuda:1")
    monkeypatch.setattr(machine, "may_have_gpu", lambda: True)
    machine.check_gpu("cuda:1")


def test_without_device_files_nvidia_smi_is_asked(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "GPU 0: RTX 4090 (UUID: {ONE})"\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert machine.gpu_uuids(tmp_path) == [ONE]
    program.write_text("#!/bin/sh\nexit 9\n", encoding="utf-8")
    assert machine.gpu_uuids(tmp_path) == []


def test_a_gpu_is_called_as_it_was_asked_for(monkeypatch):
    monkeypatch.delenv(machine.VISIBLE, raising=False)
    assert machine.gpu_name(1) == "1"
    for said, index, name in (("3,1", 0, "3"), (f"{TWO},{ONE}", 1, ONE), ("MIG-77", 0, "MIG-77")):
        monkeypatch.setenv(machine.VISIBLE, said)
        assert machine.gpu_name(index) == name

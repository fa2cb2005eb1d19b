from dataclasses import replace
from pathlib import Path

import pytest

from bench_tests.harness import fingerprint as fingerprints
from bench_tests.harness import machine, resources
from bench_tests.harness.fingerprint import Fingerprint
from models.errors import SpeedproofError

EXAMPLE = Fingerprint("AMD EPYC", "family 26 model 2 stepping 1 isa 12345678", 2, (0, 1), None, 2, "passive")


def cpuinfo(tmp_path: Path, **fields: object) -> machine.CpuInfo:
    lines: dict[str, object] = {
        "vendor_id": "AuthenticAMD",
        "cpu family": 26,
        "model": 2,
        "model name": "AMD EPYC",
        "stepping": 1,
    }
    lines |= {"cpu MHz": 2600.0, "flags": "fpu ibrs avx2 fma avx512f"} | fields
    file = tmp_path / "cpuinfo"
    file.write_text("".join(f"{key}\t: {value}\n" for key, value in lines.items()) * 2)
    return machine.cpu_info(file)


def cgroup(tmp_path: Path, membership: str, files: dict[str, str]) -> tuple[Path, Path]:
    """Fake files of a control group: the mount and the process's membership."""
    for name, text in files.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    (tmp_path / "membership").write_text(membership + "\n")
    return tmp_path / "cgroup", tmp_path / "membership"


def test_folder_is_readable_stable_and_safe():
    assert EXAMPLE.folder() == replace(EXAMPLE).folder()
    assert EXAMPLE.folder() == "amd-epyc-2c-2t-passive-8542ec12"  # histories are found by it: a change loses them
    odd = replace(EXAMPLE, cpu_model="Intel(R) Xeon(R) CPU E5/2690 @ 2.90GHz", gpu_name="NVIDIA H100 80GB HBM3")
    assert odd.folder().startswith("intel-xeon-e5-2690-2c-2t-passive-nvidia-h100-80gb-hbm3-")


@pytest.mark.parametrize(
    "change",
    [
        {"cpu_revision": "family 25 model 17 stepping 1 isa 12345678"},
        {"affinity": (2, 3)},
        {"cpu_quota": 1.5},
        {"threads": 1},
        {"omp_wait_policy": "active"},
        {"gpu_name": "NVIDIA H200"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_part_makes_another_folder_and_shows_in_the_line(change):
    other = replace(EXAMPLE, **change)
    assert other.folder() != EXAMPLE.folder()
    assert other.describe() != EXAMPLE.describe()
    assert "\n" not in other.describe()


def test_fingerprint_of_this_process_is_stable(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    here = fingerprints.fingerprint(1, "cpu")
    assert here == fingerprints.fingerprint(1, "cpu")
    assert here.folder() != fingerprints.fingerprint(2, "cpu").folder()
    assert here.omp_wait_policy == "passive"
    assert here.cores_used == len(here.affinity) >= 1
    assert here.gpu_name is None


def test_cuda_without_a_gpu_is_an_error(monkeypatch):
    monkeypatch.setattr(resources, "gpu_name", lambda: None)
    with pytest.raises(SpeedproofError, match="torch sees no GPU"):
        fingerprints.fingerprint(1, "cuda")


def test_revision_tells_generations_apart_but_not_kernels(tmp_path):
    zen5 = cpuinfo(tmp_path).revision()
    assert zen5.startswith("family 26 model 2 stepping 1 isa ")
    assert cpuinfo(tmp_path, flags="avx512f fma avx2 fpu ssbd").revision() == zen5
    assert cpuinfo(tmp_path, flags="fpu ibrs avx2 fma").revision() != zen5
    assert cpuinfo(tmp_path, **{"cpu family": 25}).revision() != zen5


def test_cpu_without_cpuinfo_still_has_a_name(tmp_path):
    assert machine.cpu_info(tmp_path / "missing").name


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/a/b", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "max 100000", "cpu.max": "400000 100000"}, 1.0),
        ("0::/gone/in/container", {"cpu.max": "200000 100000"}, 2.0),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("3:cpu,cpuacct:/x\n0::/", {"cpu/x/cpu.cfs_quota_us": "50000", "cpu/x/cpu.cfs_period_us": "100000"}, 0.5),
        ("0::/", {}, None),
    ],
)
def test_quota_of_both_control_group_versions(tmp_path, membership, files, quota):
    assert machine.cpu_quota(*cgroup(tmp_path, membership, files)) == quota


def test_threads_of_one_core_count_once(tmp_path):
    for number, siblings in enumerate(["0-1", "0-1", "2-3", "2-3"]):
        folder = tmp_path / f"cpu{number}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert machine.physical_cores((0, 1), tmp_path) == 1
    assert machine.physical_cores((0, 1, 3), tmp_path) == 2
    assert machine.physical_cores((0, 1, 2), tmp_path / "missing") == 3


@pytest.mark.parametrize("threads", [-1, 0, 9])
def test_threads_out_of_range_are_refused(monkeypatch, threads):
    monkeypatch.setattr(machine, "affinity", lambda: (0, 1, 2))
    monkeypatch.setattr(machine, "cpu_quota", lambda: 2.5)
    with pytest.raises(SpeedproofError, match=f"--threads {threads}: .* use 2 cores; ask for 1 to 2"):
        fingerprints.check_threads(threads)
    fingerprints.check_threads(2)


def test_versions_name_what_is_there_and_leave_out_the_rest():
    found = fingerprints.versions("cpu", ["numpy", "no-such-package"])
    assert {"python", "torch", "numpy", "torch.backends.mkldnn.enabled"} <= set(found)
    assert "no-such-package" not in found
    assert all(isinstance(value, str) and value for value in found.values())


def test_commit_is_left_out_where_there_is_no_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "commit" not in fingerprints.versions("cpu", [])


def test_differences_are_sentences():
    old = {"torch": "2.12.0", "openvino": "2026.1", "python": "3.11.7"}
    new = {"torch": "2.13.0", "onnxruntime": "1.31.1", "python": "3.11.7"}
    assert fingerprints.differences(old, new) == [
        "onnxruntime was absent and is now 1.31.1",
        "openvino was 2026.1 and is now absent",
        "torch changed from 2.12.0 to 2.13.0",
    ]
    assert fingerprints.differences(new, new) == []

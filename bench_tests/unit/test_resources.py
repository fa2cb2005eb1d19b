import sys
import time
from types import SimpleNamespace

import psutil
import pytest
import torch

from bench_tests.harness import machine, resources
from bench_tests.unit.test_fingerprint import cgroup


class FakeNvml(SimpleNamespace):
    """A card at 40 and 60 % in turns that holds 1, 2, 3 ... GiB; refuses after ``answers`` samples."""

    class NVMLError(Exception):
        pass

    def __init__(self, answers: int = 10**9, initialises: bool = True) -> None:
        super().__init__(answers=answers, initialises=initialises, asked=0)

    def nvmlInit(self):
        if not self.initialises:
            raise self.NVMLError("driver not loaded")

    def nvmlDeviceGetHandleByIndex(self, index):
        return f"card {index}"

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return uuid

    def nvmlSystemGetDriverVersion(self):
        return b"550.1"

    def nvmlDeviceGetUtilizationRates(self, handle):
        assert handle == "card 0"
        self.asked += 1
        if self.asked > self.answers:
            raise self.NVMLError("not supported")
        return SimpleNamespace(gpu=40 if self.asked % 2 else 60)

    def nvmlDeviceGetMemoryInfo(self, _):
        return SimpleNamespace(used=self.asked * 2**30)


def use(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml | None) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_utilisation_samples_while_the_block_runs(monkeypatch):
    nvml = FakeNvml()
    use(monkeypatch, nvml)
    with resources.Utilisation(interval_s=0.001) as used:
        while nvml.asked < 5:
            time.sleep(0.001)
    assert used.samples == nvml.asked
    assert used.utilisation_percent == pytest.approx(50, abs=5)
    assert used.memory_peak_bytes == nvml.asked * 2**30


def test_a_short_block_has_one_sample(monkeypatch):
    use(monkeypatch, FakeNvml())
    with resources.Utilisation(interval_s=60) as used:
        pass
    assert (used.samples, used.utilisation_percent) == (1, 40)


@pytest.mark.parametrize(
    "nvml", [None, FakeNvml(initialises=False), FakeNvml(answers=0)], ids=["absent", "down", "MIG"]
)
def test_no_answer_gives_no_figures(monkeypatch, nvml):
    use(monkeypatch, nvml)
    with resources.Utilisation(interval_s=0.001) as used:
        pass
    assert (used.samples, used.utilisation_percent, used.memory_peak_bytes) == (0, None, None)


def test_the_block_s_own_error_passes(monkeypatch):
    use(monkeypatch, FakeNvml())
    with pytest.raises(KeyError), resources.Utilisation():
        raise KeyError


def test_driver_version(monkeypatch):
    use(monkeypatch, FakeNvml())
    assert resources.driver_version() == "550.1"
    use(monkeypatch, None)
    assert resources.driver_version() is None


@pytest.mark.parametrize(
    ("membership", "files", "headroom"),
    [
        ("0::/", {"memory.max": "1000", "memory.current": "600", "memory.stat": "anon 1\ninactive_file 100"}, 500),
        ("0::/", {"memory.max": "max", "memory.current": "600"}, None),
        ("0::/a", {"memory.max": "1000", "memory.current": "900", "a/memory.max": "50", "a/memory.current": "60"}, 0),
        (
            "4:memory:/x",
            {"memory/x/memory.limit_in_bytes": "1000", "memory/x/memory.usage_in_bytes": "300"},
            700,
        ),
        ("0::/", {}, None),
    ],
)
def test_headroom_of_the_control_group(tmp_path, membership, files, headroom):
    assert machine.memory_headroom_bytes(*cgroup(tmp_path, membership, files)) == headroom


def test_available_memory_is_bounded_by_both(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    for headroom, available in ((None, 1000), (5000, 1000), (300, 300)):
        monkeypatch.setattr(machine, "memory_headroom_bytes", lambda value=headroom: value)
        assert resources.available_memory_bytes() == available


def test_without_a_gpu_there_is_no_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resources.gpu_name() is None

from dataclasses import replace

import pytest
import torch
from torch import nn

from bench_tests.harness import machine, peaks, roofline, theory
from bench_tests.harness.machine import CpuInfo
from bench_tests.unit.test_fingerprint import EXAMPLE

AVX512 = frozenset({"avx2", "fma", "avx512f", "avx512_bf16"})
ZEN5 = CpuInfo("AMD EPYC", "AuthenticAMD", "26", "2", "1", 2600.0, AVX512)
XEON = CpuInfo("Intel Xeon", "GenuineIntel", "6", "143", "8", 2000.0, AVX512 | {"amx_bf16", "avx512_fp16"})


class Attention(nn.Module):
    def forward(self, query):
        return nn.functional.scaled_dot_product_attention(query, query, query)


@pytest.mark.parametrize(
    ("module", "shape", "flop"),
    [
        (nn.Linear(30, 50), (4, 30), 2 * 4 * 30 * 50),
        (nn.Conv2d(3, 8, 5, stride=2, padding=2), (2, 3, 16, 16), 2 * 2 * 8 * 8 * 8 * 3 * 25),
        (nn.Conv2d(8, 8, 3, groups=8), (1, 8, 6, 6), 2 * 8 * 4 * 4 * 9),
        (nn.GRU(16, 32), (11, 1, 16), 2 * 11 * 3 * 32 * (16 + 32)),
        (nn.LSTM(16, 32), (11, 1, 16), 2 * 11 * 4 * 32 * (16 + 32)),
        (Attention(), (1, 4, 10, 8), 2 * 2 * 4 * 10 * 10 * 8),
        (
            nn.TransformerEncoderLayer(32, 4, 64, batch_first=True),
            (1, 10, 32),
            2 * 10 * 32 * 32 * 4 + 2 * 2 * 10 * 10 * 32 + 2 * 2 * 10 * 32 * 64,
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_gflop_is_the_hand_formula(module, shape, flop):
    assert roofline.gflop(module.eval(), (torch.zeros(shape),)) == pytest.approx(flop / 1e9)
    assert torch.backends.mkldnn.enabled
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.fixture
def measurements(monkeypatch, tmp_path):
    """Quick measurements that count themselves, and a cache of their own."""
    taken: list[str] = []

    def peak_gflops(precision: str, _: str) -> float:
        taken.append(precision)
        return 100.0 + len(taken)

    monkeypatch.setenv("SPEEDPROOF_CACHE", str(tmp_path))
    monkeypatch.setattr(peaks, "peak_gflops", peak_gflops)
    monkeypatch.setattr(peaks, "copy_gb_per_s", lambda _: 40.0)
    return taken


def test_ceiling_is_measured_once_for_a_fingerprint_and_precision(measurements):
    first = roofline.ceiling(EXAMPLE, "fp32", "cpu")
    assert roofline.ceiling(EXAMPLE, "fp32", "cpu") == first
    assert measurements == ["fp32"]
    roofline.ceiling(EXAMPLE, "bf16", "cpu")
    roofline.ceiling(replace(EXAMPLE, threads=1), "fp32", "cpu")
    assert measurements == ["fp32", "bf16", "fp32"]
    assert roofline.ceiling(EXAMPLE, "fp32", "cpu", remeasure=True).peak_gflops == 104
    assert roofline.ceiling(EXAMPLE, "fp32", "cpu").peak_gflops == 104


@pytest.mark.usefixtures("measurements")
@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"precision": "fp32"}', "\x00\xff"])
def test_a_corrupt_kept_ceiling_is_measured_again(tmp_path, content):
    roofline.ceiling(EXAMPLE, "fp32", "cpu")
    (file,) = tmp_path.rglob("fp32.json")
    assert file.parent.name == EXAMPLE.folder()
    file.write_bytes(content.encode("latin-1"))
    assert roofline.ceiling(EXAMPLE, "fp32", "cpu").peak_gflops == 102
    assert roofline.ceiling(EXAMPLE, "fp32", "cpu").peak_gflops == 102
    assert [found.name for found in file.parent.iterdir()] == ["fp32.json"]


@pytest.mark.usefixtures("measurements")
def test_ceiling_uses_and_restores_the_threads(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(peaks, "copy_gb_per_s", lambda _: float(torch.get_num_threads()))
    for threads in (1, 2):
        assert roofline.ceiling(replace(EXAMPLE, threads=threads), "fp32", "cpu").copy_gb_per_s == threads
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_real_measurement_gives_plausible_figures(monkeypatch, precision):
    monkeypatch.setattr(peaks, "_BUDGET_S", 0.05)
    monkeypatch.setattr(peaks, "_COPY_BUDGET_S", 0.05)
    monkeypatch.setattr(peaks, "_COPY_BYTES", 2**20)
    assert 0.1 < peaks.peak_gflops(precision, "cpu") < 1e5
    assert 0.1 < peaks.copy_gb_per_s("cpu") < 1e4


def test_the_convolution_is_the_matrix_product():
    left, right = torch.rand(20, 20), torch.rand(20, 20)
    torch.testing.assert_close(peaks._convolve(left, right)[0, :, 0, :], left @ right)


def test_the_convolution_in_int8_is_the_one_in_integers():
    dice = torch.Generator().manual_seed(0)
    image = torch.randint(0, 200, (1, 16, 6, 6), dtype=torch.uint8, generator=dice)
    kernel = torch.randint(-100, 100, (8, 16, 3, 3), dtype=torch.int8, generator=dice)
    sums = torch.nn.functional.conv2d(image.double(), kernel.double(), padding=1)
    found = peaks._int8_convolution(image.contiguous(memory_format=torch.channels_last), kernel)()
    assert (found.double() - (sums * 0.02 * 0.01).clamp(0, 255)).abs().max() <= 0.51


@pytest.mark.parametrize(
    ("cpu", "precision", "per_cycle"),
    [
        (ZEN5, "fp32", 64),
        (ZEN5, "bf16", 128),
        (ZEN5, "fp16", 64),
        (ZEN5, "int8", 64),
        (replace(ZEN5, flags=AVX512 | {"avx512_vnni"}), "int8", 256),
        (replace(ZEN5, model="36"), "fp32", 32),  # Strix Point, a mobile Zen 5
        (replace(ZEN5, family="25", model="17"), "fp32", 32),
        (replace(ZEN5, family="25", model="17"), "bf16", 64),
        (replace(ZEN5, family="23", model="1", flags=frozenset({"avx2", "fma"})), "fp32", 16),
        (XEON, "fp32", 64),
        (XEON, "bf16", 1024),
        (XEON, "fp16", 128),
        (replace(XEON, flags=XEON.flags | {"amx_int8"}), "int8", 2048),
        (replace(XEON, model="140"), "fp32", 32),  # Tiger Lake
        (replace(XEON, flags=frozenset({"avx2", "fma"})), "bf16", 32),
    ],
)
def test_theory_of_known_cpus(cpu, precision, per_cycle):
    gflops, how = theory.cpu_gflops(cpu, precision, 2, None)
    assert gflops == pytest.approx(2 * cpu.mhz / 1e3 * per_cycle)
    assert f"x {per_cycle} FLOP/cycle" in how
    assert "turbo may exceed" in how


def test_theory_prefers_the_maximum_clock_and_admits_what_it_does_not_know():
    assert theory.cpu_gflops(ZEN5, "fp32", 1, 4000.0)[0] == pytest.approx(256)
    assert theory.cpu_gflops(replace(ZEN5, mhz=None), "fp32", 1, None) == (None, "the system reports no clock")
    assert theory.cpu_gflops(CpuInfo("Apple M2"), "fp32", 1, 3500.0)[0] is None


@pytest.mark.usefixtures("measurements")
def test_theory_does_not_count_threads_that_share_a_core(monkeypatch):
    monkeypatch.setattr(machine, "physical_cores", lambda _: 1)
    monkeypatch.setattr(machine, "cpu_info", lambda: ZEN5)
    monkeypatch.setattr(theory, "maximum_mhz", lambda: None)
    assert roofline.ceiling(EXAMPLE, "fp32", "cpu").theoretical_gflops == pytest.approx(2.6 * 64)


@pytest.mark.parametrize(
    ("name", "precision", "gflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989e3),
        ("NVIDIA H200", "fp32", 67e3),
        ("NVIDIA A100-SXM4-40GB", "fp16", 312e3),
        ("NVIDIA A100-SXM4-40GB", "int8", 624e3),
        ("NVIDIA H100 PCIe", "bf16", None),
        ("", "fp32", None),
    ],
)
def test_theory_of_cards(name, precision, gflops):
    assert theory.card_gflops(name, precision)[0] == gflops

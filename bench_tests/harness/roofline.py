"""How much arithmetic a model asks for, and how much this machine can do: measured, and by theory.

After Williams, Waterman & Patterson, "Roofline: An Insightful Visual Performance Model", CACM 52 (2009), without the
memory slope: the share of the measured peak, a matrix product or a convolution, is the figure a reader can act on. A
multiply-add counts as 2 FLOP everywhere. The measured ceiling is kept on disk, one file a fingerprint and precision,
because a share is only comparable with another when both are of the same ceiling; one taken on a busy machine shows as
a share above 1.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench_tests.harness import machine, theory
from bench_tests.harness.fingerprint import Fingerprint
from models.workload import Tensors
from optim.backends.base import PRECISIONS
from optim.backends.cache import cache_root, check_writable

_BUDGET_S = 3.0  # for all matrix products together
_CPU_SIZES = (512, 768, 1024, 2048, 4096)
_GPU_SIZES = (2048, 4096, 8192)
_COPY_BYTES = 256 * 2**20  # far beyond any last-level cache
_COPY_BUDGET_S = 1.0
_EMULATED_GFLOPS = 20.0  # a dtype below it has no arithmetic of its own here, and a convolution in it takes minutes


@dataclass(frozen=True)
class Ceiling:
    """What the machine can do at most in one precision. A copy's bytes count twice, read and written."""

    precision: str
    threads: int
    peak_gflops: float  # GFLOP/s of the best matrix product or convolution
    copy_gb_per_s: float
    theoretical_gflops: float | None  # GFLOP/s
    how: str  # how the theoretical figure came about, or why there is none


def gflop(module: nn.Module, example: Tensors) -> float:
    """The arithmetic of one call in GFLOP: matrix products, convolutions and attention, as torch's counter sees them.

    Give it the float32 module in eval mode on the CPU. Fused kernels (oneDNN's LSTM, the encoder's fast path, flash
    attention) count as nothing there, so the plain ones are asked for.
    """
    if any(tensor.device.type != "cpu" for tensor in example):
        raise ValueError("gflop: expected module and example on the CPU, where every kernel can be counted")
    counter = FlopCounterMode(display=False)
    with countable_kernels(module), torch.no_grad(), counter:
        module(*example)
    return counter.get_total_flops() / 1e9


def ceiling(fingerprint: Fingerprint, precision: str, device: str, remeasure: bool = False) -> Ceiling:
    """The ceiling of this machine: measured once (4 s), then read from the cache; ``remeasure`` replaces it."""
    file = cache_root() / "ceilings" / fingerprint.folder() / f"{precision}.json"
    kept = None if remeasure else _read(file, precision)
    if kept is not None:
        return kept
    check_writable()
    with _threads(fingerprint.threads):
        peak_gflops = _best_product_gflops(PRECISIONS[precision], device)
        if device == "cpu" and peak_gflops > _EMULATED_GFLOPS:
            peak_gflops = max(peak_gflops, _best_convolution_gflops(PRECISIONS[precision]))
        copy_gb_per_s = _best_copy_gb_per_s(device)
    if device == "cuda":
        theoretical, how = theory.card_gflops(fingerprint.gpu_name or "", precision)
    else:
        cores = min(fingerprint.threads, machine.physical_cores(fingerprint.affinity))
        theoretical, how = theory.cpu_gflops(machine.cpu_info(), precision, cores, theory.maximum_mhz())
    measured = Ceiling(precision, fingerprint.threads, peak_gflops, copy_gb_per_s, theoretical, how)
    _write(file, measured)
    return measured


def _best_product_gflops(dtype: torch.dtype, device: str) -> float:
    """The best of all square products that fit the budget: the small ones stay in the cache, the large ones fill cores.

    On the CPU also as a 1x1 convolution: fp32 torch.mm goes to MKL, which reaches 105 GFLOP/s on two Zen 5 cores, while
    convolutions go to oneDNN, which reaches 200, so that a model would exceed a ceiling of torch.mm alone.
    """
    products, sizes = ((torch.mm, _convolve), _CPU_SIZES) if device == "cpu" else ((torch.mm,), _GPU_SIZES)
    generator = torch.Generator(device).manual_seed(0)
    peak = 0.0
    for product in products:
        best, deadline = 0.0, time.perf_counter() + _BUDGET_S / len(products)
        for index, size in enumerate(sizes):
            flop, left_s = 2 * size**3, deadline - time.perf_counter()
            if best and flop / best > left_s:  # a dtype that this machine emulates: larger ones take minutes
                break
            left, right = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
            call = functools.partial(product, left, right)
            best = max(best, flop / _best_s(call, left_s / (len(sizes) - index), device))
        peak = max(peak, best)
    return peak / 1e9


def _convolve(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The product left @ right as a convolution with 1x1 kernels over an image of one row."""
    return F.conv2d(right[None, :, None, :], left[:, :, None, None])


def _best_convolution_gflops(dtype: torch.dtype) -> float:
    """A 3x3 convolution inside of a ResNet: on some CPUs oneDNN's kernels for it beat every plain product."""
    batch, channels, edge = 8, 256, 28
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(batch, channels, edge, edge, generator=generator).to(dtype, memory_format=torch.channels_last)
    kernel = torch.randn(channels, channels, 3, 3, generator=generator).to(dtype, memory_format=torch.channels_last)
    flop = 2 * 9 * batch * channels**2 * edge**2
    return flop / _best_s(lambda: F.conv2d(image, kernel, padding=1), _COPY_BUDGET_S, "cpu") / 1e9


def _best_copy_gb_per_s(device: str) -> float:
    source = torch.ones(_COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2 * _COPY_BYTES / _best_s(lambda: target.copy_(source), _COPY_BUDGET_S, device) / 1e9


def _best_s(call: Callable[[], object], budget_s: float, device: str) -> float:
    """The shortest of as many calls as fit; the first one, which allocates and selects kernels, is only one of them."""
    best, deadline = math.inf, time.perf_counter() + budget_s
    with torch.inference_mode():
        while True:
            start = time.perf_counter()
            call()
            if device == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            best = min(best, now - start)
            if now + best > deadline:
                return best


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def countable_kernels(module: nn.Module) -> Iterator[None]:
    """Kernels made of operators that the counter knows; oneDNN stays on unless there is an LSTM, for its speed."""
    fast_path, onednn = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    has_lstm = any(isinstance(part, nn.LSTM) for part in module.modules())
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.mkldnn.enabled = onednn and not has_lstm  # type: ignore[assignment]
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        torch.backends.mkldnn.enabled = onednn


def _read(file: Path, precision: str) -> Ceiling | None:
    """The kept ceiling, None where there is none or what is there is no ceiling."""
    try:
        kept = Ceiling(**json.loads(file.read_text()))
        usable = kept.precision == precision and kept.peak_gflops > 0 and kept.copy_gb_per_s > 0
    except (OSError, ValueError, TypeError):
        return None
    return kept if usable else None


def _write(file: Path, measured: Ceiling) -> None:
    """Whole or not at all: written beside its place and renamed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(prefix=".", suffix=".json", dir=file.parent)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(asdict(measured), stream, indent=1)
    Path(scratch).replace(file)

"""How much arithmetic a model asks for, and how much this machine can do: measured, and by theory.

After Williams, Waterman & Patterson, "Roofline: An Insightful Visual Performance Model", CACM 52 (2009), without the
memory slope: the share of the measured peak, a matrix product or a convolution, is the figure a reader can act on. A
multiply-add counts as 2 FLOP everywhere. The measured ceiling is kept on disk, one file a fingerprint and precision,
because a share is only comparable with another when both are of the same ceiling; one that a model exceeds was taken on
a busy machine, and is measured again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench_tests.harness import machine, peaks, theory
from bench_tests.harness.fingerprint import Fingerprint
from models.files import cache_root, save_json
from models.workload import Tensors
from optim.backends.cache import check_writable


@dataclass(frozen=True)
class Ceiling:
    """What the machine can do at most in one precision, or in int8. A copy's bytes count twice, read and written."""

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
        peak, copy = peaks.peak_gflops(precision, device), peaks.copy_gb_per_s(device)
    if device == "cuda":
        theoretical, how = theory.card_gflops(fingerprint.gpu_name or "", precision)
    else:
        cores = min(fingerprint.threads, machine.physical_cores(fingerprint.affinity))
        theoretical, how = theory.cpu_gflops(machine.cpu_info(), precision, cores, theory.maximum_mhz())
    measured = Ceiling(precision, fingerprint.threads, peak, copy, theoretical, how)
    save_json(file, asdict(measured))
    return measured


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

"""How much arithmetic and copying this machine does at most, measured: the ceilings that models are held against.

The best of square products and, on the CPU, convolutions, in a float precision or in eight bits (u8 activations, s8
weights, as x86's dot products take them). A multiply-add counts as 2 operations everywhere.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from optim.backends.base import PRECISIONS

INT8 = "int8"

_BUDGET_S = 3.0  # for all matrix products together
_CPU_SIZES = (512, 768, 1024, 2048, 4096)
_GPU_SIZES = (2048, 4096, 8192)
_COPY_BYTES = 256 * 2**20  # far beyond any last-level cache
_COPY_BUDGET_S = 1.0
_EMULATED_GFLOPS = 20.0  # a dtype below it has no arithmetic of its own here, and a convolution in it takes minutes


def peak_gflops(precision: str, device: str) -> float:
    """GFLOP/s of the best matrix product or convolution in a precision, or ``int8``."""
    best = _best_product_gflops(precision, device)
    if device != "cpu" or best <= _EMULATED_GFLOPS:
        return best
    return max(best, _best_convolution_gflops(precision))


def _best_product_gflops(precision: str, device: str) -> float:
    """The best of all square products that fit the budget: the small ones stay in the cache, the large ones fill cores.

    On the CPU also as a 1x1 convolution: fp32 torch.mm goes to MKL, which reaches 105 GFLOP/s on two Zen 5 cores, while
    convolutions go to oneDNN, which reaches 200, so that a model would exceed a ceiling of torch.mm alone.
    """
    sizes = _CPU_SIZES if device == "cpu" else _GPU_SIZES
    products: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (torch.mm,)
    if precision == INT8:
        products = (torch._int_mm,)
    elif device == "cpu":
        products = (torch.mm, _convolve)
    generator = torch.Generator(device).manual_seed(0)
    peak = 0.0
    for product in products:
        best, deadline = 0.0, time.perf_counter() + _BUDGET_S / len(products)
        for index, size in enumerate(sizes):
            flop, left_s = 2 * size**3, deadline - time.perf_counter()
            if best and flop / best > left_s:  # a dtype that this machine emulates: larger ones take minutes
                break
            left, right = (_random((size, size), precision, device, generator) for _ in range(2))
            call = functools.partial(product, left, right)
            best = max(best, flop / _best_s(call, left_s / (len(sizes) - index), device))
        peak = max(peak, best)
    return peak / 1e9


def _random(shape: tuple[int, ...], precision: str, device: str, generator: torch.Generator) -> Tensor:
    if precision == INT8:
        return torch.randint(-100, 100, shape, dtype=torch.int8, device=device, generator=generator)
    return torch.randn(shape, device=device, generator=generator).to(PRECISIONS[precision])


def _convolve(left: Tensor, right: Tensor) -> Tensor:
    """The product left @ right as a convolution with 1x1 kernels over an image of one row."""
    return F.conv2d(right[None, :, None, :], left[:, :, None, None])


def _best_convolution_gflops(precision: str) -> float:
    """A 3x3 convolution inside of a ResNet: on some CPUs oneDNN's kernels for it beat every plain product."""
    batch, channels, edge = 8, 256, 28
    generator = torch.Generator().manual_seed(0)
    image = _random((batch, channels, edge, edge), precision, "cpu", generator)
    kernel = _random((channels, channels, 3, 3), precision, "cpu", generator)
    image = image.contiguous(memory_format=torch.channels_last)
    flop = 2 * 9 * batch * channels**2 * edge**2
    if precision != INT8:
        kernel = kernel.contiguous(memory_format=torch.channels_last)
        return flop / _best_s(lambda: F.conv2d(image, kernel, padding=1), _COPY_BUDGET_S, "cpu") / 1e9
    with contextlib.suppress(AttributeError, RuntimeError):  # oneDNN's operators are not in every build of torch
        return flop / _best_s(_int8_convolution(image.add(100).byte(), kernel), _COPY_BUDGET_S, "cpu") / 1e9
    return 0.0


def _int8_convolution(image: Tensor, kernel: Tensor) -> Callable[[], Tensor]:
    """A 3x3 convolution of uint8 (B, C, H, W) by int8 (O, C, 3, 3) into uint8, as Inductor calls it for x86."""
    ops, one = torch.ops.onednn, [1, 1]
    scales, zeros = torch.full((len(kernel),), 0.01), torch.zeros(len(kernel), dtype=torch.int64)
    packed = ops.qconv_prepack(kernel, scales, 0.02, 0, one, one, one, 1, list(image.shape))
    return lambda: ops.qconv2d_pointwise(
        image, 0.02, 0, packed, scales, zeros, None, one, one, one, 1, 1.0, 0, torch.uint8, "none", [], ""
    )


def copy_gb_per_s(device: str) -> float:
    """GB/s of a copy far larger than any cache; its bytes count twice, read and written."""
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

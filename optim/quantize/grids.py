"""The grids of integers that tensors are rounded to, and how the range of an activation's grid is found.

A `Grid` sits where PT2E wants an observer. It does one thing at a time, its `stage`: nothing, look at the range of
what passes, count its histogram, or round it as the integers will (with a straight-through gradient).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchao.quantization.pt2e import ObserverBase

BINS = 2048  # of a histogram, as TensorRT and ONNX Runtime have
_SAMPLES = 1 << 18  # values of one call that are counted: all of them would take longer than the model itself
_CANDIDATES = 16  # bins from one clipping threshold to the next that entropy calibration tries
_SMALLEST = 1e-12  # scale of a grid for a tensor that is zero everywhere

Range = tuple[float, float]


class ActivationGrid(ObserverBase):  # type: ignore[misc]
    """u8 values of one activation, scale x (q - zero point), over a range that contains zero."""

    def __init__(
        self,
        dtype: torch.dtype = torch.uint8,
        quant_min: int = 0,
        quant_max: int = 255,
        qscheme: torch.qscheme = torch.per_tensor_affine,
        is_dynamic: bool = False,
        magnitudes: bool = False,
    ) -> None:
        super().__init__(dtype, is_dynamic)
        self.quant_min, self.quant_max, self.qscheme = quant_min, quant_max, qscheme
        self.stage = "off"  # or range, histogram, round
        self.magnitudes = magnitudes  # of which the histogram is: entropy calibration clips both ends alike
        self.histogram: Tensor | None = None  # float64 (BINS,), over `span`
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    @property
    def range(self) -> Range:
        """The smallest and the largest value on the grid, before its zero is rounded to an integer."""
        return float(self.low), float(self.high)

    @range.setter
    def range(self, found: Range) -> None:
        low, high = found
        self.low.fill_(min(0.0, low))
        self.high.fill_(max(0.0, high))

    @property
    def span(self) -> Range:
        """What the histogram spans."""
        low, high = self.range
        return (0.0, max(-low, high)) if self.magnitudes else (low, high)

    def forward(self, x: Tensor) -> Tensor:
        """Pass ``x`` on, rounded or as it is."""
        if self.stage == "range":
            low, high = torch.aminmax(x.detach())
            self.range = min(self.range[0], float(low)), max(self.range[1], float(high))
        elif self.stage == "histogram":
            self._count(x.detach())
        elif self.stage == "round":
            scale, zero_point = self.calculate_qparams()
            return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero_point, self.quant_min, self.quant_max)
        return x

    def _count(self, x: Tensor) -> None:
        low, high = self.span
        if high > low:
            if x.numel() > _SAMPLES:
                dice = torch.Generator().manual_seed(0)
                x = x.take(torch.randint(x.numel(), (_SAMPLES,), generator=dice).to(x.device))
            counts = torch.histc((x.abs() if self.magnitudes else x).float(), BINS, low, high).double()
            if self.magnitudes:  # a zero costs nothing on any grid; ReLU makes so many that nothing else would be seen
                counts[0] -= int((x == 0).sum())
            self.histogram = counts if self.histogram is None else self.histogram + counts

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Scale float32 () and zero point int32 ()."""
        scale = ((self.high - self.low) / (self.quant_max - self.quant_min)).clamp(min=_SMALLEST)
        zero_point = (self.quant_min - self.low / scale).round().clamp(self.quant_min, self.quant_max)
        return scale, zero_point.int()


class WeightGrid(ObserverBase):  # type: ignore[misc]
    """Signed values of one weight (out, ...), scale x q, symmetric: one scale, or one for each output channel."""

    def __init__(
        self,
        dtype: torch.dtype = torch.int8,
        quant_min: int = -127,
        quant_max: int = 127,
        qscheme: torch.qscheme = torch.per_channel_symmetric,
        is_dynamic: bool = False,
    ) -> None:
        super().__init__(dtype, is_dynamic)
        self.quant_min, self.quant_max, self.qscheme = quant_min, quant_max, qscheme
        self.ch_axis = 0
        self.stage = "off"  # or round
        self.per_channel = qscheme == torch.per_channel_symmetric
        self.scale = torch.ones(1)  # of the weight that passed last

    @property
    def range(self) -> Range:
        """The smallest and the largest value on the grid of a whole weight."""
        largest = float(self.scale) * self.quant_max
        return -largest, largest

    @range.setter
    def range(self, found: Range) -> None:
        self.scale = torch.tensor(found[1] / self.quant_max)

    def forward(self, weight: Tensor) -> Tensor:
        """Pass ``weight`` on, rounded or as it is."""
        largest = weight.detach().abs().float()
        largest = largest.amax(tuple(range(1, weight.dim()))) if self.per_channel else largest.amax()
        self.scale = (largest / self.quant_max).clamp(min=_SMALLEST)
        if self.stage != "round":
            return weight
        scale, zero_point = self.calculate_qparams()
        bounds = self.quant_min, self.quant_max
        if self.per_channel:
            return torch.fake_quantize_per_channel_affine(weight.float(), scale, zero_point, self.ch_axis, *bounds)
        return torch.fake_quantize_per_tensor_affine(weight.float(), scale, zero_point, *bounds)

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Scales float32 (out,) or (), and zero points int32 of the same shape."""
        return self.scale, torch.zeros_like(self.scale, dtype=torch.int32)


Grid = ActivationGrid | WeightGrid


def percentile_range(histogram: Tensor, span: Range, percentile: float) -> Range:
    """The range that keeps ``percentile`` per cent of the values: as much is cut at either end.

    ``histogram`` is (BINS,) over ``span``, taken to be flat within a bin.
    """
    low, high = span
    cumulated = torch.cat([histogram.new_zeros(1), histogram.cumsum(0)]) / histogram.sum()
    edges = torch.linspace(low, high, len(cumulated), dtype=torch.float64)
    cut = (100 - percentile) / 200
    found = [float(_interpolated(share, cumulated, edges)) for share in (cut, 1 - cut)]
    return found[0], found[1]


def _interpolated(share: float, cumulated: Tensor, edges: Tensor) -> Tensor:
    right = int(torch.searchsorted(cumulated, share).clamp(1, len(edges) - 1))
    inside = (share - cumulated[right - 1]) / (cumulated[right] - cumulated[right - 1]).clamp(min=1e-300)
    return edges[right - 1] + inside.clamp(0, 1) * (edges[right] - edges[right - 1])


def entropy_threshold(histogram: Tensor, largest: float, levels: int) -> float:
    """The magnitude to clip at so that ``levels`` values tell most of a distribution (TensorRT's calibration, 2017).

    For each threshold the histogram of magnitudes, (BINS,) over 0..``largest``, with all that is beyond it in its last
    bin, is compared with itself after rounding to as many values; the smallest Kullback-Leibler divergence wins.
    """
    ends = torch.arange(levels, len(histogram) + 1, _CANDIDATES)  # (T,): bins below the threshold
    position = torch.arange(len(histogram))
    inside = position < ends[:, None]  # (T, BINS)
    kept = histogram * inside
    clipped = kept.clone()
    rows = torch.arange(len(ends))
    clipped[rows, ends - 1] += histogram.sum() - kept.sum(1)
    level = (position * levels // ends[:, None]).clamp(max=levels - 1)  # (T, BINS): which value a bin is rounded to
    used = ((clipped > 0) & inside).double()
    totals, bins = (torch.zeros(len(ends), levels, dtype=torch.float64).scatter_add_(1, level, part)
                    for part in (kept, used))  # fmt: skip
    rounded = (totals / bins.clamp(min=1)).gather(1, level) * used
    p, q = (part / part.sum(1, keepdim=True).clamp(min=1) for part in (clipped, rounded))
    divergence = torch.where(p > 0, p * (p / q.clamp(min=1e-9)).log(), 0.0).sum(1)
    return float(ends[divergence.argmin()]) / len(histogram) * largest


def clipped_range(grid: ActivationGrid, calibration: str, percentile: float) -> Range:
    """The range of a grid that has counted its histogram, by ``entropy`` or ``percentile`` calibration."""
    low, high = grid.range
    if grid.histogram is None or grid.histogram.sum() == 0:  # zero everywhere
        return low, high
    if calibration == "percentile":
        return percentile_range(grid.histogram, grid.span, percentile)
    levels = grid.quant_max - grid.quant_min + 1
    threshold = entropy_threshold(grid.histogram, grid.span[1], levels // 2 if low < 0 < high else levels)
    return max(low, -threshold), min(high, threshold)

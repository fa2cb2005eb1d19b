"""Quantization: weights and activations on eight bits (Jacob et al., 1712.05877).

1. The model becomes one graph (PT2E), batch norm folded into the convolutions before it.
2. A real number r is written as scale x (q - zero point): weights symmetric and signed, with a scale for each output
   channel; activations unsigned, with one scale and zero point, since x86 multiplies u8 by s8 (VNNI).
3. ``static``: an activation's range is found on calibration examples: its smallest and largest value, the threshold
   that loses the least information (entropy, TensorRT's), or the one that keeps a percentile of the values.
4. ``dynamic``: only linear layers; an activation's range is that of the call at hand.
   ``weights``: matrices and kernels alone, those of GRU and LSTM too; runtimes make floats of them when they load the
   file. A quarter of the size and nothing else changes, which is what a model needs whose time is operators' overhead.
5. ``qat``: after the calibration the weights learn behind their grids, rounding having the gradient of identity
   (Bengio et al., 1308.3432); ranges and the folded batch norm stay as they are.
6. Layers that suffer most, each rounded alone, stay in float until the drop on validation images is small enough.

The graph holds int8 weights and pairs of quantize and dequantize operators, and is the same for all: eager PyTorch
imitates it in float, Inductor, ONNX Runtime and OpenVINO run int8 kernels.

Mechanism: a quarter of the memory traffic, and four products where fp32 has one. Limits: convolutions gain, small
models spend their time elsewhere; ``dynamic`` leaves convolutions, GRU and LSTM in float; 4-bit weights only compress
better on the disk, for want of kernels. Risk: ranges come from the calibration examples, and what lies outside of them
at run time is clipped.
"""

from optim.quantize.config import QuantizeConfig
from optim.quantize.coverage import Coverage8, coverage_int8
from optim.quantize.method import quantize
from optim.quantize.sensitivity import Sensitivity, sensitivity, sensitivity_table
from optim.quantize.storage import rebuild, save

__all__ = [
    "Coverage8",
    "QuantizeConfig",
    "Sensitivity",
    "coverage_int8",
    "quantize",
    "rebuild",
    "save",
    "sensitivity",
    "sensitivity_table",
]

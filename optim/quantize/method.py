"""A model in int8: calibrated, put back to float where it hurts, fine-tuned, converted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn
from torch.fx import GraphModule

from models.workload import Tensors, Workload
from optim.backends.base import QUANTIZATION
from optim.distill import DistillConfig, retrain
from optim.kinds import kind_of
from optim.quantize.calibrate import calibrate, calibration_examples, grids, ranges_of, set_stage
from optim.quantize.config import CALIBRATED, QAT, QAT_SPEECH, QuantizeConfig
from optim.quantize.graph import converted, prepared
from optim.quantize.sensitivity import until_it_holds
from optim.schedule import described
from optim.speech import SpeechData


def quantize(
    model: nn.Module,
    workload: Workload,
    config: QuantizeConfig,
    *,
    teacher: nn.Module | None = None,
    keep: Path | None = None,
) -> GraphModule:
    """A copy of ``model`` as one graph with int8 weights; the argument stays as it is.

    ``teacher`` and ``keep`` are those of `optim.distill.retrain` and serve ``qat`` alone. What the graph was made by
    (the config with the layers that ended in float, the calibration set, every range) is in its
    ``meta["quantization"]``. Raises SpeedproofError for impossible values, unknown layers, a workload without examples
    and a model that torch.export does not accept.
    """
    config.check()
    example = workload.example(config.size, 2, 0)
    own = prepared(model, example, config)
    examples = None
    if config.method in CALIBRATED:
        examples = calibration_examples(workload, config)
        print(f"calibrated in {calibrate(own, examples, config):.1f} s: {examples.words}", flush=True)
        if config.drop_max is not None:
            own, config = until_it_holds(own, model, workload, config, examples)
        if config.method == "qat":
            _train(own, workload, config, teacher, keep)
    return finished(own, config, examples.words if examples else "none", model)


def finished(own: GraphModule, config: QuantizeConfig, calibrated_on: str, model: nn.Module) -> GraphModule:
    """Convert a prepared graph and write down what it was made by."""
    ranges = ranges_of(own)
    result = converted(own)
    result.meta = {
        QUANTIZATION: {
            "config": {
                name: list(value) if isinstance(value, tuple) else value for name, value in described(config).items()
            },
            "calibration": calibrated_on,
            "ranges": {name: list(found) for name, found in ranges.items()},
            "shapes": {name: list(value.shape) for name, value in model.state_dict().items()},
        }
    }
    return result


def usual_qat(workload: Workload, size: int) -> DistillConfig:
    """How quantization-aware training goes where nothing else is said."""
    return QAT_SPEECH if kind_of(workload, size) is SpeechData else QAT


class _Trainable(nn.Module):
    """A prepared graph as a module to be trained; it has no modes: dropout stays off, batch norm is folded."""

    def __init__(self, graph: GraphModule) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, *inputs: Tensor) -> Tensor | Tensors:
        """Run the graph."""
        return self.graph(*inputs)  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> _Trainable:
        """Remember the mode, which the graph, being exported, refuses to be told."""
        self.training = mode
        return self


def _train(
    own: GraphModule, workload: Workload, config: QuantizeConfig, teacher: nn.Module | None, keep: Path | None
) -> None:
    """Train the weights behind their grids; the activations' ranges stay as calibrated."""
    # The graph is of one size, so the resolution cannot grow as it does in plain training.
    fine_tune = replace(
        config.fine_tune or usual_qat(workload, config.size), size=config.size, start_share=1.0, end_share=1.0
    )
    set_stage(grids(own), "round")
    retrain(_Trainable(own), workload, fine_tune, teacher, keep=keep, name="qat")
    set_stage(grids(own), "off")

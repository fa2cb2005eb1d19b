"""The teacher's part: its logits, kept or asked for in every step, and its layers where features are transferred."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from models.data.images import target_indices
from models.errors import SpeedproofError
from optim.backends import load_backend
from optim.backends.base import Target
from optim.backends.cache import artefact, module_digest
from optim.data import Batch, Objective, TrainingData
from optim.distill.loss import DistillConfig, attention_map, distillation_loss
from optim.epoch import autocast_dtype
from optim.fit import cross_entropy

_ROWS = 64  # examples a call of the teacher whose logits are kept
_WORTH_AN_EXPORT = 1000  # examples: an export takes as long as some hundred of them in eager


@contextlib.contextmanager
def teaching(
    teacher: nn.Module | None, student: nn.Module, data: TrainingData, config: DistillConfig
) -> Iterator[tuple[Objective, tuple[nn.Parameter, ...]]]:
    """The objective of a student, and the parameters beside its own that learn with it."""
    if teacher is None:
        yield cross_entropy(config.label_smoothing), ()
        return
    device = next(student.parameters()).device
    teacher = copy.deepcopy(teacher).eval().requires_grad_(False).to(device)
    columns = _columns(teacher, data, config.teacher_size or config.size)
    if config.transfer != "none":
        with _transferring(teacher, student, columns, data, config) as found:
            yield found
        return
    kept = kept_logits(teacher, data, config)[:, :, columns] if config.views else None

    def objective(model: nn.Module, batch: Batch, size: int, epoch: int) -> Tensor:
        logits = model(batch.views(size))
        if kept is not None:
            said = kept[epoch % config.views, batch.rows].to(logits.device)
        else:
            said = _ask(teacher, batch, config.teacher_size or size)[:, columns]
        return _loss(logits, said, batch, data, config)

    yield objective, ()


@contextlib.contextmanager
def _transferring(
    teacher: nn.Module, student: nn.Module, columns: Tensor, data: TrainingData, config: DistillConfig
) -> Iterator[tuple[Objective, tuple[nn.Parameter, ...]]]:
    """The objective with feature or attention transfer between the layers that the config pairs."""
    teachers, students = zip(*config.layers, strict=True)
    with _tapped(teacher, teachers) as theirs, _tapped(student, students) as ours:
        channels = _channels(teacher, student, theirs, ours, data, config)
        projections = _projections(channels, student, config) if config.transfer == "feature" else None

        def objective(model: nn.Module, batch: Batch, size: int, epoch: int) -> Tensor:  # noqa: ARG001
            said = _ask(teacher, batch, size)[:, columns]  # at the student's size, so that maps have the same one
            loss = _loss(model(batch.views(size)), said, batch, data, config)
            for index, (left, right) in enumerate(config.layers):
                target, own = theirs[left].detach().float(), ours[right].float()
                target = F.adaptive_avg_pool2d(target, (own.shape[2], own.shape[3]))
                if projections is None:
                    part = (attention_map(own) - attention_map(target)).square().sum(1).mean()
                else:
                    part = F.mse_loss(F.conv2d(own, projections[index]), target)
                loss = loss + config.transfer_weight * part
            return loss

        yield objective, tuple(projections or ())


@contextlib.contextmanager
def _tapped(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """What some modules of a model gave in its last call, by their names: each (B, C, H, W)."""
    seen: dict[str, Tensor] = {}
    known = dict(model.named_modules())
    for name in names:
        if name not in known:
            raise SpeedproofError(f"--layers: {type(model).__name__} has no module {name!r}: see its named_modules()")

    def tap(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: seen.update({name: output})

    hooks = [known[name].register_forward_hook(tap(name)) for name in names]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _channels(
    teacher: nn.Module, student: nn.Module, theirs: dict[str, Tensor], ours: dict[str, Tensor], data: TrainingData,
    config: DistillConfig,
) -> list[tuple[int, int]]:  # fmt: skip
    """How many channels each pair of layers has, the teacher's and the student's."""
    example = data.inputs(1, config.size).to(next(student.parameters()).device)
    with torch.no_grad():
        teacher(example)
        student.eval()(example)
    for left, right in config.layers:
        if theirs[left].ndim != 4 or ours[right].ndim != 4:
            raise SpeedproofError(f"--layers {left}={right}: expected layers with outputs (B, C, H, W)")
    return [(theirs[left].shape[1], ours[right].shape[1]) for left, right in config.layers]


def _projections(channels: list[tuple[int, int]], student: nn.Module, config: DistillConfig) -> list[nn.Parameter]:
    """A 1x1 kernel for each pair of layers, from the student's channels to the teacher's: (Ct, Cs, 1, 1)."""
    generator = torch.Generator().manual_seed(config.seed)
    kernels = [torch.randn(outputs, inputs, 1, 1, generator=generator) / inputs**0.5 for outputs, inputs in channels]
    return [nn.Parameter(kernel.to(next(student.parameters()).device)) for kernel in kernels]


def _loss(logits: Tensor, said: Tensor, batch: Batch, data: TrainingData, config: DistillConfig) -> Tensor:
    """The loss of a batch from the student's logits (B, outputs) and the teacher's (B, classes)."""
    place = torch.full((logits.shape[1] + 1,), -1, device=logits.device)  # the last is that of the unknown label, -1
    place[data.targets] = torch.arange(len(data.targets), device=logits.device)
    return distillation_loss(
        logits[:, data.targets], said, place[batch.labels], config.temperature, config.alpha, config.label_smoothing
    )


def _columns(teacher: nn.Module, data: TrainingData, size: int) -> Tensor:
    """Which outputs of the teacher stand for the classes of the data: int64 (classes,)."""
    with torch.inference_mode():
        outputs = teacher(data.inputs(1, size).to(next(teacher.parameters()).device)).shape[1]
    found = target_indices(data.classes, outputs)
    if found is None:
        raise SpeedproofError(
            f"the teacher has {outputs} outputs and the data {len(data.classes)} classes: give a teacher that was "
            f"trained on the same classes"
        )
    return torch.from_numpy(found)


@torch.no_grad()
def _ask(teacher: nn.Module, batch: Batch, size: int) -> Tensor:
    """What the teacher says of a batch: logits (B, outputs)."""
    said: Tensor = teacher(batch.views(size))
    return said


def kept_logits(teacher: nn.Module, data: TrainingData, config: DistillConfig) -> Tensor:
    """The teacher's logits for each view of the training examples, (views, N, outputs) float32, computed once."""
    size, device = config.teacher_size or config.size, next(teacher.parameters()).device.type
    precision = "bf16" if autocast_dtype(config.precision, device) == torch.bfloat16 else "fp32"
    parts: dict[str, object] = {
        "teacher": module_digest(teacher), "size": size, "device": device, "precision": precision,
        "seed": config.seed, "torch": torch.__version__, **data.identity(config),
    }  # fmt: skip

    def build(view: int, folder: Path) -> None:
        rows = torch.split(torch.arange(len(data)), _ROWS)
        drawn = data.batches(rows, view, config, device)
        title = f"teacher, view {view + 1}/{config.views}"
        bar = tqdm(drawn, desc=title, total=len(rows), leave=False, disable=not sys.stderr.isatty())
        ask = _fast(teacher, data, size, device, precision)
        said = torch.cat([ask(batch.views(size)).float().cpu() for batch in bar])
        save_file({"logits": said}, folder / "logits.safetensors")

    def kept(view: int) -> Tensor:
        folder, _ = artefact("teacher_logits", parts | {"view": view}, partial(build, view))
        return load_file(folder / "logits.safetensors")["logits"]

    return torch.stack([kept(view) for view in range(config.views)])


def _fast(teacher: nn.Module, data: TrainingData, size: int, device: str, precision: str) -> Callable[[Tensor], Tensor]:
    """The teacher on the fastest backend that runs it here, for up to `_ROWS` examples a call.

    On two CPU cores EfficientNet-Lite0 takes a tenth of eager's time in OpenVINO.
    """
    target = Target(device, torch.get_num_threads())
    example = (data.inputs(_ROWS, size),)
    exports = ("openvino", "onnxruntime") if len(data) >= _WORTH_AN_EXPORT else ()
    for name in (*exports, "eager"):
        backend = load_backend(name)
        if backend.missing(precision, target) is None:
            with contextlib.suppress(SpeedproofError):  # what one cannot export, the next one may run
                runner = backend.compile(teacher, example, precision, target)
                break

    def ask(views: Tensor) -> Tensor:
        missing = _ROWS - len(views)
        padded = torch.cat([views, views[-1:].expand(missing, *views.shape[1:])]) if missing else views
        return runner(padded.contiguous())[0][: len(views)]

    return ask

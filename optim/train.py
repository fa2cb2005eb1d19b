"""Train a workload's model, and fine-tune it to other image sizes.

1. The first size is trained from scratch, or from ``--init``; every further one starts from the first one's best weights.
2. Resolution grows over the epochs to the full size (progressive learning, Tan & Le, 2104.00298): early epochs are cheap.
3. SGD with Nesterov momentum, one cosine cycle after a linear warm-up (Loshchilov & Hutter, 1608.03983), label smoothing.
4. The best epoch by validation accuracy is kept; training stops early when it has not improved for ``patience`` epochs.
5. A state beside the weights makes a killed run go on with the next epoch. The history goes into a JSON file.

On CPUs with bfloat16 arithmetic, and on GPUs, the forward pass is bfloat16 autocast in channels_last.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from models.data.images import DATA_NAMES, ImageSplit, centre_crop, normalise
from models.errors import SpeedproofError
from models.weights import WEIGHTS_DIR, best_weights_path, load_into, save_checkpoint
from models.workload import DataChoice, Workload, load_workload, workload_names
from optim.augment import random_views


@dataclass(frozen=True)
class TrainConfig:
    """How one size is trained."""

    epochs: int = 20  # ResNet-18 gains little on 9,000 images after that
    batch_size: int = 64  # small enough for many steps, large enough to fill two cores
    lr: float = 0.08  # for a batch of 64; scale it with the batch
    momentum: float = 0.9
    weight_decay: float = 5e-4  # few images: stronger than ImageNet's 1e-4
    label_smoothing: float = 0.1
    warmup_epochs: float = 1.0
    patience: int = 6  # epochs without a better validation accuracy
    start_share: float = 0.5  # resolution of the first epoch, as a share of the full one, reached at 3/4 of the epochs
    smallest_area: float = 0.35  # of a random crop
    seed: int = 0
    precision: str = "auto"  # bf16 where the hardware computes in it, else fp32

    def check(self) -> None:
        """Raise SpeedproofError for a value that cannot be trained with."""
        for name in ("epochs", "batch_size", "lr", "patience"):
            if not getattr(self, name) > 0:
                raise SpeedproofError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected more than 0")


# Eight-pixel digits are learned in a few epochs; a smaller start keeps them under three minutes on two cores.
DIGITS = {"epochs": 7, "start_share": 0.15, "smallest_area": 0.7, "lr": 0.04}
FINE_TUNE = {"epochs": 3, "start_share": 1.0, "warmup_epochs": 0.3}


def autocast_dtype(precision: str, device: str) -> torch.dtype:
    """The dtype of the forward pass: bfloat16 where the hardware has arithmetic for it, unless told otherwise."""
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if supported() else torch.float32


def size_at(epoch: int, epochs: int, size: int, start_share: float, smallest: int) -> int:
    """The resolution of an epoch: it grows linearly over three quarters of them, in steps of 16 pixels."""
    progress = min(1.0, epoch / max(1.0, 0.75 * (epochs - 1)))
    grown = size * (start_share + (1 - start_share) * progress)
    return min(size, max(smallest, round(grown / 16) * 16))


def learning_rate(step: float, steps: float, warmup: float) -> float:
    """Share of the peak rate at a step: linear warm-up, then a cosine to zero."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1.0, steps - warmup))))


@torch.inference_mode()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor, size: int, dtype: torch.dtype) -> tuple[float, float]:
    """Top-1 accuracy and mean cross entropy on uint8 (N, 3, E, E), cropped in the centre to ``size``."""
    model.eval()
    device = next(model.parameters()).device
    right, loss = 0, 0.0
    for start in range(0, len(images), 128):
        batch = normalise(centre_crop(images[start : start + 128], size)).to(device)
        target = labels[start : start + 128].to(device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = model(batch.contiguous(memory_format=torch.channels_last))
        right += int((logits.argmax(1) == target).sum())
        loss += float(F.cross_entropy(logits.float(), target, reduction="sum"))
    return right / len(images), loss / len(images)


def train(
    model: nn.Module,
    workload: Workload,
    size: int,
    config: TrainConfig,
    path: Path,
    *,
    device: str = "cpu",
    origin: str = "as built",
) -> dict[str, Any]:
    """Train ``model`` in place at ``size`` px, write the best weights to ``path`` and return the training history.

    A finished run of the same configuration is not repeated; an interrupted one goes on after its last whole epoch.
    Raises SpeedproofError where the workload has no image data or the weights cannot be written.
    """
    config.check()
    history_path, resume_path = path.with_suffix(".json"), path.with_suffix(".resume")
    description = {"workload": workload.name, "data": workload.data_name, "size": size, "origin": origin, **asdict(config)}
    finished = _read_history(history_path)
    if path.is_file() and finished.get("complete") and finished["config"] == description:
        print(f"{path} is trained already: top-1 {finished['test_top1']:.1%} on the test images", flush=True)
        load_into(model, path)
        return finished

    splits = {split: workload.data(split, size) for split in ("train", "validation", "test")}
    if not all(isinstance(split, ImageSplit) for split in splits.values()):
        raise SpeedproofError(f"workload {workload.name} has no image data to train on: its data() must give an ImageSplit")
    edge = min(centre_edge(size), max(size, splits["train"].native_edge()))
    training = splits["train"].stack(edge), torch.tensor(splits["train"].labels)
    validation = splits["validation"].stack(centre_edge(size)), torch.tensor(splits["validation"].labels)

    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    dtype = autocast_dtype(config.precision, device)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(_groups(model, config.weight_decay), config.lr, config.momentum, nesterov=True)
    history: dict[str, Any] = {"config": description, "precision": str(dtype), "threads": torch.get_num_threads()}
    history |= {"complete": False, "epochs": []}
    best, since_best, first = -1.0, 0, 0
    if resume_path.is_file():
        state = torch.load(resume_path, map_location="cpu", weights_only=True)
        if json.loads(state["history"])["config"] == description:
            history = json.loads(state["history"])
            best, since_best, first = state["best"], state["since_best"], len(history["epochs"])
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            generator.set_state(state["generator"])
            print(f"{path}: going on after epoch {first}", flush=True)

    for epoch in range(first, config.epochs):
        if since_best >= config.patience:
            break
        started = time.perf_counter()
        pixels = size_at(epoch, config.epochs, size, config.start_share, workload.smallest_size)
        loss = _epoch(model, optimizer, training, pixels, epoch, config, splits["train"].mirrors, generator, dtype)
        top1, validation_loss = accuracy(model, *validation, size, dtype)
        row = {"train_loss": loss, "validation_loss": validation_loss, "validation_top1": top1, "size_px": pixels}
        history["epochs"].append({**row, "duration_s": time.perf_counter() - started})
        since_best += 1
        if top1 > best:
            best, since_best = top1, 0
            meta = {"config": description, "epoch": epoch + 1, "validation_top1": top1, "classes": splits["train"].classes}
            save_checkpoint(path, {"state_dict": model.state_dict(), "meta": meta})
        progress = {"history": json.dumps(history), "best": best, "since_best": since_best}
        states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "generator": generator.get_state()}
        save_checkpoint(resume_path, progress | states)
        print(
            f"{path.stem} epoch {epoch + 1}/{config.epochs} at {pixels} px: loss {loss:.3f}, "
            f"validation top-1 {top1:.1%}, {history['epochs'][-1]['duration_s']:.0f} s",
            flush=True,
        )

    load_into(model, path)
    test = splits["test"].stack(centre_edge(size)), torch.tensor(splits["test"].labels)
    top1, _ = accuracy(model, *test, size, dtype)
    history |= {"complete": True, "best_validation_top1": best, "test_top1": top1, "test_examples": len(test[1])}
    scratch = history_path.with_suffix(".json.part")
    scratch.write_text(json.dumps(history, indent=1))
    scratch.replace(history_path)
    resume_path.unlink(missing_ok=True)
    print(f"{path}: top-1 {top1:.1%} on {len(test[1])} test images", flush=True)
    return history


def centre_edge(size: int) -> int:
    """Edge to which an image is resized before the centre crop of ``size``."""
    return round(size * 256 / 224)


def _epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: tuple[Tensor, Tensor],
    size: int,
    epoch: int,
    config: TrainConfig,
    mirror: bool,
    generator: torch.Generator,
    dtype: torch.dtype,
) -> float:
    """One pass over the training images; returns the mean loss."""
    images, labels = data
    device = next(model.parameters()).device
    model.train()
    batches = [
        rows for rows in torch.randperm(len(images), generator=generator).split(config.batch_size) if len(rows) > 1
    ]  # batch norm cannot learn from a batch of one
    steps = len(batches)
    total = 0.0
    bar = tqdm(batches, desc=f"epoch {epoch + 1}/{config.epochs}", leave=False, disable=not sys.stderr.isatty())
    for step, rows in enumerate(bar):
        share = learning_rate(epoch * steps + step, config.epochs * steps, config.warmup_epochs * steps)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * share
        views = random_views(
            images[rows].to(device), size, mirror=mirror, smallest_area=config.smallest_area, generator=generator
        )
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = model(views.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), labels[rows].to(device), label_smoothing=config.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += float(loss.detach())
    return total / steps


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels only: on biases and batch norm it costs accuracy (1812.01187)."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _read_history(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content


def train_sizes(
    name: str, sizes: Sequence[int], choice: DataChoice, config: TrainConfig, fine_tune: TrainConfig,
    *, out: Path, init: Path | None, device: str,
) -> None:  # fmt: skip
    """Train the first size, then fine-tune its weights to each of the others."""
    workload = load_workload(name, choice)
    for size in sizes:
        if size < workload.smallest_size:
            raise SpeedproofError(f"--size {size}: {workload.name} needs at least {workload.smallest_size} px")
    first = best_weights_path(name, sizes[0], choice.name, out)
    for size in sizes:
        start = init if size == sizes[0] else first
        model = workload.build(size, None)
        if start is not None:
            load_into(model, start)
        origin = "as built" if start is None else start.name
        path = best_weights_path(name, size, choice.name, out)
        train(model, workload, size, config if size == sizes[0] else fine_tune, path, device=device, origin=origin)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m optim.train", description="Train a workload's model on its data.")
    parser.add_argument("--workload", required=True, metavar="NAME", help=f"one of {', '.join(workload_names())}")
    parser.add_argument("--size", type=int, nargs="+", default=[224], help="image sizes; the first one is trained first")
    parser.add_argument("--data", choices=DATA_NAMES, help="data set (digits, or folder where --data-dir is given)")
    parser.add_argument("--data-dir", type=Path, help="folder of images by class, with train and val or without")
    parser.add_argument("--out", type=Path, default=WEIGHTS_DIR, help="folder of the weights and histories (weights)")
    parser.add_argument("--init", type=Path, help="weights to start from instead of a random initialisation")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads (all usable cores)")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--fine-tune-epochs", type=int, default=FINE_TUNE["epochs"], help="epochs of each further size")
    for name, kind in (("epochs", int), ("batch-size", int), ("lr", float), ("patience", int), ("seed", int)):
        default = getattr(TrainConfig, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=kind, help=f"default {default}; digits have their own")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the weights are written, 2 for bad input, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    given = {
        name: value
        for name in ("epochs", "batch_size", "lr", "patience", "seed", "precision")
        if (value := getattr(options, name)) is not None
    }
    name = options.data or ("folder" if options.data_dir else "digits")
    config = replace(TrainConfig(**(DIGITS if name == "digits" else {})), **given)  # type: ignore[arg-type]
    fine_tune = replace(config, **{**FINE_TUNE, "epochs": options.fine_tune_epochs, "lr": config.lr / 5})  # type: ignore[arg-type]
    try:
        if options.threads is not None:
            if options.threads < 1:
                raise SpeedproofError(f"--threads {options.threads}: expected at least 1")
            torch.set_num_threads(options.threads)
        if options.device == "cuda" and not torch.cuda.is_available():
            raise SpeedproofError("--device cuda: this torch sees no GPU; use --device cpu")
        train_sizes(
            options.workload, options.size, DataChoice(name, options.data_dir), config, fine_tune,
            out=options.out, init=options.init, device=options.device,
        )  # fmt: skip
    except SpeedproofError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on after the last whole epoch", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

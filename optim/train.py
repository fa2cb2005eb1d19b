"""Train a workload's model, and fine-tune it to other image sizes.

1. The first size is trained from scratch, or from ``--init``; every further one starts from the first's best weights.
2. Resolution grows over the epochs (progressive learning, Tan & Le, 2104.00298): early epochs are cheap.
3. SGD with Nesterov momentum, one cosine cycle after a linear warm-up (1608.03983), smoothed labels.
4. The best epoch by validation accuracy is kept; training stops early when it has not improved for ``patience`` epochs.
5. A state beside the weights makes a killed run go on with the next epoch. The history goes into a JSON file.

On CPUs with bfloat16 arithmetic, and on GPUs, the forward pass is bfloat16 autocast in channels_last.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.data.images import DATA_NAMES, ImageSplit, centre_edge, target_indices
from models.errors import SpeedproofError
from models.weights import (
    WEIGHTS_DIR,
    best_weights_path,
    check_writable,
    load_into,
    read_checkpoint,
    save_checkpoint,
    save_json,
)
from models.workload import DataChoice, Workload, load_workload, workload_names
from optim.epoch import TrainConfig, accuracy, autocast_dtype, check_finite, parameter_groups, size_at, train_epoch

# Eight-pixel digits are learned in a few epochs; a smaller start keeps them under three minutes on two cores.
DIGITS = {"epochs": 7, "start_share": 0.15, "smallest_area": 0.7, "lr": 0.04}
FINE_TUNE = {"epochs": 3, "start_share": 1.0, "warmup_epochs": 0.3}


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
    description = {
        "workload": workload.name,
        "data": workload.data_name,
        "size": size,
        "origin": origin,
        **asdict(config),
    }
    splits = {split: workload.data(split, size) for split in ("train", "validation", "test")}
    if not all(isinstance(split, ImageSplit) for split in splits.values()):
        raise SpeedproofError(
            f"workload {workload.name} has no image data to train on: its data() must give an ImageSplit"
        )
    if len(splits["train"]) < 2:
        raise SpeedproofError(
            f"workload {workload.name} has {len(splits['train'])} training images: expected at least 2"
        )
    # What else decides the result: the same command over other images or from other weights is another run.
    facts = {"classes": splits["train"].classes, "train_images": len(splits["train"]), "start": _digest(model)}
    begun = _meta(path)
    begun_so = begun.get("config") == description and all(begun.get(key, fact) == fact for key, fact in facts.items())
    history = _read_json(history_path)
    if begun_so and history.get("complete") and history.get("config") == description:
        print(f"{path} is trained already: top-1 {history['test_top1']:.1%} on the test images", flush=True)
        load_into(model, path)
        return history

    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    targets = _targets(model, workload, splits["train"])
    edge = min(centre_edge(size), max(size, splits["train"].native_edge()))
    training = splits["train"].stack(edge), targets[list(splits["train"].labels)]
    validation = splits["validation"].stack(centre_edge(size)), targets[list(splits["validation"].labels)]

    generator = torch.Generator().manual_seed(config.seed)
    dtype = autocast_dtype(config.precision, device)
    optimizer = torch.optim.SGD(parameter_groups(model, config.weight_decay), config.lr, config.momentum, nesterov=True)
    history = {"config": description, "precision": str(dtype), "threads": torch.get_num_threads()}
    history |= {"complete": False, "epochs": []}
    best, since_best, first = -1.0, 0, 0
    state = _read_resume(resume_path) if begun_so else {}
    if state and json.loads(state["history"])["config"] == description:
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
        loss = train_epoch(model, optimizer, training, pixels, epoch, config, splits["train"].mirrors, generator, dtype)
        top1, validation_loss = accuracy(model, *validation, size, dtype)
        check_finite(validation_loss, epoch, config)
        row = {"train_loss": loss, "validation_loss": validation_loss, "validation_top1": top1, "size_px": pixels}
        history["epochs"].append({**row, "duration_s": time.perf_counter() - started})
        since_best += 1
        if top1 > best:
            best, since_best = top1, 0
            meta = {"config": description, "epoch": epoch + 1, "validation_top1": top1, **facts}
            history_path.unlink(missing_ok=True)  # it tells of the weights that are replaced now
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
    test = splits["test"].stack(centre_edge(size)), targets[list(splits["test"].labels)]
    top1, _ = accuracy(model, *test, size, dtype)
    history |= {"complete": True, "best_validation_top1": best, "test_top1": top1, "test_examples": len(test[1])}
    save_json(history_path, history)
    resume_path.unlink(missing_ok=True)
    print(f"{path}: top-1 {top1:.1%} on {len(test[1])} test images", flush=True)
    return history


def _targets(model: nn.Module, workload: Workload, data: ImageSplit) -> Tensor:
    """Which output of the model stands for each class of the data: int64 (classes,)."""
    example = data[0][0].unsqueeze(0).to(next(model.parameters()).device)
    with torch.inference_mode():
        outputs = model.eval()(example).shape[1]
    targets = target_indices(data.classes, outputs)
    if targets is None:
        raise SpeedproofError(
            f"workload {workload.name} has {outputs} outputs and its data {workload.data_name} "
            f"{len(data.classes)} classes: give --init with weights of as many classes, or other data"
        )
    return torch.from_numpy(targets)


def _digest(model: nn.Module) -> str:
    """What a model starts from."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _meta(path: Path) -> dict[str, Any]:
    """What weights say of themselves; nothing where they are missing or broken, and so have to be trained anew."""
    try:
        return read_checkpoint(path)[1]
    except SpeedproofError:
        return {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_resume(path: Path) -> dict[str, Any]:
    """The state of an interrupted run; nothing where there is none, or a broken one."""
    if not path.is_file():
        return {}
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file makes torch raise nearly everything
        print(f"{path} is broken ({type(error).__name__}): training starts anew", flush=True)
        return {}
    return state


def train_sizes(
    workload: Workload, sizes: Sequence[int], config: TrainConfig, fine_tune: TrainConfig,
    *, out: Path, init: Path | None, device: str,
) -> None:  # fmt: skip
    """Train the first size, then fine-tune its weights to each of the others."""
    config.check()
    for size in sizes:
        if size < workload.smallest_size:
            raise SpeedproofError(f"--size {size}: {workload.name} needs at least {workload.smallest_size} px")
    first = best_weights_path(workload.name, sizes[0], workload.data_name, out)
    check_writable(out)
    for size in sizes:
        start = init if size == sizes[0] else first
        model = workload.build(size, start)
        origin = "as built" if start is None else start.name
        path = best_weights_path(workload.name, size, workload.data_name, out)
        train(model, workload, size, config if size == sizes[0] else fine_tune, path, device=device, origin=origin)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m optim.train", description="Train a workload's model on its data.")
    add, usual = parser.add_argument, "cuda" if torch.cuda.is_available() else "cpu"
    known = ", ".join(workload_names())
    add("--workload", required=True, metavar="NAME", help=f"one of {known}, or pkg.module:OBJECT for your own")
    add(
        "--size", type=int, nargs="+", default=[224], metavar="PX", help="image sizes; the first is trained first (224)"
    )
    add("--data", choices=DATA_NAMES, help="data set (digits, or folder where --data-dir is given)")
    add("--data-dir", type=Path, metavar="DIR", help="folder of images by class, with train and val or without")
    add("--out", type=Path, metavar="DIR", default=WEIGHTS_DIR, help="folder of the weights and histories (weights)")
    add("--init", type=Path, metavar="FILE", help="weights to start from instead of a random initialisation")
    add("--device", choices=("cpu", "cuda"), default=usual, help="where to train (here: %(default)s)")
    add("--threads", type=int, metavar="N", help="CPU threads (all usable cores)")
    add("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="of the forward pass (auto)")
    add(
        "--fine-tune-epochs", type=int, metavar="N", default=FINE_TUNE["epochs"], help="epochs of each further size (3)"
    )
    for name, kind in (("epochs", int), ("batch_size", int), ("lr", float), ("patience", int), ("seed", int)):
        own = f", digits {DIGITS[name]}" if name in DIGITS else ""
        usage = f"default {getattr(TrainConfig, name)}{own}"
        add(f"--{name.replace('_', '-')}", type=kind, metavar="N" if kind is int else "RATE", help=usage)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the weights are written, 2 for bad input, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    given = {
        name: value
        for name in ("epochs", "batch_size", "lr", "patience", "seed", "precision")
        if (value := getattr(options, name)) is not None
    }
    try:
        if options.threads is not None:
            if options.threads < 1:
                raise SpeedproofError(f"--threads {options.threads}: expected at least 1")
            torch.set_num_threads(options.threads)
        if options.device == "cuda" and not torch.cuda.is_available():
            raise SpeedproofError("--device cuda: this torch sees no GPU; use --device cpu")
        if options.fine_tune_epochs < 1:
            raise SpeedproofError(f"--fine-tune-epochs {options.fine_tune_epochs}: expected at least 1")
        if options.data == "digits" and options.data_dir:
            raise SpeedproofError("--data-dir goes with --data folder or imagenette: digits come with scikit-learn")
        choice = DataChoice(options.data or ("folder" if options.data_dir else "digits"), options.data_dir)
        workload = load_workload(options.workload, choice)
        defaults: dict[str, Any] = DIGITS if workload.data_name == "digits" else {}
        config = TrainConfig(**(defaults | given))
        fine_tuning: dict[str, Any] = FINE_TUNE | {"epochs": options.fine_tune_epochs, "lr": config.lr / 5}
        fine_tune = replace(config, **fine_tuning)
        train_sizes(
            workload, options.size, config, fine_tune, out=options.out, init=options.init, device=options.device
        )
    except SpeedproofError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on after the last whole epoch", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

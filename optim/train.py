"""Train a workload's model on its data; one of images is fine-tuned to other sizes too.

1. The first size is trained from scratch, or from ``--init``; every further one of images starts from the first's best
   weights. Speech and chats have one length.
2. The resolution of images grows over the epochs (progressive learning, Tan & Le, 2104.00298): early epochs are cheap.
3. SGD with Nesterov momentum and smoothed labels, for speech and chats Adam; one cosine cycle after a linear warm-up
   (1608.03983).
4. The best epoch by the validation score (top-1 accuracy, ROC AUC, or next-character accuracy) is kept; training stops
   early when it has not improved for ``patience`` epochs.
5. A state beside the weights makes a killed run go on with the next epoch. The history goes into a JSON file, the
   arrays of a tinychat into an ``.npz`` too.

On CPUs with bfloat16 arithmetic, and on GPUs, the forward pass of images is bfloat16 autocast in channels_last; that
of speech and chats is float32.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from models.chat_file import save_npz
from models.command import run
from models.errors import SpeedproofError
from models.files import check_writable, save_json
from models.tinychat import Tinychat
from models.weights import (
    WEIGHTS_DIR,
    best_weights_path,
    load_into,
    read_checkpoint,
    save_checkpoint,
    spotter_path,
    tinychat_path,
)
from models.workload import Workload, load_workload, workload_names
from optim.chat import ChatData
from optim.command import (
    SCHEDULE_USAGES,
    add_data_options,
    add_fields,
    check_data,
    data_choice,
    schedule,
    trained_as,
    use_machine,
    usual_size,
)
from optim.fit import best_epoch, cross_entropy, fit, weights_digest
from optim.images import ImageData
from optim.kinds import kind_of, load_data, score_on_test, splits_of
from optim.saved import sizes_of
from optim.schedule import TrainConfig, described
from optim.speech import SpeechData

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
    """Train ``model`` in place at ``size``, write the best weights to ``path`` and return the training history.

    A finished run of the same configuration is not repeated; an interrupted one goes on after its last whole epoch.
    Raises SpeedproofError where the workload has no data to train on or the weights cannot be written.
    """
    config.check()
    history_path = path.with_suffix(".json")
    description = {
        "workload": workload.name,
        "data": workload.data_name,
        "size": size,
        "origin": origin,
        **described(config),
    }
    training, kind = splits_of(workload, size)["train"], kind_of(workload, size)
    score, classes = kind.score, kind.classes_of(training)
    # What else decides the result: the same command over other examples or from other weights is another run.
    facts = {"classes": classes, f"train_{score.examples}": len(training), "start": weights_digest(model)}
    begun = _meta(path)
    begun_so = begun.get("config") == description and all(begun.get(key, fact) == fact for key, fact in facts.items())
    history = _read_json(history_path)
    if begun_so and history.get("complete") and history.get("config") == description:
        said = score.said(history[f"test_{score.key}"])
        print(f"{path} is trained already: {said} on the test {score.examples}", flush=True)
        load_into(model, path)
        return history

    model.to(device)

    def keep(epoch: int, validation: float) -> None:
        made = {"workload": workload.spec or workload.name, "config": description, **facts, **sizes_of(model)}
        meta = {**made, "epoch": epoch + 1, f"validation_{score.key}": validation}
        history_path.unlink(missing_ok=True)  # it tells of the weights that are replaced now
        save_checkpoint(path, {"state_dict": model.state_dict(), "meta": meta})

    resume_path = path.with_suffix(".resume")
    found = fit(
        model, load_data(model, workload, size), size, config, cross_entropy(config.label_smoothing), name=path.stem,
        identity={"config": description, **facts}, smallest_size=workload.smallest_size, resume_path=resume_path,
        on_best=keep,
    )  # fmt: skip
    # The file may have been lost while the run was interrupted.
    keep(best_epoch(found, score.key), found[f"best_validation_{score.key}"])
    tested, examples = score_on_test(model, workload, size, config.precision)
    history = {
        "config": description, **found, "complete": True, f"test_{score.key}": tested, "test_examples": examples
    }  # fmt: skip
    save_json(history_path, history)
    resume_path.unlink(missing_ok=True)
    print(f"{path}: {score.said(tested)} on {examples} test {score.examples}", flush=True)
    return history


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


def trained_path(workload: Workload, size: int, folder: Path) -> Path:
    """Where the best weights of a workload are kept. Raises SpeedproofError where it has no data to train on."""
    kind = kind_of(workload, size)
    if kind is SpeechData:
        return spotter_path(workload.name, workload.data_name, folder)
    if kind is ChatData:
        return tinychat_path(workload.name, workload.data_name, folder)
    return best_weights_path(workload.name, size, workload.data_name, folder)


def train_sizes(
    workload: Workload, sizes: Sequence[int], config: TrainConfig, fine_tune: TrainConfig,
    *, out: Path, init: Path | None, device: str,
) -> None:  # fmt: skip
    """Train the first size, then fine-tune its weights to each of the others.

    Raises SpeedproofError for a size below the smallest, and for a length of speech or text other than the workload's
    first, since all lengths share one file of weights.
    """
    config.check()
    for size in sizes:
        workload.check_size(size)
    usual, kind = workload.sizes[0], kind_of(workload, sizes[0])
    if kind is not ImageData and set(sizes) != {usual}:
        examples = "clips" if kind is SpeechData else "queries"
        raise SpeedproofError(
            f"--size {' '.join(map(str, sizes))}: {workload.name} is trained on {examples} of {usual} "
            f"{workload.size_unit}, the one length that its weights are kept for; leave it out"
        )
    first = trained_path(workload, sizes[0], out)
    check_writable(out)
    for size in sizes:
        start = init if size == sizes[0] else first
        model = workload.build(size, start)
        origin = "as built" if start is None else start.name
        train(
            model,
            workload,
            size,
            config if size == sizes[0] else fine_tune,
            trained_path(workload, size, out),
            device=device,
            origin=origin,
        )
        if isinstance(model, Tinychat):
            save_npz(trained_path(workload, size, out).with_suffix(".npz"), model)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m optim.train", description="Train a workload's model on its data.")
    add = parser.add_argument
    known = ", ".join(workload_names())
    add("--workload", required=True, metavar="NAME", help=f"one of {known}, or pkg.module:OBJECT for your own")
    add(
        "--size", type=int, nargs="+", metavar="N",
        help="px of images, ms of speech, chars of text; the first is trained first (224, or the workload's first)",
    )  # fmt: skip
    add_data_options(parser)
    add("--out", type=Path, metavar="DIR", default=WEIGHTS_DIR, help="folder of the weights and histories (weights)")
    add("--init", type=Path, metavar="FILE", help="weights to start from instead of a random initialisation")
    add(
        "--fine-tune-epochs", type=int, metavar="N", default=FINE_TUNE["epochs"], help="epochs of each further size (3)"
    )
    add_fields(parser, TrainConfig, SCHEDULE_USAGES)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the weights are written, 2 for bad input, 130 when interrupted."""
    options = _parser().parse_args(arguments)

    def body() -> None:
        use_machine(options)
        if options.fine_tune_epochs < 1:
            raise SpeedproofError(f"--fine-tune-epochs {options.fine_tune_epochs}: expected at least 1")
        workload = load_workload(options.workload, data_choice(options))
        check_data(options, workload)
        if options.workload != trained_as(workload):
            raise SpeedproofError(f"--workload {workload.name}: train {trained_as(workload)}, whose weights it has")
        sizes = options.size or [usual_size(workload)]
        config = TrainConfig(**schedule(options, SCHEDULE_USAGES, workload, sizes[0]))
        fine_tuning: dict[str, Any] = FINE_TUNE | {"epochs": options.fine_tune_epochs, "lr": config.lr / 5}
        train_sizes(
            workload, sizes, config, replace(config, **fine_tuning), out=options.out, init=options.init,
            device=options.device,
        )  # fmt: skip

    return run(body)


if __name__ == "__main__":
    sys.exit(main())

"""What the commands of ``optim`` share: options, the models they name, and errors of one sentence."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.data.chat import OWN
from models.data.images import DATA_NAMES
from models.errors import SpeedproofError
from models.files import check_writable
from models.integer import IntegerTinychat
from models.integer_files import INTEGER, integer_of
from models.kws import check_word, word_in
from models.tinychat import TextTinychat
from models.weights import read_checkpoint
from models.workload import SUBJECTS, DataChoice, Workload, known_workload, load_workload, workload_names
from optim.backends.base import QUANTIZATION
from optim.chat import ChatData
from optim.kinds import kind_of
from optim.schedule import CHAT, DIGITS, SPEECH
from optim.speech import SpeechData

# Options that go with one subject alone.
_SUBJECT_OF = {
    "masking": "speech", "speed": "speech", "start_share": "images", "end_share": "images", "teacher_size": "images",
    "unlabeled": "images",
}  # fmt: skip

# What the options of a training schedule, fields of `TrainConfig`, are for.
SCHEDULE_USAGES = {
    "epochs": "passes over the data (digits: 7, tinychat: 50)",
    "batch_size": "examples a step (speech: 128, tinychat: 32)",
    "lr": "peak learning rate (digits: 0.04, speech: 0.002, tinychat: 0.001)",
    "warmup_epochs": "epochs over which the rate rises to its peak (tinychat: 20)",
    "optimizer": "sgd or adam (speech, tinychat: adam)",
    "clip_norm": "largest norm of the gradient, 0: any (speech: 5)",
    "patience": "epochs without a better score on validation before it stops (speech: 20, tinychat: 50)",
    "start_share": "images: resolution of the first epoch, as a share of the size (digits: 0.15)",
    "end_share": "images: resolution of the last epochs, as a share of the size",
    "masking": "speech: how much of the spectrum is masked, a share of SpecAugment's 15 bands and 35 frames",
    "speed": "speech: clips are heard up to this share faster or slower, 0.15 for instance",
    "seed": "of the order and the views of the examples",
    "precision": "of the forward pass: auto, fp32 or bf16",
}


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Declare which data, and what to compute on."""
    add, usual = parser.add_argument, "cuda" if torch.cuda.is_available() else "cpu"
    add(
        "--data", choices=(*DATA_NAMES, OWN),
        help=f"data set of images (digits, or folder where --data-dir is given); tinychat: {OWN}, to leave z80ai's out",
    )  # fmt: skip
    add(
        "--data-dir", type=Path, metavar="DIR",
        help="images by class, with train and val or without; or clips by word; or a corpus of query|answer lines",
    )  # fmt: skip
    add("--keyword", metavar="WORD", help="speech: the word that is to be spotted (sheila)")
    add("--device", choices=("cpu", "cuda"), default=usual, help="where to compute (here: %(default)s)")
    add("--threads", type=int, metavar="N", help="CPU threads (all usable cores)")


def add_fields(parser: argparse.ArgumentParser, config: type, usages: Mapping[str, str]) -> None:
    """Declare an option for each named field of a config class, with its default in the help."""
    known = {field.name: field.default for field in fields(config)}
    for name, usage in usages.items():
        default, option = known[name], f"--{name.replace('_', '-')}"
        if isinstance(default, bool):
            parser.add_argument(option, action="store_true", default=None, help=usage)
            continue
        kind = str if default is None else type(default)
        metavar = {int: "N", float: "X", str: "NAME"}[kind]
        words = "" if default is None else f" ({default:g})" if isinstance(default, float) else f" ({default})"
        parser.add_argument(option, type=kind, metavar=metavar, help=f"{usage}{words}".replace("%", "%%"))


def given(options: argparse.Namespace, names: Mapping[str, str]) -> dict[str, Any]:
    """The fields that the command line set."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def data_choice(options: argparse.Namespace) -> DataChoice:
    """The data set that the options name."""
    if options.data == OWN and options.data_dir:
        raise SpeedproofError(f"--data-dir {options.data_dir} is another corpus than --data {OWN}: leave one out")
    if options.data == "digits" and options.data_dir:
        raise SpeedproofError("--data-dir goes with --data folder or imagenette: digits come with scikit-learn")
    name = options.data or ("digits" if not options.data_dir else _kind_of(options.data_dir))
    return DataChoice(name, options.data_dir, options.keyword or "")


def _kind_of(folder: Path) -> str:
    """Imagenette's own folder is known by its name, so that its weights are found again."""
    return "imagenette" if folder.name.startswith("imagenette2") else "folder"


def check_data(options: argparse.Namespace, workload: Workload) -> None:
    """Raise SpeedproofError for options about data that the workload would not look at."""
    subject = SUBJECTS.get(workload.size_unit, "images")
    if options.keyword is not None and subject != "speech":
        raise SpeedproofError(f"--keyword {options.keyword}: {workload.name} is not about speech; leave it out")
    if options.data is not None and subject == "speech":
        raise SpeedproofError(
            f"--data {options.data}: {workload.name} is about speech; give --keyword, or --data-dir with clips of yours"
        )
    if options.data not in (None, OWN) and subject == "chats":
        raise SpeedproofError(
            f"--data {options.data}: {workload.name} is about chats; give {OWN}, or --data-dir with a corpus of yours"
        )


def usual_size(workload: Workload) -> int:
    """The size that is meant where none is given: 224 px where the workload has it, else its first."""
    return 224 if 224 in workload.sizes else workload.sizes[0]


def chosen_size(size: int | None, workload: Workload) -> int:
    """The size that was given, else the usual one."""
    return usual_size(workload) if size is None else size


def usual_schedule(workload: Workload, size: int) -> Mapping[str, Any]:
    """The fields of `TrainConfig` for which a workload's data want another value than its default."""
    if workload.data_name == "digits":
        return DIGITS
    return {SpeechData: SPEECH, ChatData: CHAT}.get(kind_of(workload, size), {})


def schedule(options: argparse.Namespace, names: Mapping[str, str], workload: Workload, size: int) -> dict[str, Any]:
    """The named fields of a schedule: what the command line set, else what the workload's data want.

    Raises SpeedproofError for a size below the smallest, and for options that such data have no use for.
    """
    workload.check_size(size)
    found = given(options, names)
    subject = SUBJECTS[kind_of(workload, size).score.unit]
    for name in found:
        if (wanted := _SUBJECT_OF.get(name, subject)) != subject:
            raise SpeedproofError(f"--{name.replace('_', '-')} goes with {wanted}; {workload.name} is about {subject}")
    return {**usual_schedule(workload, size), **found}


def use_machine(options: argparse.Namespace) -> None:
    """Take the device and the threads that the options name."""
    if options.threads is not None:
        if options.threads < 1:
            raise SpeedproofError(f"--threads {options.threads}: expected at least 1")
        torch.set_num_threads(options.threads)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SpeedproofError("--device cuda: this torch sees no GPU; use --device cpu")


def load_model(
    spec: str, data: DataChoice, size: int | None, option: str, *, fresh: bool = False, trained: bool = False
) -> tuple[nn.Module, Workload]:
    """The model that a weights file or a workload's name stands for, in eval mode, and its workload.

    ``size`` is what it is built for, None: the workload's usual one.
    A file says its workload itself; one of others is matched with the registered workloads by its tensors' names. A
    name stands for its best trained weights or, when ``fresh``, for the model as its author makes it. Raises
    SpeedproofError for what is no model, or too small a size, and, when it has to be ``trained``, for a registered
    workload without weights.
    """
    if known_workload(spec):
        workload = load_workload(spec, data)
        size = chosen_size(size, workload)
        workload.check_size(size)
        weights = workload.weights(size)
        if trained and weights.path is None and not weights.own:
            raise SpeedproofError(
                f"{option} {spec}: no trained weights for {workload.data_name}; train them with "
                f"`python -m optim.train --workload {trained_as(workload)}` on these data, or give a weights file"
            )
        return workload.build(size, None if fresh else weights.path), workload
    path = Path(spec)
    if not path.exists():
        raise SpeedproofError(
            f"{option} {spec}: neither a weights file nor one of {', '.join(workload_names())}, nor a student such as "
            f"kws_channels4_gru16 or tinychat_hidden128x96x64, nor pkg.module:OBJECT"
        )
    state, meta = read_checkpoint(path)
    named = meta.get("workload") or (meta.get("config") or {}).get("workload")
    if named is None:
        named = next((name for name in workload_names() if _fits(name, data, size, state)), None)
    if named is None:
        raise SpeedproofError(
            f"{option} {path}: its tensors fit none of {', '.join(workload_names())}; for a model of your own "
            f"give pkg.module:OBJECT"
        )
    workload = load_workload(named, data)
    check_word(meta, word_in(workload.data_name), f"{option} {path}")
    size = chosen_size(size, workload)
    workload.check_size(size)
    if QUANTIZATION in meta:
        from optim.quantize import rebuild

        return rebuild(workload.build(size, None), workload, state, meta), workload
    if INTEGER in meta:
        return IntegerTinychat(integer_of(state, meta, str(path))).eval(), workload
    return workload.build(size, path), workload


def check_float(model: nn.Module, named: str) -> None:
    """Raise SpeedproofError for a network of tinychat in integers, or with its encoding: methods work on neither.

    ``named`` is the option and what was given to it.
    """
    if isinstance(model, IntegerTinychat):
        raise SpeedproofError(f"{named} is a network in integers, which no method trains: give the float network")
    if isinstance(model, TextTinychat):
        raise SpeedproofError(f"{named} is a network behind its encoding: give tinychat, or a file of it, instead")


def trained_as(workload: Workload) -> str:
    """The workload that is trained for its weights: ``kws`` for ``kws_waveform`` and ``kws_streaming``, else itself.

    ``tinychat`` it is for ``tinychat_text``.
    """
    return workload.spec or re.sub(r"^(?:(kws)_(?:waveform|streaming)|(tinychat)_text)(?=_|$)", r"\1\2", workload.name)


def _fits(name: str, data: DataChoice, size: int | None, state: Mapping[str, object]) -> bool:
    own: Mapping[str, object] = {}
    with contextlib.suppress(SpeedproofError):  # its data are not on this machine
        workload = load_workload(name, data)
        own = workload.build(chosen_size(size, workload), None).state_dict()
    return {key for key in own if "num_batches" not in key} == {key for key in state if "num_batches" not in key}


def check_save_path(path: Path, option: str = "--save-path", such_as: str = "model.pt") -> None:
    """Raise SpeedproofError where the result could not be written, before any work is done."""
    if path.is_dir():
        raise SpeedproofError(f"{option} {path}: this is a folder; give a file, such as {path / such_as}")
    check_writable(path.parent)


def quality_digits(value: float) -> int:
    """Decimals of a quality in per cent: next to 100 %, where models differ by hundredths of a point, one more."""
    return 2 if 0.99 <= value < 1 else 1


def megabytes(size_bytes: float) -> str:
    """A size in MB with three significant digits: small networks have thousandths of one."""
    size = size_bytes / 1e6
    return f"{size:.3g}" if size < 999.5 else f"{size:.0f}"

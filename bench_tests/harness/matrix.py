"""The command line of the matrix, and the cases it asks for. Unknown names and impossible values are one sentence."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

from bench_tests.harness.case import Case, Settings
from bench_tests.harness.fingerprint import check_threads
from bench_tests.harness.record import ORIGINAL
from models.data.chat import OWN
from models.data.images import DATA_NAMES
from models.data.speech import SYNTHETIC
from models.errors import SpeedproofError
from models.workload import SUBJECTS, DataChoice, Workload, load_workload, workload_names
from optim.backends import FIRMWARE, backend_names, load_backend
from optim.backends.base import PRECISIONS, Target
from optim.backends.cache import check_writable
from optim.recipe import RECIPES, Recipe, load_recipe

# The experiments, and the workloads that each takes where none is named.
EXPERIMENTS: Mapping[str, tuple[str, ...]] = {
    "test_inference.py": ("resnet18",),
    "test_methods.py": ("resnet18",),
    "test_kws.py": ("kws", "kws_waveform"),
    "test_streaming.py": ("kws_streaming",),
    "test_tinychat.py": ("tinychat", "tinychat_text"),
    "test_firmware.py": ("tinychat_text",),
}
_SUBJECT_OF = {SYNTHETIC: "speech", OWN: "chats"}  # of data sets; the others are of images
_INSTEAD = {
    "images": f"one of {', '.join(DATA_NAMES)}",
    "speech": f"--keyword, --data-dir for a copy of yours, or {SYNTHETIC}",
    "chats": f"nothing, --data-dir for a corpus of yours, or {OWN}",
}


@dataclass(frozen=True)
class Matrix:
    """What the command line asked for; None leaves sizes and batches to each workload."""

    workloads: tuple[str, ...]
    backends: tuple[str, ...]
    precisions: tuple[str, ...]
    recipes: tuple[str, ...]
    sizes: tuple[int, ...] | None
    batches: tuple[int, ...] | None
    settings: Settings


def add_options(parser: Any) -> None:
    """Declare the options on pytest's parser."""
    group = parser.getgroup("speedproof", "Speedproof: the matrix workload x backend x precision x size x batch")
    add = group.addoption
    add(
        "--workload",
        default=None,
        metavar="NAMES",
        help=f"comma-separated: {', '.join(workload_names())}, or pkg.module:OBJECT for your own (resnet18; those of "
        "the experiment that is named)",
    )
    add(
        "--backend",
        default="all",
        metavar="NAMES",
        help=f"comma-separated: all, {', '.join(backend_names())}, or pkg.module:OBJECT for your own (all, which are "
        f"{' and '.join(FIRMWARE)} for test_firmware.py, and the others for the others)",
    )
    add(
        "--precision",
        default="fp32,bf16",
        metavar="NAMES",
        help=f"comma-separated: {', '.join(PRECISIONS)} (fp32,bf16)",
    )
    add(
        "--recipe",
        default=None,
        metavar="NAMES",
        help=f"comma-separated: {', '.join(RECIPES)}, a weights file that a method wrote, or pkg.module:OBJECT "
        "(original; test_methods.py: all that are for any model; test_firmware.py: those that end in integers)",
    )
    add(
        "--size",
        default=None,
        metavar="SIZES",
        help="comma-separated: px of images, ms of speech, chars of text (the workload's own)",
    )
    add("--batch", default=None, metavar="COUNTS", help="comma-separated batch sizes (the workload's own)")
    add("--threads", default=None, metavar="COUNT", help="CPU threads of every pool (all usable cores, at most 8)")
    add("--device", default="cpu", metavar="NAME", help="cpu or cuda (cpu)")
    add(
        "--data",
        default=None,
        metavar="NAME",
        help=f"data set: {', '.join(DATA_NAMES)} (digits, or folder with --data-dir); speech: {SYNTHETIC}, to leave "
        f"real clips out; tinychat: {OWN}, to leave z80ai's out",
    )
    add(
        "--data-dir",
        default=None,
        metavar="FOLDER",
        help="a folder of images by class, or of clips by word, or a corpus of query|answer lines",
    )
    add("--keyword", dest="spotted", default=None, metavar="WORD", help="speech: the word to be spotted (sheila)")
    add("--weights", default=None, metavar="FILE", help="weights for the workload (the best trained ones of its size)")
    add("--examples", default="128", metavar="COUNT", help="examples on which quality is judged, or all (128)")
    add("--budget", default="4", metavar="SECONDS", help="timed calls a case, both sides together (4)")
    add("--case-timeout", default="900", metavar="SECONDS", help="after which a case counts as hung (900)")
    add("--seed", default="0", metavar="NUMBER", help="seed of the inputs and of the order of blocks (0)")


def read_options(option: argparse.Namespace) -> Matrix:
    """Check the options and load what they name. Raises SpeedproofError with one sentence."""
    data_dir = Path(option.data_dir) if option.data_dir else None
    data = _one_of("--data", option.data or ("folder" if data_dir else "digits"), (*DATA_NAMES, SYNTHETIC, OWN))
    device = _one_of("--device", option.device, ("cpu", "cuda"))
    if device == "cuda" and not torch.cuda.is_available():
        raise SpeedproofError("--device cuda: this torch sees no GPU; use --device cpu, or install the gpu group")
    threads = _default_threads() if option.threads is None else _number("--threads", option.threads)
    check_threads(threads)
    if (option.data or data_dir) and ":" in (option.workload or ""):
        raise SpeedproofError("--data and --data-dir: a workload of your own brings its data itself; leave them out")
    if data == "digits" and data_dir is not None:
        raise SpeedproofError(f"--data-dir {data_dir}: digits come with scikit-learn; leave it out or ask for folder")
    weights = Path(option.weights) if option.weights else None
    choice = DataChoice(data, data_dir, option.spotted or "")
    with _naming("--workload"):
        loaded = {spec: load_workload(spec, choice) for spec in _workloads(option)}
    _check_names(loaded)
    _check_data(loaded, option)
    backends = _usual_backends(option) if option.backend == "all" else _names("--backend", option.backend)
    with _naming("--backend"):
        for name in backends:
            load_backend(name)
    precisions = tuple(
        _one_of("--precision", name, tuple(PRECISIONS)) for name in _names("--precision", option.precision)
    )
    recipes: dict[str, Recipe] = {}
    for name in _names("--recipe", option.recipe or ",".join(_usual_recipes(option))):
        with _naming("--recipe"):
            recipe = load_recipe(name)
        if recipe.name in (known.name for known in recipes.values()):
            raise SpeedproofError(f"--recipe {name}: another one is called {recipe.name} too; rename the file")
        recipes[name] = recipe
    _check_experiments(
        [workload.name for workload in loaded.values()], backends, [recipe.name for recipe in recipes.values()], option
    )
    sizes = None if option.size is None else _numbers("--size", option.size)
    batches = None if option.batch is None else _numbers("--batch", option.batch)
    for workload in loaded.values():
        for size in sizes or ():
            workload.check_size(size)
    if weights is not None:  # a file that does not fit is one sentence now, not one a case
        for workload in loaded.values():
            with _naming("--weights"):
                workload.build((sizes or workload.sizes)[0], weights)
    check_writable()
    settings = Settings(
        device=device, threads=threads, data=choice, weights=weights,
        specs={workload.name: spec for spec, workload in loaded.items() if workload.name != spec},
        recipes={recipe.name: spec for spec, recipe in recipes.items() if recipe.name != spec},
        examples=None if option.examples == "all" else _number("--examples", option.examples),
        budget_s=_seconds("--budget", option.budget), timeout_s=_seconds("--case-timeout", option.case_timeout),
        seed=_number("--seed", option.seed, smallest=0),
    )  # fmt: skip
    names = tuple(recipe.name for recipe in recipes.values())
    return Matrix(tuple(w.name for w in loaded.values()), tuple(backends), precisions, names, sizes, batches, settings)


def experiments(option: argparse.Namespace) -> frozenset[str]:
    """The files of `EXPERIMENTS` that are asked for by name; else methods where a recipe is named, else inference."""
    files = {Path(str(name).partition("::")[0]).name for name in getattr(option, "file_or_dir", ())}
    usual = "test_inference.py" if option.recipe is None else "test_methods.py"
    return frozenset(files & EXPERIMENTS.keys()) or frozenset({usual})


def methods_asked(option: argparse.Namespace) -> bool:
    """Whether the run is of methods, and not of the original models."""
    return option.recipe is not None or "test_methods.py" in experiments(option)


def _workloads(option: argparse.Namespace) -> tuple[str, ...]:
    """The workloads that are named; else those of the experiments."""
    if option.workload is not None:
        return _names("--workload", option.workload)
    return tuple(dict.fromkeys(name for file in sorted(experiments(option)) for name in EXPERIMENTS[file]))


def _usual_backends(option: argparse.Namespace) -> tuple[str, ...]:
    """All backends but those of firmware, or these alone, or both: as the experiments need."""
    asked = experiments(option)
    computers = () if asked == {"test_firmware.py"} else backend_names()
    return computers + (FIRMWARE if "test_firmware.py" in asked else ())


def _usual_recipes(option: argparse.Namespace) -> tuple[str, ...]:
    """The recipes where none is named."""
    asked = experiments(option)
    if "test_methods.py" in asked:
        return tuple(name for name, recipe in RECIPES.items() if recipe.model is None)
    integers = tuple(name for name, recipe in RECIPES.items() if recipe.model == "tinychat" and recipe.quantized)
    return (() if asked == {"test_firmware.py"} else (ORIGINAL,)) + (integers if "test_firmware.py" in asked else ())


def is_for(experiment: str, workload: str, backend: str = "", recipe: str = "") -> bool:
    """Whether an experiment, one of `EXPERIMENTS`, measures a workload, on a backend, of a recipe, by their names."""
    if experiment == "test_firmware.py" or backend in FIRMWARE:
        on_chip = experiment == "test_firmware.py" and backend in ("", *FIRMWARE) and recipe != ORIGINAL
        return on_chip and workload.startswith("tinychat_text")
    streaming = workload.startswith("kws_streaming")
    kinds = {
        "test_streaming.py": streaming,
        "test_kws.py": workload.startswith("kws") and not streaming,
        "test_tinychat.py": workload.startswith("tinychat"),
    }
    return kinds.get(experiment, True)


def _check_experiments(
    workloads: Sequence[str], backends: Sequence[str], recipes: Sequence[str], option: argparse.Namespace
) -> None:
    """Refuse an experiment that would measure nothing."""
    for experiment in sorted(experiments(option)):
        fitting = [name for name in workloads if is_for(experiment, name)]
        if not fitting:
            raise SpeedproofError(
                f"--workload {','.join(workloads)}: {experiment} is not made for it, but for "
                f"{', '.join(EXPERIMENTS[experiment])} and students of theirs; leave the option or the file out"
            )
        if not any(is_for(experiment, *cell) for cell in product(fitting, backends, recipes)):
            raise SpeedproofError(
                f"--backend {option.backend} and --recipe {option.recipe or 'original'}: nothing is left of "
                f"{experiment}; {' and '.join(FIRMWARE)} go with test_firmware.py alone, and with recipes that end in "
                f"integers"
            )


def _check_data(loaded: Mapping[str, Workload], option: argparse.Namespace) -> None:
    """Refuse options that the workloads would not look at, or that only some of them have data for."""
    subjects = {name: SUBJECTS[workload.size_unit] for name, workload in loaded.items() if ":" not in name}
    if option.spotted is not None and "speech" not in subjects.values():
        raise SpeedproofError(f"--keyword {option.spotted}: none of {', '.join(loaded)} is about speech; leave it out")
    if option.data in _SUBJECT_OF and (option.spotted or option.data_dir):
        raise SpeedproofError(f"--data {option.data} is complete as it is; leave --keyword and --data-dir out")
    if option.data is None:
        return
    wanted = _SUBJECT_OF.get(option.data, "images")
    for name, subject in subjects.items():
        if subject != wanted:
            raise SpeedproofError(
                f"--data {option.data} is of {wanted}, and {name} is about {subject}: give {_INSTEAD[subject]}"
            )


def cases(matrix: Matrix) -> Iterator[tuple[Case, str | None]]:
    """Every case, ordered so that neighbours share inputs and oracle; and why it cannot run here, one case a reason.

    A backend that cannot run a precision here stands in the list once, not once for every size and batch.
    """
    settings = matrix.settings
    target = Target(settings.device, settings.threads)
    for name in matrix.workloads:
        workload = load_workload(settings.specs.get(name, name), settings.data)
        told: set[tuple[str, str]] = set()
        quantized = {name for name in matrix.recipes if load_recipe(settings.recipes.get(name, name)).quantized}
        for size, batch, recipe in product(
            matrix.sizes or workload.sizes, matrix.batches or workload.batches, matrix.recipes
        ):
            for backend, precision in product(matrix.backends, matrix.precisions):
                reason = load_backend(backend).missing(precision, target)
                if reason is None and recipe in quantized and precision != "fp32":
                    reason = f"recipe {recipe} is quantized: what it leaves in float runs in fp32 only"
                if reason is None or (backend, reason) not in told:
                    cell = precision, size, batch, settings.threads, recipe, workload.size_unit
                    yield Case(name, workload.data_name, backend, *cell), reason
                if reason is not None:
                    told.add((backend, reason))


def _default_threads() -> int:
    return min(8, torch.get_num_threads())


@contextlib.contextmanager
def _naming(option: str) -> Iterator[None]:
    """Begin the sentence of an error with the option that it is about."""
    try:
        yield
    except SpeedproofError as error:
        raise SpeedproofError(str(error) if str(error).startswith("--") else f"{option}: {error}") from error


def _check_names(loaded: Mapping[str, Workload]) -> None:
    """Names make a case's id, which tells cases apart and names files."""
    specs: dict[str, str] = {}
    for spec, workload in loaded.items():
        for name in (workload.name, workload.data_name):
            if not re.fullmatch("[A-Za-z0-9_.]+", name):
                raise SpeedproofError(f"--workload {spec}: its name {name!r} may have letters, digits, _ and . only")
        if workload.name in specs:
            raise SpeedproofError(
                f"--workload {spec}: {specs[workload.name]} is called {workload.name} too; give one another name"
            )
        specs[workload.name] = spec


def _names(option: str, text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise SpeedproofError(f"{option} {text!r}: expected at least one, separated by commas")
    return names


def _numbers(option: str, text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_number(option, part) for part in _names(option, text)))


def _one_of(option: str, name: str, known: Sequence[str]) -> str:
    if name not in known:
        raise SpeedproofError(f"{option} {name}: expected one of {', '.join(known)}")
    return name


def _number(option: str, text: str, smallest: int = 1) -> int:
    try:
        number = int(text)
    except ValueError:
        number = smallest - 1
    if number < smallest:
        raise SpeedproofError(f"{option} {text}: expected a whole number of at least {smallest}")
    return number


def _seconds(option: str, text: str) -> float:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise SpeedproofError(f"{option} {text}: expected seconds above 0, such as 15 or 15s")
    return seconds

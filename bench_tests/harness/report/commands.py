"""The commands that a report prints, made of a group's own names: to measure, to profile, to train.

What of a group's data no record keeps, the folder of a data set of one's own, is read back from the run's command.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from bench_tests.harness.record import ORIGINAL
from bench_tests.harness.report.document import Block, Listing, Paragraph, Sentence
from bench_tests.harness.report.material import Entry, Group, StoredRun

Values = Sequence[int | str]
_SIZES = {"px": (128, 224, 320), "ms": (10, 100, 1000)}
_BATCHES = (1, 2, 4, 8, 16)
_NAMED_DATA = ("imagenette", "own_sentences")  # by --data; digits and z80ai are taken unnamed
_SYNTHETIC = "synthetic_tones"  # only pytest takes it by --data; the others use it where there are no clips
_SHARED = {"kws_waveform": "kws", "kws_streaming": "kws", "tinychat_text": "tinychat"}  # weights are trained as these
_BACKENDS = {"cpu": ("eager", "inductor", "onnxruntime", "openvino"), "cuda": ("eager", "inductor", "tensorrt")}


def lacking(sentence: Sentence, command: str) -> tuple[Block, ...]:
    """A note on what is missing, and the command that supplies it."""
    return Paragraph(sentence, "note"), Listing(command)


def measure(
    group: Group,
    *,
    at: Entry | None = None,
    sizes: Values = (),
    batches: Values = (),
    backends: Values = (),
    precisions: Values = (),
    recipes: Values = (),
    examples: str = "",
) -> str:
    """A run of more cases of a group's workload; what is left empty stays as the experiment has it.

    ``at`` names the size and the batch of an entry.
    """
    sizes, batches = ((at.size,), (at.batch,)) if at is not None else (sizes, batches)
    file = experiment(group.workload, in_cycles=group.in_cycles, with_recipes=bool(recipes))
    words = ["pytest", file, *measured_subject(group.workload, group.data, group.newest)]
    lists = {"size": sizes, "batch": batches, "backend": backends, "precision": precisions, "recipe": recipes}
    for option, values in lists.items():
        if values:
            words += [f"--{option}", ",".join(str(value) for value in values)]
    words += ["--threads", str(group.threads), *(["--device", group.device] if group.device != "cpu" else [])]
    words += ["--examples", examples] if examples else []
    return shlex.join([*words, "--benchmark-json", "run.json"])


def profile(group: Group, size: int, batch: int) -> str:
    """A per-layer profile of a group's workload."""
    words = ["python", "-m", "bench_tests.profile", *subject(group.workload, group.data, group.newest)]
    words += ["--size", str(size), "--batch", str(batch)]
    words += ["--threads", str(group.threads), *(["--device", group.device] if group.device != "cpu" else [])]
    return shlex.join([*words, "--json", "profile.json"])


def train(group: Group, sizes: str = "") -> str:
    """A training of the weights that a workload uses, for sizes separated by spaces; for its usual one without any."""
    words = ["python", "-m", "optim.train"]
    words += subject(_SHARED.get(group.workload, group.workload), group.data, group.newest)
    return shlex.join([*words, *(["--size", *sizes.split()] if sizes else [])])


def experiment(workload: str, *, in_cycles: bool, with_recipes: bool) -> str:
    """The file of the experiment that measures a workload, as `bench_tests.harness.matrix` divides them."""
    if in_cycles:
        return "bench_tests/test_firmware.py"
    for prefix, file in (("kws_streaming", "streaming"), ("kws", "kws"), ("tinychat", "tinychat")):
        if workload.startswith(prefix):
            return f"bench_tests/test_{file}.py"
    return "bench_tests/test_methods.py" if with_recipes else "bench_tests"


def subject(workload: str, data: str, run: StoredRun) -> list[str]:
    """The options that name a workload, as it is loaded, and its data, by the name that records give them."""
    spec = run.asked_for.get("workload", "")
    if ":" in spec and "," not in spec:
        workload = spec
    words = ["--workload", workload]
    if ":" in workload:  # of one's own: it brings its data itself
        return words
    if data in _NAMED_DATA:
        return [*words, "--data", data]
    folder = asked(run, "--data-dir")
    if data.startswith("speech_"):  # speech_<keyword>, then the folder and a hash where it is not the usual one
        words += ["--keyword", data.split("_")[1]]
    if data.startswith("folder_"):
        folder = folder or data.removeprefix("folder_")
    return [*words, "--data-dir", folder] if folder else words


def measured_subject(workload: str, data: str, run: StoredRun) -> list[str]:
    """The same for pytest, which takes the synthetic clips by their name."""
    words = subject(workload, data, run)
    return [*words, "--data", data] if data == _SYNTHETIC and ":" not in words[1] else words


def asked(run: StoredRun, option: str) -> str:
    """What a run's command gave for an option; empty where it did not name it."""
    try:
        words = shlex.split(run.command)
    except ValueError:
        return ""
    for at, word in enumerate(words):
        if word == option and at + 1 < len(words):
            return words[at + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return ""


def one_size_only(group: Group) -> bool:
    """Whether a workload takes inputs of one size: whole clips, and queries."""
    return group.workload.startswith(("kws", "tinychat")) and not group.workload.startswith("kws_streaming")


def more_sizes(group: Group) -> list[int]:
    """The sizes of a sweep, those of the group among them."""
    return sorted({*_SIZES.get(group.unit, ()), *group.sizes})


def more_batches(group: Group) -> list[int]:
    """The batches of a sweep, twice and four times the largest of the group among them."""
    largest = group.batches[-1]
    return sorted({*_BATCHES, *group.batches, *((2 * largest, 4 * largest) if largest >= _BATCHES[-1] else ())})


def other_backends(group: Group) -> list[str]:
    """The backends of a group's device that were not asked for yet."""
    known = () if group.in_cycles else _BACKENDS.get(group.device, ())
    measured = {entry.variant.backend for entry in group.entries}
    return [backend for backend in known if backend not in measured and not _tried(group, backend)]


def other_precisions(group: Group) -> list[str]:
    """The float precisions that are worth a try and that no original was measured in."""
    measured = {entry.variant.precision for entry in group.entries if entry.variant.recipe == ORIGINAL}
    known = () if group.in_cycles else ("fp32", "bf16") if group.device == "cpu" else ("fp32", "bf16", "fp16")
    return [precision for precision in known if precision not in measured]


def other_recipes(group: Group) -> list[str]:
    """The recipes of the project that are for a group's workload and that it has not."""
    if group.in_cycles:
        known = ["tinychat_pruned_2bit", "tinychat_2bit", "tinychat_1bit"]
    elif group.workload.startswith("kws_streaming"):
        known = []  # test_streaming.py compares with the offline form, which what a recipe makes has not
    elif group.workload.startswith("kws"):
        known = ["kws_smallest"]
    elif group.workload.startswith("tinychat"):
        known = ["tinychat_pruned"]
    else:
        own = ":" in group.newest.asked_for.get("workload", "")
        known = ["int8"] if own else ["int8", "channels50", "combined"]
    return [recipe for recipe in known if not any(recipe in had for had in group.recipes) and not _tried(group, recipe)]


def _tried(group: Group, name: str) -> bool:
    """Whether a case with this recipe or backend was asked for, and failed or was skipped."""
    runs = {id(entry.run): entry.run for entry in group.entries}.values()
    prefix = f"{group.workload}-{group.data}-"
    cases = [row["case"] for run in runs for row in run.not_measured if row["case"].startswith(prefix)]
    return any(f"-{name}-" in case for case in cases)

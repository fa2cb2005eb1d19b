"""How to repeat what a report tells: commits, environments, data, and the very commands."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench_tests.harness.record import ORIGINAL
from bench_tests.harness.report import commands
from bench_tests.harness.report.document import Block, Code, Listing, Paragraph, Section, joined, say
from bench_tests.harness.report.material import Entry, Group, Material, StoredRun
from bench_tests.harness.report.phrases import named
from bench_tests.harness.report.sections.hyperparameters import commanded

_FETCHED = {"imagenette": "imagenette", "speech": "speech"}
_ABSOLUTE = re.compile(r"(?<![^,=])/(?:[^,/]+/)+([^,/]+)")


def repeating(material: Material) -> Section:
    """Steps from an empty folder to this report."""
    blocks: list[Block] = []
    for run in material.runs:
        entries = [entry for entry in material.entries if entry.run is run]
        blocks += _run(run, entries)
    for training in material.trainings:
        if training.commands:
            blocks += [
                Paragraph(say("{name} was made beforehand, by", name=Code(training.name))),
                Listing("\n".join(training.commands)),
            ]
    blocks += [
        Paragraph(say("This report is made from the files that were written, by")),
        Listing(shlex.join(["python", "-m", "bench_tests.report", *_files(material), "-o", "report"])),
        Paragraph(
            say(
                "Seeds fix inputs, the order of blocks, calibration images and trainings. Times vary with the machine "
                "and from process to process; the intervals say by how much within a run."
            )
        ),
    ]
    return Section("repeating", "How to repeat it", (*_environment(material), *blocks))


def _environment(material: Material) -> Iterable[Block]:
    gpu = any(run.hardware.get("gpu_name") for run in material.runs)
    lines = [f"python -m pip install -e '.[{'gpu' if gpu else 'cpu'},dev]'"]
    data = dict.fromkeys(group.data for group in material.groups)
    fetched = dict.fromkeys(_FETCHED[name.partition("_")[0]] for name in data if name.partition("_")[0] in _FETCHED)
    lines += [f"python -m models.data fetch {name}" for name in fetched]
    if any(group.in_cycles for group in material.groups):
        lines.append("apt install gcc gcc-avr avr-libc simavr libsimavr-dev libelf-dev")
    yield Paragraph(say(
        "In a checkout of the commit that stands beside each run, with Python 3.11 or newer ({tox} makes an "
        "environment of its own, and runs the main job in it):",
        tox=Code(f"python -m tox -e {'gpu' if gpu else 'cpu'}"),
    ))  # fmt: skip
    yield Listing("\n".join(lines))
    yield from _weights(material)
    if any(name.startswith("z80ai") for name in data):
        yield Paragraph(say(
            "The corpus z80ai-tinychat is not fetched: it stands in the folder that {variable} names.",
            variable=Code("SPEEDPROOF_DATA"),
        ))  # fmt: skip


def _weights(material: Material) -> Iterable[Block]:
    """How weights come about that are not at hand."""
    taught = {training.name for training in material.trainings if "optim.distill" in commanded(training)}
    trained: list[str] = []
    distilled: list[str] = []
    for group in material.groups:
        files = [entry.text_of("weights") for entry in group.entries]
        stems = {Path(file).stem for file in files if file.endswith((".pt", ".pth"))}
        distilled += sorted(stems & taught)
        trained += [_training(group)] if stems - taught else []
    if trained:
        yield Paragraph(
            say("Weights that the repository keeps lie in {folder}; others are trained by", folder=Code("weights/"))
        )
        yield Listing("\n".join(dict.fromkeys(trained)))
    if distilled:
        words = "{names} learned from a teacher ({command}), with the hyperparameters that stand above."
        yield Paragraph(say(words, names=named(distilled), command=Code("python -m optim.distill")))


def _training(group: Group) -> str:
    """The command that trains a group's weights; only images have several sizes."""
    own = {entry.size for entry in group.entries if entry.record.get("weights_own")}
    return commands.train(group, " ".join(map(str, sorted(own))) if group.unit == "px" else "")


def _run(run: StoredRun, entries: Sequence[Entry]) -> Iterable[Block]:
    commit = run.commit.removesuffix("-dirty")
    dirty = run.commit.endswith("-dirty")
    affinity = run.hardware.get("affinity")
    where = [
        say("with {policy}", policy=Code(f"OMP_WAIT_POLICY={policy}"))
        for policy in [run.hardware.get("omp_wait_policy")]
        if policy and policy != "default"
    ]
    if isinstance(affinity, list | tuple) and affinity:
        cores = ",".join(str(core) for core in affinity)
        where.append(say("on {cores}", cores=Code(f"taskset -c {cores}")))
    command = portable(run.command or rebuilt(run, entries))
    seeds = sorted({int(seed) for entry in entries if (seed := entry.number_of("seed")) is not None})
    yield Paragraph(say(
        "{file}{commit}{dirty}{where}{seed}{rebuilt}:",
        file=Code(run.file.name),
        commit=say(", commit {commit}", commit=Code(commit)) if commit else ", of a tree that was no repository",
        dirty=" with tracked files changed, so that the checkout may differ from what ran" if dirty else "",
        where=say(", {where}", where=joined(where)) if where else "",
        seed=f", seed {', '.join(map(str, seeds))}" if seeds else "",
        rebuilt="" if run.command else "; the run keeps no command, and this one is rebuilt from what its records say",
    ))  # fmt: skip
    if not command:
        yield Paragraph(say("It holds no case to rebuild its command from."), kind="note")
        return
    yield Listing(f"git checkout {shlex.quote(commit)}\n{command}" if commit else command)


def portable(command: str) -> str:
    """A command without where it stored its run, and absolute paths cut to their last part: others have neither."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quote without its end
        return command
    kept: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        if "--benchmark-storage" not in (before, word.partition("=")[0]):
            kept.append(_ABSOLUTE.sub(r"\1", word))
    return shlex.join(kept)


def rebuilt(run: StoredRun, entries: Sequence[Entry]) -> str:
    """A command that asks for the cases of a run, from what was asked for and from its records; empty without any."""
    if not entries:
        return ""
    asked = {name: value for name, value in run.asked_for.items() if value and value != "None"}
    found = {
        name: asked.get(name, ",".join(dict.fromkeys(str(entry.record[name]) for entry in entries)))
        for name in ("workload", "backend", "precision", "size", "batch", "recipe")
    }
    first = entries[0].record
    file = commands.experiment(
        str(first["workload"]),
        in_cycles=any(entry.record["clock"] == "cycles" for entry in entries),
        with_recipes=any(entry.variant.recipe != ORIGINAL for entry in entries),
    )
    words = ["pytest", file, *commands.measured_subject(found.pop("workload"), str(first["data"]), run)]
    for name, value in found.items():
        if name != "recipe" or value not in (ORIGINAL, "methods"):
            words += [f"--{name}", value]
    words += ["--threads", str(first["threads"])]
    examples = {int(count) for entry in entries if (count := entry.number_of("quality_examples")) is not None}
    if len(examples) == 1:
        words += ["--examples", str(examples.pop())]
    if any(entry.number_of("seed") for entry in entries):
        words += ["--seed", str(int(entries[0].number_of("seed") or 0))]
    return shlex.join([*words, "--benchmark-json", run.file.name])


def _files(material: Material) -> list[str]:
    """The files of the material, below the working directory by their path, others by their name."""
    here = Path.cwd()
    files = [run.file for run in material.runs]
    files += [profile.file for profile in material.profiles]
    files += [training.file for training in material.trainings]
    return [
        file.name if file.is_absolute() and not file.is_relative_to(here) else os.path.relpath(file, here)
        for file in files
    ]

"""The methodology: environment, data, weights, recipes with their hyperparameters, measuring, metrics, repeating."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from bench_tests.harness.record import Value
from bench_tests.harness.report.document import (
    NOTHING,
    Block,
    Cell,
    Column,
    Paragraph,
    Row,
    Section,
    Table,
    say,
)  # fmt: skip
from bench_tests.harness.report.material import Entry, Material, StoredRun
from bench_tests.harness.report.phrases import counted, differences, named, ranged
from bench_tests.harness.report.sections.hyperparameters import followed, parameter_tables, recipes_made
from bench_tests.harness.report.sections.measuring import measuring
from bench_tests.harness.report.sections.metrics import metrics
from bench_tests.harness.report.sections.repeating import repeating
from bench_tests.harness.report.sections.training_table import trainings_table

_SETTINGS = {
    "device": "device", "threads": "threads", "examples": "examples that quality is judged on",
    "budget_s": "budget of timed calls a case, s", "timeout_s": "a case counts as hung after, s",
    "seed": "seed of inputs and of the order of blocks",
}  # fmt: skip


def methodology(material: Material) -> Section:
    """How everything in the report came about, and how to do it again."""
    parts = [
        Section("environment", "Environment", tuple(_environment(material))),
        Section("data", "Data and weights", tuple(_data(material))),
    ]
    recipes = followed(material)
    if recipes or material.trainings:
        told = [recipe for recipe in recipes if recipe.told]
        blocks: list[Block] = [recipes_made(told), *parameter_tables(told)] if told else []
        silent = named(recipe.name for recipe in recipes if not recipe.told)
        if silent:
            blocks.append(
                Paragraph(say("Of {names} the records do not tell how they were made.", names=silent), "note")
            )
        if material.trainings:
            blocks.append(trainings_table(material.trainings))
        parts.append(Section("hyperparameters", "Recipes and hyperparameters", tuple(blocks)))
    if material.runs:
        parts.append(Section("settings", "Parameters of the runs", tuple(_settings(material))))
    if material.entries:
        parts += [measuring(material), Section("metrics", "Metrics", (metrics(material),))]
    parts.append(repeating(material))
    words = say(
        "What decides whether a figure can be believed: the machine, the data, what each method did, how each figure "
        "was measured, and how to measure it again."
    )
    return Section("methodology", "Methodology", (Paragraph(words),), tuple(parts))


def _names(material: Material) -> dict[str, StoredRun]:
    """The runs by short and unique names: that of the file, numbered where it is not unique."""
    found: dict[str, StoredRun] = {}
    for number, run in enumerate(material.runs, 1):
        found[run.file.stem if run.file.stem not in found else f"{run.file.stem} ({number})"] = run
    return found


def _environment(material: Material) -> Iterable[Block]:
    runs = _names(material)
    if not runs:
        yield Paragraph(say("No run was given."), kind="note")
        return
    columns = (
        Column("run", "run", numeric=False), Column("when", "when (UTC)", numeric=False),
        Column("commit", "commit", numeric=False), Column("cpu", "CPU", numeric=False),
        Column("cores", "cores"), Column("affinity", "affinity", numeric=False), Column("threads", "threads"),
        Column("omp_wait_policy", "OMP policy", numeric=False), Column("quota_cores", "quota, cores"),
        Column("gpu", "GPU", numeric=False), Column("cases", "cases"), Column("without_a_number", "without a number"),
    )  # fmt: skip
    rows = tuple(Row(tuple(_machine(material, name, run))) for name, run in runs.items())
    note = say(
        "A commit marked dirty had tracked files changed. OMP policy: passive threads sleep while they wait, and "
        "disturb nothing that is measured beside them. Hardware, cores, threads and policy make the fingerprint, by "
        "which histories are kept: figures of different ones stand in no line or ratio together."
    )
    yield Table("environment", "Runs and machines", columns, rows, note)
    versions = {name: run.versions for name, run in runs.items() if run.versions}
    plain = {name: {key: value for key, value in found.items() if key != "commit"} for name, found in versions.items()}
    if plain:
        yield differences(
            "versions", "Versions and precision flags", plain, ("name", "value", "runs"),
            say("Flags are those of torch.backends under which fp32 could mean less than 24 bits."),
        )  # fmt: skip
    else:
        yield Paragraph(say("These runs keep no versions of their software."), kind="note")


def _machine(material: Material, name: str, run: StoredRun) -> Iterable[Cell]:
    hardware, affinity = run.hardware, run.hardware.get("affinity")
    cases = sum(entry.run is run for entry in material.entries)
    cpu = " ".join(str(hardware.get(key) or "") for key in ("cpu_model", "cpu_revision")).strip()
    texts = (name, run.when[:16].replace("T", " "), run.commit, cpu or run.fingerprint)
    yield from (Cell(text, text) if text else NOTHING for text in texts)
    yield _cell(hardware.get("cores_used"))
    yield _cell(", ".join(map(str, affinity)) if isinstance(affinity, list | tuple) else None)
    yield _cell(hardware.get("threads"))
    yield _cell(hardware.get("omp_wait_policy"))
    yield _cell(hardware.get("cpu_quota") or ("none" if hardware else None))
    yield _cell(hardware.get("gpu_name") or ("none" if hardware else None))
    yield _cell(cases)
    yield _cell(len(run.not_measured))


def _cell(value: object) -> Cell:
    if isinstance(value, bool | int | float | str) and value != "":
        return Cell(str(value), value)
    return NOTHING


def _data(material: Material) -> Iterable[Block]:
    columns = (
        Column("model", "model", numeric=False), Column("data", "data", numeric=False),
        Column("split", "split", numeric=False), Column("examples", "judged on", numeric=False),
        Column("sizes", "sizes", numeric=False), Column("weights", "weights", numeric=False),
        Column("own", "trained at this size", numeric=False),
    )  # fmt: skip
    rows: dict[tuple[str, ...], Row] = {}
    for group in material.groups:
        by_weights: dict[tuple[str, Value | None], list[Entry]] = defaultdict(list)
        for entry in group.entries:
            by_weights[entry.text_of("weights"), entry.record.get("weights_own")].append(entry)
        for (file, own), members in by_weights.items():
            sizes = sorted({entry.size for entry in members})
            counts = [count for entry in members if (count := entry.number_of("quality_examples")) is not None]
            texts = (
                group.workload, group.data, members[0].text_of("split"), ranged(counts),
                f"{', '.join(map(str, sizes))} {group.unit}", file, {True: "yes", False: "no"}.get(bool(own), ""),
            )  # fmt: skip
            rows.setdefault(
                texts, Row(tuple(Cell(text, text) if text else NOTHING for text in texts), members[0].number)
            )
    if not rows:
        yield Paragraph(say("No case was measured, so no data were used."), kind="note")
        return
    note = say(
        "By the data sets' splits no example of the test took part in a training, a calibration or the choice of an "
        "epoch here; of tinychat's few queries alone the validation is the test too, so that its best epoch's figure "
        "is a little too good. Weights that were not trained at the size are the nearest ones, or drawn at random."
    )
    yield Table("data", "Data and weights", columns, tuple(rows.values()), note)
    if any(group.data == "imagenette" for group in material.groups) and _knows_imagenet(material):
        yield Paragraph(say(
            "EfficientNet-Lite0's weights were trained on ImageNet, of which Imagenette is a part: the images of the "
            "test may have been among them, so that its own quality here may be too good, and with it that of "
            "networks that it taught. Changes of quality between ways of running one network do not suffer from that."
        ), kind="note")  # fmt: skip
    foreign = sum(entry.record.get("weights_own") is False for entry in material.entries)
    if foreign:
        yield Paragraph(say(
            "In {records} the weights are not of the size at which they run: the quality is not what a training at "
            "that size would give, while times do not depend on it.",
            records=counted(foreign, "record"),
        ), kind="note")  # fmt: skip


def _knows_imagenet(material: Material) -> bool:
    """Whether a network that was trained on ImageNet runs here, or taught one that does."""
    told = [group.workload for group in material.groups]
    told += [str(word) for training in material.trainings for word in (*training.commands, *training.facts.values())]
    return any("efficientnet_lite0" in words for words in told)


def _settings(material: Material) -> Iterable[Block]:
    runs = _names(material)
    told = {
        name: {words: "all" if key == "examples" and run.settings[key] is None else run.settings[key]
               for key, words in _SETTINGS.items() if key in run.settings}
        for name, run in runs.items() if run.settings
    }  # fmt: skip
    if told:
        yield differences("settings", "Parameters of the runs", told, ("parameter", "value", "runs"))
    silent = [name for name in runs if name not in told]
    if silent:
        yield Paragraph(say(
            "{runs} keep no settings; their records tell seed, threads and examples, and the number of blocks that the "
            "budget came to.",
            runs=", ".join(silent),
        ))  # fmt: skip

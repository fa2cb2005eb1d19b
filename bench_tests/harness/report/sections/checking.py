"""How parity, quality and coverage are checked before a case is timed, with the figures of these records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from bench_tests.harness.record import ORIGINAL
from bench_tests.harness.report.digits import is_share
from bench_tests.harness.report.document import (
    NOTHING,
    Block,
    Cell,
    Column,
    Items,
    Paragraph,
    Row,
    Sentence,
    Table,
    say,
)  # fmt: skip
from bench_tests.harness.report.material import Entry, Material
from bench_tests.harness.report.phrases import counted, ranged
from bench_tests.harness.report.picks import tolerated
from bench_tests.harness.report.sections.fitting import coverage as ran

# The small terms and factors of `bench_tests.harness.parity`, which imports torch: largest, r.m.s. and gain.
TOLERANCES: Mapping[str, tuple[float, float, float, float]] = {
    "fp32": (2.0, 2e-5, 1e-5, 1e-5),
    "bf16": (2.0, 4e-3, 1e-3, 2e-3),
    "fp16": (2.0, 5e-4, 1e-4, 3e-4),
    "int8": (3.0, 1e-2, 3e-3, 2e-3),
}
Entries = Sequence[Entry]


def numbers(entries: Entries, name: str) -> list[float]:
    """All values of a name that the records have."""
    return [value for entry in entries if (value := entry.number_of(name)) is not None]


def real_and_random(entries: Entries) -> bool:
    """Whether inputs are real ones and random ones in turn, as those of the workloads that come along are."""
    ours = ("resnet", "efficientnet", "kws", "tinychat")
    return all(entry.text_of("workload").startswith(ours) for entry in entries)


def quality(material: Material, entries: Entries) -> Iterable[Block]:
    """On what each case is judged, and which intervals its qualities have."""
    judged = [entry for entry in entries if entry.quality is not None]
    if not judged:
        yield Paragraph(say("No record was judged on examples: it has no data with labels."), kind="note")
        return
    names = list(dict.fromkeys(entry.quality_name for entry in judged))
    counts = ranged(numbers(judged, "quality_examples"))
    yield Paragraph(say(
        "Quality is judged on the compiled model itself, on {counts} test examples, before the clock starts; the first "
        "one ({names}) decides whether a case is timed. Its change is paired: the original answered the same examples.",
        counts=counts or "the", names=", ".join(names),
    ))  # fmt: skip
    items: list[Sentence] = []
    if "top1" in names or "next_char" in names:
        items.append(say(
            "Shares of right answers have Wilson's interval, and their changes that of Agresti and Min for matched "
            "proportions: of n examples only those count that one side has right and the other wrong."
        ))  # fmt: skip
    if "roc_auc" in names:
        items.append(say(
            "ROC AUC has a bootstrap interval over speakers, since clips of one voice succeed and fail together; its "
            "change has Student's interval over each clip's influence on the figure, as DeLong's variance is."
        ))  # fmt: skip
    items.append(say(
        "Agreement is the share of examples that get the same answer as from the original, right or wrong: it shows "
        "changes that cancel in the quality."
    ))  # fmt: skip
    bounds: dict[str, str] = {}
    for group in material.groups:
        found = [entry for entry in group.entries if entry.quality is not None]
        bound = tolerated(found)
        if bound is not None:
            bounds[group.workload] = _points(bound, found[0])
    if bounds:
        told = ", ".join(f"{bound} for {name}" for name, bound in bounds.items())
        items.append(say("A drop beyond {told}, or beyond the case's row in expectations.yaml, fails it.", told=told))
    yield Items(tuple(items))


def _points(drop: float, entry: Entry) -> str:
    """A tolerated drop as it was stated, in points where the quality is a share, else in its own unit."""
    if not is_share(entry):
        return f"{drop:g}"
    return f"{100 * drop:g} point{'' if 100 * drop == 1 else 's'}"


def _kind(entry: Entry) -> str:
    return "int8" if entry.text_of("peak_precision") == "int8" else entry.variant.precision


def parity(wall: Entries, cycles: Entries) -> Iterable[Block]:
    """What outputs are compared with, what is allowed, and the largest errors that were found."""
    checked = [entry for entry in wall if entry.number_of("parity_largest_error") is not None]
    exact = [entry for entry in cycles if entry.record.get("parity_bits_equal")]
    if checked:
        yield Paragraph(say(
            "Outputs for several inputs in turn{kinds}, so that a stale buffer cannot pass, are compared with those of "
            "the same module in float64, or in its own type where it cannot be converted. Errors are relative to the "
            "root mean square of the right outputs, in three respects: the largest one shows a wrong value anywhere, "
            "the root mean square a slight error everywhere, and the gain, the slope of outputs over right outputs "
            "less one, a factor that rounding would hide. Twice eager PyTorch's own error in the same precision is "
            "allowed, plus a small term. A quantized module is its own oracle, in float32, and may be off by three "
            "times what it is off itself when its inputs move by a thousandth. NaN, infinity and a later call that "
            "changes an earlier output fail.",
            kinds=", real and random ones" if real_and_random(checked) else "",
        ))  # fmt: skip
        yield _parity_table(checked)
    if exact:
        yield Paragraph(say(
            "Firmware must equal the integer reference bit for bit, in every logit: {cases} did.",
            cases=counted(len(exact), "case"),
        ))  # fmt: skip
    if not checked and not exact:
        yield Paragraph(say("These records are too old to tell their errors."), kind="note")


def _parity_table(entries: Entries) -> Table:
    by_kind: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_kind[_kind(entry)].append(entry)
    respects = ("largest", "rms", "gain")
    columns = [Column("precision", "precision", numeric=False), Column("cases", "cases")]
    for respect, label in zip(respects, ("largest", "r.m.s.", "gain"), strict=True):
        columns += [Column(f"{respect}_error", f"{label}, found"), Column(f"{respect}_term", f"{label}, small term")]
    rows = []
    for kind, found in by_kind.items():
        cells = [Cell(kind, kind), Cell(str(len(found)), len(found))]
        for respect, term in zip(respects, TOLERANCES.get(kind, (0.0,) * 4)[1:], strict=True):
            most = max(numbers(found, f"parity_{respect}_error"), default=None)
            cells += [
                NOTHING if most is None else Cell(f"{most:.1e}", most),
                Cell(f"{term:.0e}", term) if term else NOTHING,
            ]
        worst = max(found, key=lambda entry: entry.number_of("parity_largest_error") or 0.0)
        rows.append(Row(tuple(cells), record=worst.number))
    note = say(
        "Found: the most of any case. What is allowed is eager's own error, twice or, of int8, three times, and the "
        "small term."
    )
    return Table("parity", "The largest errors of these records", tuple(columns), tuple(rows), note)


def coverage(entries: Entries) -> Iterable[Block]:
    """How it is known what ran where, and how many operators did."""
    yield Paragraph(say(
        "What ran is read back from the runtime and not assumed. A backend that falls back to another device, "
        "precision or runtime fails the case, and a model that is to compute in int8 must have run operators in int8."
    ))  # fmt: skip
    found: dict[tuple[str, str, str, str], list[tuple[int, Entry]]] = defaultdict(list)
    for entry in entries:
        recipe = "original" if entry.variant.recipe == ORIGINAL else "recipes"
        for key, number in ran(entry).items():
            found[entry.variant.backend, entry.variant.precision, recipe, key].append((number, entry))
    columns = (
        Column("backend", "backend", numeric=False), Column("precision", "precision", numeric=False),
        Column("of", "of", numeric=False), Column("ran", "ran on, in", numeric=False),
        Column("cases", "cases"), Column("operators", "operators a call", numeric=False),
    )  # fmt: skip
    rows = tuple(
        Row(
            (
                *(Cell(text, text) for text in key),
                Cell(str(len(members)), len(members)),
                Cell(ranged(number for number, _ in members), ranged(number for number, _ in members)),
            ),
            record=max(members, key=lambda member: member[0])[1].number,
        )
        for key, members in found.items()
    )
    if rows:
        note = say("Operators on integers and bytes beside those of the precision handle shapes, indices and masks.")
        yield Table("coverage", "How many operators ran where", columns, rows, note)

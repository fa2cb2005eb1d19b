"""What a report is made from: stored runs and their records, per-layer profiles, histories of trainings.

Only records of one workload, data set, machine and way of using it may stand in one line of a figure or be compared in
a sentence: a `Group`.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from bench_tests.harness.record import ORIGINAL, Record, Value
from bench_tests.harness.report.document import slug


@dataclass(frozen=True)
class StoredRun:
    """A file that pytest-benchmark wrote, and what the harness added to it; empty where an older one has it not."""

    file: Path
    when: str  # ISO 8601
    commit: str  # marked -dirty where tracked files differed
    fingerprint: str  # the folder's name
    hardware: Mapping[str, Any]  # fields of Fingerprint
    versions: Mapping[str, str]
    command: str
    settings: Mapping[str, Any]
    workloads: Mapping[str, Mapping[str, Any]]  # task, scenario, platform, tolerated_drop of each
    asked_for: Mapping[str, str]
    not_measured: tuple[Mapping[str, str], ...]  # case, status, reason


# Of PyTorch's own time against its median over the same size and batch. Between quiet rows it drifts by up to 10 %.
DISTURBED = 0.15


class Interval(NamedTuple):
    """An estimate and what holds it in 95 %; the same thrice where there is no interval."""

    value: float
    low: float
    high: float


class Variant(NamedTuple):
    """A way of running a model: what a reader chooses between."""

    recipe: str
    backend: str
    precision: str

    @property
    def label(self) -> str:
        """``openvino bf16``, and before it the recipe, where there is one: ``int8 on openvino``."""
        where = self.backend if self.precision == "fp32" else f"{self.backend} {self.precision}"
        return where if self.recipe == ORIGINAL else f"{self.recipe} on {where}"


@dataclass(frozen=True)
class Entry:
    """A record, and where it stands: ``number`` in the report, ``line`` in the file of its run.

    ``disturbance`` is by what share PyTorch's own time beside it is off the median of its size and batch; it is known
    in a group only.
    """

    number: int
    record: Record
    run: StoredRun
    line: int
    disturbance: float = 0.0

    @property
    def disturbed(self) -> bool:
        """Whether the machine was at other work: a ratio taken then is not to be trusted as its interval says."""
        return abs(self.disturbance) > DISTURBED

    def number_of(self, name: str) -> float | None:
        """A value as a float; None where the record has none."""
        value = self.record.get(name)
        return None if value is None or isinstance(value, str) else float(value)

    def text_of(self, name: str) -> str:
        """A value as text; empty where the record has none."""
        return str(self.record.get(name, ""))

    @property
    def case(self) -> str:
        """The case's id."""
        return str(self.record["case"])

    @cached_property
    def variant(self) -> Variant:
        """Recipe, backend and precision."""
        return Variant(*(str(self.record[name]) for name in Variant._fields))

    @cached_property
    def size(self) -> int:
        """In the group's unit."""
        return int(self.record["size"])

    @cached_property
    def batch(self) -> int:
        """Examples a call."""
        return int(self.record["batch"])

    @property
    def call_s(self) -> float:
        """The latency: seconds of a call, mean without the fastest and the slowest 10 %."""
        return float(self.record["trimmed_mean_s"])

    @cached_property
    def fps(self) -> Interval:
        """Examples a second; the interval is one standard deviation of the blocks on either side of the time."""
        spread, fastest = float(self.record.get("stddev_s", 0.0)), float(self.record.get("minimum_s", self.call_s))
        shortest = min(max(self.call_s - spread, fastest), self.call_s)
        return Interval(float(self.record["fps"]), self.batch / (self.call_s + spread), self.batch / shortest)

    @cached_property
    def speedup(self) -> Interval:
        """Over PyTorch eager fp32 of the original model, in pairs; of cycles over the plain engine."""
        return Interval(*(float(self.record[f"speedup{end}"]) for end in ("", "_low", "_high")))

    @property
    def quality_name(self) -> str:
        """The first quality, empty where none was judged."""
        name = self.text_of("quality")
        return name if f"quality_{name}" in self.record else ""

    @property
    def quality(self) -> Interval | None:
        """The first quality, as a share; None where none was judged."""
        name = f"quality_{self.quality_name}"
        if name not in self.record:
            return None
        value = float(self.record[name])
        return Interval(value, *(float(self.record.get(f"{name}_{end}", value)) for end in ("low", "high")))

    @property
    def drop(self) -> Interval | None:
        """By how much the first quality is below the original's, in its own unit; None where none was judged."""
        value = self.number_of("quality_drop")
        if value is None:
            return None
        low, high = (self.number_of(f"quality_drop_{end}") for end in ("low", "high"))
        return Interval(value, value if low is None else low, value if high is None else high)

    @property
    def lossless(self) -> bool:
        """Whether it is the original model in fp32."""
        return self.variant.recipe == ORIGINAL and self.variant.precision == "fp32"

    @property
    def recipe_made(self) -> Mapping[str, Any]:
        """What the record says of how its recipe was made: student, teacher, file, steps; empty where it is silent."""
        try:
            told = json.loads(self.text_of("recipe_steps") or "{}")
        except (ValueError, RecursionError):
            return {}
        return told if isinstance(told, dict) else {}

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The methods of its recipe with their configs, in order; empty for the original."""
        steps = self.recipe_made.get("steps")
        return [dict(step) for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []


@dataclass(frozen=True)
class Group:
    """Records that may be compared: of one workload and data set, one machine, and so many threads."""

    workload: str
    data: str
    fingerprint: str
    device: str
    clock: str  # wall, or cycles of a simulated chip, which are exact
    threads: int
    unit: str  # of the size: px, ms or chars
    entries: tuple[Entry, ...]  # the newest of each case
    among: str = ""  # what tells it from another group of the same words: the machine

    @property
    def slug(self) -> str:
        """Unique and short, safe in a file name and an anchor, the same for the same place."""
        place = (self.workload, self.data, self.fingerprint, self.device, self.clock, self.threads, self.unit)
        return slug(f"{self.workload}-{self.data}", place)

    @property
    def synthetic(self) -> bool:
        """Whether its data are made up."""
        return "synthetic" in self.data

    @property
    def in_cycles(self) -> bool:
        """Whether its records count cycles."""
        return self.clock == "cycles"

    @property
    def newest(self) -> StoredRun:
        """The run of its newest record."""
        return max(self.entries, key=lambda entry: entry.run.when).run

    @property
    def sizes(self) -> list[int]:
        """Sorted."""
        return sorted({entry.size for entry in self.entries})

    @property
    def batches(self) -> list[int]:
        """Sorted."""
        return sorted({entry.batch for entry in self.entries})

    @property
    def variants(self) -> list[Variant]:
        """In the order of the records."""
        return list(dict.fromkeys(entry.variant for entry in self.entries))

    @property
    def recipes(self) -> list[str]:
        """In the order of the records."""
        return list(dict.fromkeys(entry.variant.recipe for entry in self.entries))

    def at(
        self, *, size: int | None = None, batch: int | None = None, variant: Variant | None = None
    ) -> tuple[Entry, ...]:
        """The entries of one size, batch or variant, or of all where it is None."""
        return tuple(
            entry
            for entry in self.entries
            if (size is None or entry.size == size)
            and (batch is None or entry.batch == batch)
            and (variant is None or entry.variant == variant)
        )


def fastest(entries: Iterable[Entry]) -> Entry:
    """Of one size and batch: by the paired ratio, since a machine's speed drifts between the rows.

    One during which the machine was at other work is the fastest only if there is no other.
    """
    return max(entries, key=lambda entry: (not entry.disturbed, entry.speedup.value))


def _with_disturbance(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """The entries of a group, told how far PyTorch's time beside each is off; of two a median says nothing."""
    times_s: dict[tuple[int, int], list[float]] = defaultdict(list)
    found = list(entries)
    for entry in found:
        time_s = entry.number_of("reference_trimmed_mean_s")
        if time_s:
            times_s[entry.size, entry.batch].append(time_s)
    usual_s = {place: statistics.median(times) for place, times in times_s.items() if len(times) > 2}
    told = []
    for entry in found:
        time_s, usual = entry.number_of("reference_trimmed_mean_s"), usual_s.get((entry.size, entry.batch))
        told.append(replace(entry, disturbance=time_s / usual - 1) if time_s and usual else entry)
    return tuple(told)


@dataclass(frozen=True)
class Profile:
    """What `python -m bench_tests.profile --json` wrote; ``rows`` as `bottlenecks.Row.record` makes them."""

    file: Path
    workload: str
    data: str
    size: int
    batch: int
    threads: int
    device: str
    fingerprint: str
    total_s: float
    ceiling: Mapping[str, Any]  # fields of roofline.Ceiling
    rows: tuple[Mapping[str, Any], ...]  # the longest first


@dataclass(frozen=True)
class Training:
    """The history beside trained weights: ``stages`` has a list of epochs for each training that led to them.

    An epoch is a dictionary of numbers: train_loss, validation_loss, validation_<score>, size_px, duration_s, as far as
    they were kept. ``facts`` are the other numbers and strings of the file.
    """

    file: Path
    config: Mapping[str, Value]
    stages: Mapping[str, Sequence[Mapping[str, float]]]
    commands: tuple[str, ...]
    facts: Mapping[str, Value]

    @property
    def name(self) -> str:
        """The file's name without its ending: that of the weights beside it."""
        return self.file.stem

    @property
    def score(self) -> str:
        """What validation was judged by: top1, roc_auc, next_char; empty where no epoch has it."""
        for epochs in self.stages.values():
            for name in epochs[0] if epochs else ():
                if name.startswith("validation_") and name != "validation_loss":
                    return name.removeprefix("validation_")
        return ""


@dataclass(frozen=True)
class Material:
    """All that a report is made from; `entries[i].number` is i."""

    entries: tuple[Entry, ...]
    runs: tuple[StoredRun, ...]
    profiles: tuple[Profile, ...] = ()
    trainings: tuple[Training, ...] = ()

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The newest record of each case on each machine, by what may be compared, in the order of the files."""
        newest: dict[tuple[Value, ...], Entry] = {}
        for entry in self.entries:
            key = (*self._place(entry), entry.case)
            if key not in newest or entry.run.when >= newest[key].run.when:
                newest[key] = entry
        members: dict[tuple[Value, ...], list[Entry]] = defaultdict(list)
        for entry in newest.values():
            members[self._place(entry)].append(entry)
        groups = []
        for found in members.values():
            first = found[0].record
            workload, data, folder, device, clock = (
                str(first[name]) for name in ("workload", "data", "fingerprint", "device", "clock")
            )
            groups.append(
                Group(
                    workload,
                    data,
                    folder,
                    device,
                    clock,
                    int(first["threads"]),
                    str(first["unit"]),
                    _with_disturbance(found),
                )
            )
        words = Counter((group.workload, group.data, group.threads, group.in_cycles) for group in groups)
        return tuple(
            replace(group, among=f"{group.fingerprint}, {group.device}")
            if words[group.workload, group.data, group.threads, group.in_cycles] > 1
            else group
            for group in groups
        )

    @staticmethod
    def _place(entry: Entry) -> tuple[Value, ...]:
        names = ("workload", "data", "fingerprint", "device", "clock", "threads", "unit")
        return tuple(entry.record[name] for name in names)

    def history(self, group: Group) -> dict[str, list[Entry]]:
        """Of each case of a group that was measured in several runs, its entries, the oldest first."""
        place = self._place(group.entries[0])
        found: dict[str, list[Entry]] = defaultdict(list)
        for entry in sorted(self.entries, key=lambda entry: entry.run.when):
            if self._place(entry) == place:
                found[entry.case].append(entry)
        return {case: entries for case, entries in found.items() if len({entry.run.file for entry in entries}) > 1}

    def profiles_of(self, group: Group) -> list[Profile]:
        """Profiles of a group's workload on its machine with its threads."""
        place = (group.workload, group.data, group.fingerprint, group.threads)
        return [
            profile
            for profile in self.profiles
            if (profile.workload, profile.data, profile.fingerprint, profile.threads) == place
        ]

"""Where a model's time goes, from its per-layer profile: bound by arithmetic, by memory or by overhead.

What its sentences and its table are computed from is in `report.profile_facts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench_tests.harness.report.digits import significant
from bench_tests.harness.report.document import (
    NOTHING,
    Block,
    Cell,
    Code,
    Column,
    Paragraph,
    Row,
    Sentence,
    Strong,
    Table,
    joined,
    say,
)  # fmt: skip
from bench_tests.harness.report.material import Profile
from bench_tests.harness.report.phrases import share
from bench_tests.harness.report.profile_facts import WORDS, Load, families, loads, possible, roofline_s
from bench_tests.harness.report.wording import duration

_HEAVIEST = 6
_COLUMNS = (
    Column("layer", "layer", numeric=False), Column("kind", "what it is", numeric=False),
    Column("time_us", "time, us"), Column("share_percent", "of the time"), Column("gflop_per_s", "GFLOP/s"),
    Column("flop_per_byte", "FLOP/byte"), Column("of_roofline_percent", "of the roofline"),
    Column("bound", "bound by", numeric=False), Column("take", "addressed by", numeric=False),
)  # fmt: skip


def place(profile: Profile) -> Sentence:
    """Which profile it is."""
    return say(
        "{workload} at size {size}, batch {batch}, {threads}",
        workload=Code(profile.workload),
        size=f"{profile.size:,}",
        batch=str(profile.batch),
        threads="one thread" if profile.threads == 1 else f"{profile.threads} threads",
    )


def bottlenecks(profile: Profile, number: int) -> list[Block]:
    """What a profile shows: sentences and the heaviest layers. ``number`` tells the tables of several apart."""
    found = loads(profile)
    if not found:
        return []
    first, kinds = found[0], families(profile)[:3]
    sentence = say(
        "A call of {place}, takes {time} in PyTorch eager fp32. {main}. By the kinds of layers: {kinds}.",
        place=place(profile),
        time=duration(profile.total_s),
        main=joined(
            [
                say(
                    "{share} of it is bound by {what}" if index == 0 else "{share} by {what}",
                    share=Strong(_sized(load.share)) if index == 0 else share(load.share),
                    what=WORDS.get(load.bound, load.bound),
                )
                for index, load in enumerate(found)
            ]
        ),
        kinds=joined([say("{name} {share}", name=name, share=share(part)) for name, part in kinds]),
    )
    return [Paragraph((*sentence, " ", *_reading(first), *_allowed(profile))), _heaviest(profile, number)]


def _sized(value: float) -> str:
    """A share at the beginning of a sentence."""
    return share(value).replace("all", "All")


def _reading(first: Load) -> Sentence:
    """What the heaviest class tells."""
    if first.bound == "overhead":
        each = f", {duration(first.time_s / first.operators)} each" if first.operators else ""
        return say(
            "Arithmetic and bytes explain {explained} of the time in that class: the rest is calling "
            "{operators} operators{each}, so that doing less in each of them will not help, and calling fewer will. ",
            explained=share(first.roofline_s / first.time_s),
            operators=f"{first.operators:,}" if first.operators else "the",
            each=each,
        )
    reached = first.roofline_s / first.time_s
    if first.bound == "compute":
        rate = first.flop / first.time_s / 1e9
        return say(
            "The layers bound by arithmetic reach {rate} GFLOP/s, {reached} of what the roofline allows them. ",
            rate=significant(rate, 3),
            reached=share(reached),
        )
    return say(
        "The layers bound by memory traffic run at {reached} of what the bandwidth allows. ", reached=share(reached)
    )


def _allowed(profile: Profile) -> Sentence:
    limit = possible(profile)
    if limit is None:
        return ()
    return say(
        "With every layer on its roofline (measured: {peak} GFLOP/s, {copy} GB/s) the call would take {time} and be "
        "{limit} times as fast. More than that takes less arithmetic, a cheaper kind of it, or fewer bytes.",
        peak=significant(float(profile.ceiling["peak_gflops"]), 3),
        copy=significant(float(profile.ceiling["copy_gb_per_s"]), 3),
        time=duration(profile.total_s / limit),
        limit=significant(limit, 2),
    )


def _heaviest(profile: Profile, number: int) -> Table:
    rows = sorted(profile.rows, key=lambda row: -row["time_s"])[:_HEAVIEST]
    return Table(
        f"bottlenecks-{number}",
        f"The heaviest of {len(profile.rows)} layers of {profile.workload} at size {profile.size:,}, batch "
        f"{profile.batch}: {share(sum(row['share'] for row in rows))} of the time",
        _COLUMNS,
        tuple(_layer(profile, row) for row in rows),
    )


def _layer(profile: Profile, row: Mapping[str, Any]) -> Row:
    time_s, least_s = row["time_s"], roofline_s(profile, row)
    figures = (
        Cell(significant(1e6 * time_s, 3), 1e6 * time_s),
        Cell(share(row["share"]), 100 * row["share"]),
        _figure(row["flop"] / 1e9, time_s),
        _figure(row["flop"], row["bytes_moved"]),
        Cell(share(least_s / time_s), 100 * least_s / time_s) if time_s > 0 else NOTHING,
    )
    before, after = (row["name"] or "the whole model", row["kind"]), (row["bound"], row["take"])
    return Row((*(Cell(text, text) for text in before), *figures, *(Cell(text, text) for text in after)))


def _figure(over: float, under: float) -> Cell:
    return Cell(significant(over / under, 3), over / under) if under > 0 else NOTHING

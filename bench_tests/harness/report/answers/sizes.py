"""How the size of the input matters, and which size is best."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bench_tests.harness.report import commands
from bench_tests.harness.report.digits import is_share, significant
from bench_tests.harness.report.document import Block, Number, Paragraph, Section, Sentence, joined, say
from bench_tests.harness.report.material import Entry, Group, Interval, fastest
from bench_tests.harness.report.picks import cells, headline, tolerated
from bench_tests.harness.report.wording import cut, duration, example, latency, name, per_cent, points, quality, rate


def sizes_answer(group: Group) -> Section:
    """Time and arithmetic against size, examples a second at each, and what quality each size buys."""
    slug, title = f"size-{group.slug}", "How does the size of the input matter?"
    sizes = group.sizes
    if len(sizes) == 1:
        return Section(slug, title, _one_size(group))
    line = _line(group)
    blocks: list[Block] = []
    if len(line) > 1:
        blocks.append(Paragraph(_growth(group, line)))
        blocks.append(Paragraph(joined(_by_size(group, line), " ", " ")))
    else:
        words = f"The sizes {', '.join(str(size) for size in sizes)} {group.unit} share no variant at one batch."
        command = commands.measure(group, sizes=sizes, batches=[group.batches[0]])
        blocks += commands.lacking((f"{words} This measures one:",), command)
    if group.unit == "ms":
        blocks += _real_time(line)
    elif not group.in_cycles:
        blocks += _quality(group)
    return Section(slug, title, tuple(blocks))


def _one_size(group: Group) -> tuple[Block, ...]:
    only = group.sizes[0]
    if commands.one_size_only(group):
        return (Paragraph((f"It does not: {group.workload} takes inputs of one size, {only} {group.unit}.",)),)
    return commands.lacking(
        (f"All cases are of {only} {group.unit}, so the effect of the size cannot be told. This measures it:",),
        commands.measure(group, sizes=commands.more_sizes(group), batches=[group.batches[0]]),
    )


def _line(group: Group) -> list[Entry]:
    """The fastest variant of the headline, at the smallest batch at which it has several sizes; smallest size first."""
    variant = fastest(headline(group)).variant
    for batch in group.batches:
        found = sorted(group.at(batch=batch, variant=variant), key=lambda entry: entry.size)
        if len(found) > 1:
            return found
    return []


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """The exponent of the power of the size that fits the values best; None where one is not above 0."""
    if len(set(sizes)) < 2 or min(*sizes, *values) <= 0:
        return None
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def _growth(group: Group, line: Sequence[Entry]) -> Sentence:
    """How time grows with the size, against how arithmetic does."""
    first, last = line[0], line[-1]
    sizes = [entry.size for entry in line]
    time = exponent(sizes, [entry.call_s / entry.batch for entry in line])
    flop = exponent(sizes, [(entry.number_of("gflop") or 0.0) / entry.batch for entry in line])
    fit = "from these two sizes alone" if len(line) == 2 else f"fitted over {len(line)} sizes"
    told = say(
        "From {first} to {last} {unit}, {times} as much, the time of {variant} at batch {batch} goes from {short} to "
        "{long} a call, {ratio}",
        first=str(first.size), last=str(last.size), unit=group.unit, times=f"{last.size / first.size:.3g} times",
        variant=name(first.variant), batch=str(first.batch), short=latency(first), long=latency(last),
        ratio=Number(f"{last.call_s / first.call_s:.2f} times", last.number),
    )  # fmt: skip
    if time is None:
        return (*told, ".")
    told = (*told, *say(": time grows with size^{time} ({fit})", time=Number(f"{time:.2f}", last.number), fit=fit))
    if flop is None:
        return (*told, ".")
    told = (*told, *say(", arithmetic with size^{flop}", flop=Number(f"{flop:.2f}", last.number)))
    if abs(time - flop) < 0.1:
        return (*told, ", so that a larger input costs what its arithmetic does.")
    if time < flop:
        return (*told, ", so that large inputs use the hardware better and small ones pay for overhead.")
    return (*told, ", so that large inputs use the hardware worse, as where their activations leave the cache.")


def _by_size(group: Group, line: Sequence[Entry]) -> list[Sentence]:
    """Examples a second, and GFLOP/s, at each size."""
    rates = joined([say("{rate} at {size}", rate=rate(entry, group), size=str(entry.size)) for entry in line])
    told: list[Sentence] = [say("It reaches {rates} {unit}.", rates=rates, unit=group.unit)]
    busy = [(entry, entry.number_of("gflops")) for entry in line]
    known = [(entry, found) for entry, found in busy if found]
    if len(known) == len(busy):
        parts = [
            say("{gflops} at {size}", gflops=Number(significant(found, 3), entry.number), size=str(entry.size))
            for entry, found in known
        ]
        told.append(say("In GFLOP/s that is {parts} {unit}.", parts=joined(parts), unit=group.unit))
    by_place, batch = cells(group), line[0].batch
    winners = {size: fastest(cell) for (size, at_batch), cell in by_place.items() if at_batch == batch}
    others = {size: found for size, found in winners.items() if found.variant != line[0].variant}
    if others:
        parts = [
            say("{size} {unit} {name}", size=str(size), unit=group.unit, name=name(found.variant))
            for size, found in others.items()
        ]
        told.append(say("It is not the fastest everywhere: at {parts} is, at that batch.", parts=joined(parts)))
    return told


def _real_time(line: Sequence[Entry]) -> tuple[Block, ...]:
    """Of sound: which share of its own length a chunk takes, and what the listener waits for."""
    parts = [
        say(
            "{share} of real time at {size} ms",
            share=Number(per_cent(1e3 * entry.call_s / (entry.batch * entry.size)), entry.number), size=str(entry.size),
        )
        for entry in line
    ]  # fmt: skip
    if not parts:
        return ()
    least, most = line[0], line[-1]
    told = say(
        "It takes {parts}. A chunk must have been heard before it can be judged: the shortest gives an answer {quick} "
        "after its first sample, computing included, the longest {slow}. Take the shortest where the answer is urgent, "
        "and a longer one where power is short: the longest computes {ratio} less for a second of sound.",
        parts=joined(parts),
        quick=Number(duration(1e-3 * least.size + least.call_s), least.number),
        slow=Number(duration(1e-3 * most.size + most.call_s), most.number),
        ratio=Number(f"{least.call_s / least.size / (most.call_s / most.size):.1f} times", most.number),
    )
    return (Paragraph(told),)


def judged_sizes(group: Group) -> list[Entry]:
    """For each size, the fastest record of the original in fp32 whose quality was judged."""
    judged: dict[int, list[Entry]] = {}
    for entry in group.entries:
        if entry.lossless and entry.quality is not None:
            judged.setdefault(entry.size, []).append(entry)
    found = []
    for _, entries in sorted(judged.items()):
        least = min(entry.batch for entry in entries)
        found.append(fastest(entry for entry in entries if entry.batch == least))
    return found


def _quality(group: Group) -> tuple[Block, ...]:
    """What quality each size buys, and the smallest size that keeps the best within what is tolerated."""
    judged = judged_sizes(group)
    own = [entry for entry in judged if entry.record.get("weights_own", True)]
    foreign = [entry for entry in judged if entry not in own]
    told: list[Sentence] = []
    if len(own) > 1:
        told += _bought(group, own)
    elif own:
        told.append(
            say(
                "Only {size} {unit} was judged with weights of its own: {quality}.",
                size=str(own[0].size),
                unit=group.unit,
                quality=quality(own[0]) or "",
            )
        )
    for entry in foreign:
        told.append(
            say(
                "At {size} {unit} the weights were trained at another size ({weights}): {quality} says little of what "
                "training at this size would reach.",
                size=str(entry.size), unit=group.unit, weights=cut(entry.text_of("weights")),
                quality=quality(entry) or "",
            )
        )  # fmt: skip
    blocks: tuple[Block, ...] = (Paragraph(joined(told, " ", " ")),) if told else ()
    if len(own) > 1:
        return blocks
    command = commands.measure(group, sizes=group.sizes, precisions=["fp32"], examples="all")
    if foreign:
        sizes = " ".join(str(entry.size) for entry in foreign)
        command = f"{commands.train(group, sizes)}\n{command}"
    words = "The best size for a stated quality needs several sizes judged with weights of their own. This supplies it:"
    return *blocks, *commands.lacking((words,), command)


def apart(one: Interval, other: Interval) -> bool:
    """Whether two intervals leave no doubt which one is better."""
    return one.low > other.high or other.low > one.high


def _bought(group: Group, own: Sequence[Entry]) -> list[Sentence]:
    """Points of quality against time, from each size to the next; and the smallest size that will do."""
    parts = [
        say("{quality} at {size} {unit}", quality=quality(entry) or "", size=str(entry.size), unit=group.unit)
        for entry in own
    ]
    told: list[Sentence] = [say("The original has {parts}.", parts=joined(parts))]
    sign = 1.0 if own[0].record.get("quality_higher_is_better", True) else -1.0

    def worth(entry: Entry) -> float:
        return sign * (entry.quality.value if entry.quality else -math.inf)

    best = max(own, key=worth)
    allowed = tolerated(own)
    small, large = own[0], own[-1]
    gained, longer = worth(large) - worth(small), large.call_s / large.batch - small.call_s / small.batch
    if large.quality and small.quality and not apart(large.quality, small.quality):
        judged = large.number_of("quality_examples")
        told.append(
            say(
                "On {examples} no difference between {small} and {large} {unit} can be shown.",
                examples=Number(f"{judged:,.0f} examples", large.number) if judged else "so few examples",
                small=str(small.size), large=str(large.size), unit=group.unit,
            )
        )  # fmt: skip
    elif gained > 0 and longer > 0 and is_share(large):
        told.append(
            say(
                "From {small} to {large} {unit}, {gained} cost {longer} {each}: {price} a millisecond.",
                small=str(small.size), large=str(large.size), unit=group.unit,
                gained=Number(points(gained, large), large.number), longer=Number(duration(longer), large.number),
                each=f"{'an' if example(group)[0] in 'aeiou' else 'a'} {example(group)}",
                price=Number(f"{100 * gained / (1e3 * longer):.2g} points", large.number),
            )
        )  # fmt: skip
    elif gained <= 0:
        told.append((f"{large.size} {group.unit} is no better than {small.size}: the larger size buys nothing.",))
    if allowed is not None:
        enough = next(entry for entry in own if worth(entry) >= worth(best) - allowed)
        other = enough if enough is not best else own[0]
        open_ = other is not best and other.quality and best.quality and not apart(other.quality, best.quality)
        words = " (their intervals overlap)" if other is enough else ", which the intervals leave open"
        doubt = words if open_ else ""
        told.append(
            say(
                "The smallest size within the tolerated {allowed} of the best is {size} {unit}{doubt}.",
                allowed=points(allowed, best), size=Number(str(enough.size), enough.number), unit=group.unit,
                doubt=doubt,
            )
        )  # fmt: skip
    return told

"""What a reader needs, as ``--need "latency<=10ms"`` says it, and the recommendation that follows from the records."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from bench_tests.harness.record import ORIGINAL
from bench_tests.harness.report import commands
from bench_tests.harness.report.answers.choice import Choice, choose, closest
from bench_tests.harness.report.answers.quantities import ALIASES, QUANTITIES, Need
from bench_tests.harness.report.document import Block, Code, Listing, Number, Paragraph, Sentence, Strong, joined, say
from bench_tests.harness.report.material import Entry, Group
from bench_tests.harness.report.picks import streamed
from bench_tests.harness.report.wording import change, cut, disk, latency, name, place, quality, rate, speedup
from models.errors import SpeedproofError

__all__ = ["Need", "parse_need", "recommend"]

_EXAMPLE = 'for example --need "latency<=10ms"'
_FORM = re.compile(r"([a-z_-]+)(<=|>=|<|>|=)([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(\S*)", re.ASCII)


def parse_need(text: str) -> Need:
    """A need as it is written on a command line. Raises SpeedproofError that lists what is known."""
    form = _FORM.fullmatch("".join(text.split()).replace("==", "="))
    if form is None:
        raise SpeedproofError(
            f"--need {text!r}: expected a quantity, one of <= < >= > and a number with its unit; quantities are "
            f"{', '.join(QUANTITIES)}; {_EXAMPLE}"
        )
    word, operator, number, unit = form.groups()
    name = ALIASES.get(word, word)
    if name not in QUANTITIES:
        hint = "say disk, the bytes of its file, or input, its pixels or ms; " if name == "size" else ""
        raise SpeedproofError(
            f"--need {text!r}: unknown quantity {word}; {hint}known are {', '.join(QUANTITIES)}; {_EXAMPLE}"
        )
    quantity = QUANTITIES[name]
    units = {known.lower(): factor for known, factor in quantity.units.items()}
    if unit.lower() not in units:
        listed = ", ".join(known for known in quantity.units if known)
        raise SpeedproofError(
            f"--need {text!r}: {f'unknown unit {unit}' if unit else 'it has no unit'}; those of {name} are "
            f"{listed or 'none, a bare number'}; {_EXAMPLE}"
        )
    bound = float(number) * units[unit.lower()]
    if not math.isfinite(bound) or (bound < 0 and not quantity.may_be_negative):
        raise SpeedproofError(
            f"--need {text!r}: {number} is {'below 0' if bound < 0 else 'no finite number'}; expected a number"
            f"{'' if quantity.may_be_negative else ' of at least 0'}; {_EXAMPLE}"
        )
    if operator == "=" and not quantity.fixes:
        raise SpeedproofError(f"--need {text!r}: = goes with batch and input; give {name} with <= or >=; {_EXAMPLE}")
    if name == "quality" and not unit and bound > 1 and operator in (">=", ">"):  # below a bound: a loss
        raise SpeedproofError(f"--need {text!r}: a quality is a share or has its %; say {word}{operator}{number}%")
    return Need(" ".join(text.split()), name, operator, bound)


def recommend(group: Group, needs: Sequence[Need]) -> tuple[Block, ...]:
    """Which measured case to take for the needs, how sure that is, and what else there is; nothing without needs."""
    if not needs:
        return ()
    unknown = [need for need in needs if all(need.value(entry) is None for entry in group.entries)]
    if unknown:
        return tuple(block for need in unknown for block in _unmeasured(group, need))
    choice = choose(group, needs)
    return _nothing(group, needs) if choice is None else _taken(group, needs, choice)


def _stated(needs: Sequence[Need]) -> Sentence:
    return joined([(Code(cut(need.text)),) for need in needs])


def _taken(group: Group, needs: Sequence[Need], choice: Choice) -> tuple[Block, ...]:
    best = choice.entry
    facts: list[Sentence] = [
        (latency(best), " a call"),
        (rate(best, group),),
        (speedup(best), " over the plain engine" if group.in_cycles else " over PyTorch"),
    ]
    judged, changed = quality(best), change(best)
    facts += [(judged,)] if judged else []
    facts += [(changed, " against the original")] if judged and changed and not best.lossless else []
    facts.append((disk(best), " on disk"))
    sentences = [
        say(
            "For {needs}, take {best} at {place}: {facts}.",
            needs=_stated(needs),
            best=Strong(name(best.variant).text),
            place=place(best, group),
            facts=joined(facts),
        )
    ]
    sentences += [_doubt(need, best) for need in needs if not need.surely_met(best)]
    sentences.append((_rule(group, needs, choice),))
    sentences.append(_runner_up(group, choice))
    partly = [need for need in needs if any(need.value(entry) is None for entry in group.entries)]
    for need in partly:
        lacking = sum(need.value(entry) is None for entry in group.entries)
        sentences.append((f"{lacking} of {len(group.entries)} cases have no {need.quantity.words} and were left out.",))
    return (Paragraph(joined(sentences, " ", " ")),)


def _doubt(need: Need, entry: Entry) -> Sentence:
    """That a need is met on average only, and which end of the interval is beyond it."""
    found = need.value(entry)
    assert found is not None  # it was chosen because it has the figure and meets the need
    end = found.high if need.at_most else found.low
    worst = "its 95th percentile" if need.name == "latency" else "the unfavourable end of its interval"
    return say(
        "It meets {need} on average, not surely: {worst} is {end}.",
        need=Code(cut(need.text)), worst=worst, end=Number(need.shown(end, entry), entry.number),
    )  # fmt: skip


def _rule(group: Group, needs: Sequence[Need], choice: Choice) -> str:
    about = {need.name for need in needs}
    where = (
        ""
        if about & {"input", "quality"} or len(group.sizes) == 1
        else " with the shortest chunk"
        if streamed(group)
        else " at the largest input"
    )
    first = "the shortest call" if "throughput" in about else "the most examples a second"
    cell = f"the batch with {first}, and there " if len(group.batches) > 1 and "batch" not in about else ""
    if about & {"input", "quality"} and len(group.sizes) > 1 and "input" not in about:
        cell = f"the size and batch with {first}, and there "
    surely = "surely " if choice.sure else ""
    return f"The rule: of the cases that {surely}meet all needs{where}, {cell}the largest paired speed-up."


def _runner_up(group: Group, choice: Choice) -> Sentence:
    if not choice.others:
        return (f"No other of the {len(group.entries)} cases meets all of it.",)
    second = choice.others[0]
    return say(
        "Next comes {second} at {place}, {latency} a call and {rate}; {count} of the {all} cases meet all of it.",
        second=name(second.variant), place=place(second, group), latency=latency(second), rate=rate(second, group),
        count=str(1 + len(choice.others)), all=str(len(group.entries)),
    )  # fmt: skip


def _nothing(group: Group, needs: Sequence[Need]) -> tuple[Block, ...]:
    """That no case meets the needs, which one is closest, what it lacks, and what was not tried."""
    sentences = [say("None of the {count} cases meets {needs}.", count=str(len(group.entries)), needs=_stated(needs))]
    near = closest(group, needs)
    failed = [need for need in needs if near is None or not need.met(near)]
    if near is None:
        sentences.append(("No single case has the figures of all of them.",))
    else:
        sentences.append(
            say(
                "Closest is {near} at {place}: {misses}.",
                near=name(near.variant),
                place=place(near, group),
                misses=joined([_miss(need, near) for need in failed]),
            )
        )
    alone = [need for need in needs if not any(need.met(entry) for entry in group.entries)]
    if alone and len(needs) > 1:
        sentences.append(say("No case meets {alone} even alone.", alone=_stated(alone)))
    elif len(needs) > 1:
        sentences.append(("Each is met by some case, all together by none.",))
    found = _untried(group, failed)
    if not found:
        return (Paragraph(joined(sentences, " ", " ")),)
    words, command = found
    return Paragraph(joined([*sentences, (f"{words} This measures it:",)], " ", " ")), Listing(command)


def _miss(need: Need, entry: Entry) -> Sentence:
    found = need.value(entry)
    assert found is not None  # the closest case has all figures
    return say(
        "its {words} of {value} misses {need} by {by}",
        words=need.quantity.words, value=Number(need.shown(found.value, entry), entry.number),
        need=Code(cut(need.text)), by=Number(need.shown(abs(found.value - need.bound), entry), entry.number),
    )  # fmt: skip


def _untried(group: Group, failed: Sequence[Need]) -> tuple[str, str] | None:
    """What was not measured and bears on what failed: the sizes, batches, backends, recipes."""
    about = {need.name for need in failed}
    exact = {
        option: sorted({int(need.bound) for need in failed if need.name == quantity and need.bound >= 1})
        for option, quantity in (("batches", "batch"), ("sizes", "input"))
    }
    if exact["batches"] or (exact["sizes"] and not commands.one_size_only(group)):
        return "That cell was not measured.", commands.measure(group, sizes=exact["sizes"], batches=exact["batches"])
    if "quality" in about and not commands.one_size_only(group) and group.unit == "px":
        sizes = [group.sizes[-1] * 3 // 2 // 32 * 32]
        return "A larger input was not judged.", commands.measure(group, sizes=sizes, examples="all")
    if "drop" in about and not any(entry.lossless for entry in group.entries) and not group.in_cycles:
        return "The original itself was not measured.", commands.measure(group, precisions=["fp32"])
    recipes, backends = commands.other_recipes(group), commands.other_backends(group)
    if recipes and about & {"latency", "throughput", "speedup", "disk", "flash", "sram", "cycles", "memory"}:
        sizes, batches = [group.sizes[-1]], [group.batches[0]]
        command = commands.measure(group, sizes=sizes, batches=batches, recipes=[ORIGINAL, *recipes])
        named = f"the recipe{'s' if len(recipes) > 1 else ''} {', '.join(recipes)}"
        return f"Not measured here, and made for less time and size: {named}.", command
    if backends and about & {"latency", "throughput", "speedup", "memory", "disk"}:
        return f"Not measured here: {', '.join(backends)}.", commands.measure(group, backends=backends)
    return None


def _unmeasured(group: Group, need: Need) -> tuple[Block, ...]:
    """That no record has a figure, and the command that supplies it, where one can."""
    words = need.quantity.words
    sentence = say(
        "{need} cannot be judged: no record of this group has a {words}.", need=Code(cut(need.text)), words=words
    )
    if need.name in ("drop", "quality"):
        return commands.lacking(sentence, commands.measure(group, examples="all"))
    if need.name in ("flash", "sram", "cycles") and group.workload.startswith("tinychat"):
        return commands.lacking(sentence, "pytest bench_tests/test_firmware.py --threads 1 --benchmark-json run.json")
    if need.name == "memory":
        return commands.lacking(sentence, commands.measure(group))
    return (Paragraph(sentence, "note"),)

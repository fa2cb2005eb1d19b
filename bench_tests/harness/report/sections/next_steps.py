"""What to try next, as far as it follows from the numbers: what bounds the model now, and what was not measured yet."""

from __future__ import annotations

from collections.abc import Sequence

from bench_tests.harness.record import ORIGINAL
from bench_tests.harness.report import commands
from bench_tests.harness.report.answers.batches import curves_of
from bench_tests.harness.report.answers.sizes import judged_sizes
from bench_tests.harness.report.answers.verdicts import offers
from bench_tests.harness.report.document import Code, Number, Sentence, joined, say
from bench_tests.harness.report.material import Entry, Group, Material, fastest
from bench_tests.harness.report.picks import best_lossless, cells, headline
from bench_tests.harness.report.profile_facts import WORDS, loads, possible
from bench_tests.harness.report.wording import name, per_cent, speedup

_IDLE = 0.05  # of the peak: a narrower type makes little of what is hardly used


def next_steps(material: Material, group: Group) -> list[Sentence]:
    """The directions, each with the figure that it follows from and the command that tries it."""
    best = fastest(headline(group))
    steps = [
        _recipes(material, group, best),
        _kernels(material, group),
        _backends(material, group, best),
        _precision(material, group, best),
    ]
    steps += [_batches(group), _examples(group), _weights(group), _profile(material, group, best)]
    return [step for step in steps if step]


def _bounded(material: Material, group: Group, *bounds: str) -> Sentence:
    """What takes most of PyTorch's time, where it was profiled and is one of ``bounds``."""
    main = _main_bound(material, group)
    if main is None or main[0] not in bounds:
        return ()
    return (f"{100 * main[1]:.0f} % of PyTorch's time is bound by {WORDS[main[0]]}, and ",)


def _main_bound(material: Material, group: Group) -> tuple[str, float] | None:
    found = [loads(profile) for profile in material.profiles_of(group)]
    return (found[0][0].bound, found[0][0].share) if found and found[0] and found[0][0].bound in WORDS else None


def _recipes(material: Material, group: Group, best: Entry) -> Sentence:
    """The recipes that were not tried."""
    recipes = commands.other_recipes(group)
    if not recipes or group.in_cycles:
        return ()
    command = Code(commands.measure(group, at=best, recipes=[ORIGINAL, *recipes], examples="all"))
    return say(
        "Methods: {why}{recipes} {were} not measured: {command}",
        why=_bounded(material, group, "compute", "memory"), recipes=", ".join(recipes), were=_were(recipes),
        command=command,
    )  # fmt: skip


def _were(what: Sequence[str]) -> str:
    return "was" if len(what) == 1 else "were"


def _kernels(material: Material, group: Group) -> Sentence:
    """What the roofline leaves over what the best lossless row reaches, at the size and batch of a profile.

    Not where overhead takes most of the time: next to it the roofline allows anything.
    """
    for profile in [] if _bounded(material, group, "overhead") else material.profiles_of(group):
        cell = cells(group).get((profile.size, profile.batch), [])
        most, base = possible(profile), best_lossless(cell)
        if most is None or base is None or most < 1.2 * base.speedup.value:
            continue
        return say(
            "Better kernels: the roofline allows {most} PyTorch's speed in fp32 at {size} {unit} and batch {batch}, "
            "{base} reaches {speedup}; {left} are left without any loss.",
            most=f"{most:.1f}x", size=str(profile.size), unit=group.unit, batch=str(profile.batch),
            base=name(base.variant), speedup=speedup(base), left=f"{most / base.speedup.value:.1f}x",
        )  # fmt: skip
    return ()


def _backends(material: Material, group: Group, best: Entry) -> Sentence:
    backends = commands.other_backends(group)
    if not backends:
        return ()
    share = best.number_of("share_of_peak")
    why = _bounded(material, group, "overhead", "memory")
    if not why and share is not None:
        why = say("the fastest reaches {share} of the peak, and ", share=Number(per_cent(share), best.number))
    return say(
        "Other backends: {why}{backends} {were} not measured: {command}",
        why=why, backends=", ".join(backends), were=_were(backends),
        command=Code(commands.measure(group, at=best, backends=backends)),
    )  # fmt: skip


def _precision(material: Material, group: Group, best: Entry) -> Sentence:
    """A narrower type, which relieves arithmetic and memory but no overhead."""
    missing = [one for one in commands.other_precisions(group) if one != "fp32"]
    main, share = _main_bound(material, group), best.number_of("share_of_peak")
    idle = main[0] == "overhead" if main is not None else share is not None and share < _IDLE
    if not missing or idle:
        return ()
    command = Code(commands.measure(group, at=best, precisions=["fp32", *missing]))
    return say("A lower precision of the original, {missing}: {command}", missing=", ".join(missing), command=command)


def _batches(group: Group) -> Sentence:
    """Larger batches, where the fastest line still gains at the largest one."""
    found = curves_of(group)
    if not found or group.in_cycles:
        return ()
    last = max(
        (curve for curve in found if curve.first.size == found[-1].first.size), key=lambda one: one.best.fps.value
    )
    if not last.open_ended or last.gain <= 0:
        return ()
    command = commands.measure(group, sizes=[last.first.size], batches=commands.more_batches(group))
    return say(
        "Larger batches: {variant} still gains at {batch}: {command}",
        variant=name(last.first.variant), batch=Number(str(last.largest.batch), last.largest.number),
        command=Code(command),
    )  # fmt: skip


def _examples(group: Group) -> Sentence:
    """More examples, where doubt about a quality decides and only so many were asked for."""
    for offer in offers(headline(group)):
        asked, judged = offer.entry.run.settings.get("examples"), offer.entry.number_of("quality_examples")
        if offer.kept == "open" and isinstance(asked, int) and judged is not None and judged <= asked:
            return say(
                "More examples: {count} leave it open whether {name} keeps the quality; {option} judges on all.",
                count=Number(f"{judged:,.0f}", offer.entry.number), name=name(offer.entry.variant),
                option=Code("--examples all"),
            )  # fmt: skip
    return ()


def _weights(group: Group) -> Sentence:
    foreign = [entry for entry in judged_sizes(group) if entry.record.get("weights_own") is False]
    if not foreign or group.unit != "px":
        return ()
    return say(
        "Weights for {sizes} {unit}, which have none of their own: {command}",
        sizes=joined([(Number(str(entry.size), entry.number),) for entry in foreign]), unit=group.unit,
        command=Code(commands.train(group, " ".join(str(entry.size) for entry in foreign))),
    )  # fmt: skip


def _profile(material: Material, group: Group, best: Entry) -> Sentence:
    if material.profiles_of(group) or group.in_cycles:
        return ()
    command = Code(commands.profile(group, best.size, group.batches[0]))
    return say(
        "A profile, which tells what bounds each layer and which method addresses it: {command}", command=command
    )

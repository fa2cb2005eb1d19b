"""Whether a method fits the bottlenecks that a per-layer profile shows, with the figures that say so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from bench_tests.harness.report.digits import significant
from bench_tests.harness.report.document import (
    Code,
    Number,
    Sentence,
    say,
)  # fmt: skip
from bench_tests.harness.report.material import Entry, Material, Profile
from bench_tests.harness.report.phrases import share
from bench_tests.harness.report.profile_facts import WORDS, Load, families, loads, possible
from bench_tests.harness.report.sections.hyperparameters import Followed, commanded
from bench_tests.harness.report.sections.profiles import place


def one_each(profiles: Iterable[Profile]) -> list[Profile]:
    """One profile of each workload and machine, of the smallest batch: that of the latency."""
    found: dict[tuple[str, str], Profile] = {}
    for profile in sorted(profiles, key=lambda profile: profile.batch):
        found.setdefault((profile.workload, profile.fingerprint), profile)
    return list(found.values())


def fits(
    material: Material, module: str, kinds: list[str], profile: Profile, recipes: list[Followed]
) -> Iterable[Sentence]:
    """Whether each kind of a method that was used fits a profile, with the figures that say so."""
    own = [recipe for recipe in recipes if recipe.workload == profile.workload and module in recipe.modules]
    taught = [training for training in material.trainings if module in commanded(training)]
    found = loads(profile)
    if not found or not (own or any(training.config.get("workload") == profile.workload for training in taught)):
        return
    first = found[0]
    if module == "optim.distill":
        yield _distilled(material, first, profile, own)
    used = [kind for kind in kinds if any(kind in recipe.kinds for recipe in own)]
    for kind in used:
        verdict = _VERDICTS.get(kind)
        if verdict is not None:
            yield say("{kind}, {place}: {verdict}", kind=Code(kind), place=place(profile),
                      verdict=verdict(material, profile, first))  # fmt: skip


def _what(first: Load) -> Sentence:
    return say("{share} is bound by {what}", share=share(first.share), what=WORDS.get(first.bound, first.bound))


def _rest(profile: Profile) -> str:
    """What of the time is arithmetic and bytes where overhead has the most of it."""
    rest = sum(load.share for load in loads(profile)[1:])
    return f", but for the {share(rest)} that is not overhead" if rest >= 0.1 else ""


def _static(material: Material, profile: Profile, first: Load) -> Sentence:
    if first.bound == "overhead":
        return say(
            "{what}, which eight bits do not address{rest}: as many operators are called as before, and more where "
            "values are quantized in between. What is won is the size.",
            what=_what(first),
            rest=_rest(profile),
        )
    ratio, told = peak_ratio(material, profile, "int8")
    limit = possible(profile, ratio, 4.0)
    return say(
        "{what}, which eight bits address. {told}, and with a quarter of the bytes the roofline allows {limit} times "
        "the speed of eager fp32, against {plain} without it.",
        what=_what(first),
        told=told,
        limit=significant(limit, 2) if limit else "an unknown number of",
        plain=significant(possible(profile) or 1.0, 2),
    )


def peak_ratio(material: Material, profile: Profile, precision: str) -> tuple[float, Sentence]:
    """How much more arithmetic a second a precision has than fp32: measured on the profile's machine, or the rule."""
    peaks: dict[str, Entry] = {}
    for entry in material.entries:
        if entry.record["fingerprint"] == profile.fingerprint and entry.number_of("peak_gflops"):
            peaks[entry.text_of("peak_precision")] = entry
    if {precision, "fp32"} <= peaks.keys():
        low, single = (peaks[name].number_of("peak_gflops") or 1.0 for name in (precision, "fp32"))
        words = say(
            "The peak measured here in {precision} is {ratio} times that in fp32",
            precision=precision,
            ratio=Number(significant(low / single, 2), peaks[precision].number),
        )
        return low / single, words
    rule = 4.0 if precision == "int8" else 2.0
    return rule, say("With {rule} times the arithmetic a second, as the instructions have it", rule=f"{rule:g}")


def _dynamic(_: Material, profile: Profile, __: Load) -> Sentence:
    linear = sum(part for family, part in families(profile) if family.startswith("Linear"))
    return say(
        "only linear layers compute in int8, and they take {linear} of the time: {verdict}.",
        linear=share(linear),
        verdict="that much can be won" if linear > 0.5 else "it does not fit, for little can be won",
    )


def _weights(_: Material, __: Profile, first: Load) -> Sentence:
    return say(
        "{what}, and of that nothing is won or lost, since the computing stays as it is: it fits a need for small "
        "files.",
        what=_what(first),
    )


def _structured(_: Material, profile: Profile, first: Load) -> Sentence:
    if first.bound == "overhead":
        return say(
            "{what}, and a narrower layer is still a layer: it does not fit{rest}.",
            what=_what(first),
            rest=_rest(profile),
        )
    return say(
        "{what}, and channels that are gone take their arithmetic and their bytes with them: it fits. Taking a share "
        "a from both sides of a layer leaves (1 - a)^2 of its FLOP.",
        what=_what(first),
    )


def _unstructured(_: Material, __: Profile, first: Load) -> Sentence:
    return say(
        "{what}, and scattered zeros address none of it, since dense kernels multiply them: it fits a need for a small "
        "download alone.",
        what=_what(first),
    )


def _semi(_: Material, profile: Profile, first: Load) -> Sentence:
    fits = profile.device == "cuda" and first.bound == "compute"
    return say(
        "{what}, {verdict}.",
        what=_what(first),
        verdict="which sparse tensor cores can halve" if fits else "which these zeros do not address on this device",
    )


_VERDICTS = {
    "static": _static, "qat": _static, "dynamic": _dynamic, "weights": _weights, "structured": _structured,
    "global": _unstructured, "local": _unstructured, "2:4": _semi,
}  # fmt: skip


def _distilled(material: Material, first: Load, profile: Profile, own: list[Followed]) -> Sentence:
    """A student has less arithmetic, or fewer operators: which of the two matters, and how much of it there is."""
    if first.bound == "overhead":
        fewer = _operators(material, profile, own)
        why = say(
            "which a student addresses only where it has fewer operators{fewer}.",
            fewer=(": ", *fewer) if fewer else "",
        )
    else:
        less = [recipe.entry for recipe in own if recipe.entry.number_of("macs_original")]
        least = min(less, key=lambda entry: entry.number_of("macs") or 0.0, default=None)
        amount = (
            say(
                ", here down to {part} of the multiply-adds ({name})",
                part=Number(
                    share((least.number_of("macs") or 0.0) / (least.number_of("macs_original") or 1.0)), least.number
                ),
                name=Code(least.variant.recipe),
            )
            if least and least.number_of("macs")
            else ""
        )
        why = say("which a student with less of it addresses{amount}.", amount=amount)
    return say("{place}: {what}, {why}", place=place(profile), what=_what(first), why=why)


def _operators(material: Material, profile: Profile, own: list[Followed]) -> Sentence:
    """How many operators the runtime calls for the original, and for the student with the fewest."""
    names = {recipe.name for recipe in own}
    entries = [
        entry
        for group in material.groups
        if (group.workload, group.fingerprint) == (profile.workload, profile.fingerprint)
        for entry in group.entries
    ]
    originals = {entry.variant.backend: entry for entry in entries if entry.lossless and operators(entry)}
    students = [
        entry
        for entry in entries
        if entry.variant.recipe in names and entry.variant.backend in originals and operators(entry)
    ]
    if not students:
        return ()
    fewest = min(students, key=operators)
    before = originals[fewest.variant.backend]
    return say(
        "{backend} runs {before} operators a call of the original and {after} of {name}",
        backend=Code(fewest.variant.backend),
        before=Number(f"{operators(before):,}", before.number),
        after=Number(f"{operators(fewest):,}", fewest.number),
        name=Code(fewest.variant.recipe),
    )


def operators(entry: Entry) -> int:
    """How many operators ran, as the runtime told; 0 where it is not known."""
    return sum(coverage(entry).values())


def coverage(entry: Entry) -> Mapping[str, int]:
    """How many operators ran where and in which type, ``CPU/float32``, as the runtime told."""
    try:
        told = json.loads(entry.text_of("coverage") or "{}")
    except (ValueError, RecursionError):
        return {}
    found = told.items() if isinstance(told, dict) else ()
    return {str(key): value for key, value in found if isinstance(value, int) and not isinstance(value, bool)}


def compiled(profile: Profile) -> Sentence:
    """Whether a compiled graph fits a profile; empty where the profile tells nothing."""
    found = loads(profile)
    if not found:
        return ()
    first, rest = found[0], {load.bound: load.share for load in found}
    if first.bound == "overhead":
        verdict = say("which a compiled graph addresses: it calls few fused operators, without Python between them")
    elif first.bound == "memory":
        verdict = say("which a compiled graph addresses: what it fuses, it does not write to memory and read again")
    else:
        verdict = say(
            "and eager's kernels reach {reached} of what the roofline allows there: that leaves room for better ones, "
            "and fusing addresses the {memory} that is memory traffic",
            reached=share(first.roofline_s / first.time_s),
            memory=share(rest.get("memory", 0.0)),
        )
    return say("Compiled, {place}: {what}, {verdict}.", place=place(profile), what=_what(first), verdict=verdict)


def half_limit(profile: Profile, ratio: float) -> Sentence:
    """Whether half the bytes, and arithmetic that is ``ratio`` times as fast, fit a profile."""
    found, limit = loads(profile), possible(profile, ratio, 2.0)
    if not found or limit is None:
        return ("what the roofline allows is not known",)
    first = found[0]
    if first.bound == "overhead":
        return say("{what}, which it does not address", what=_what(first))
    return say(
        "{what}, which it addresses: the roofline allows {limit} times the speed of eager fp32",
        what=_what(first),
        limit=significant(limit, 2),
    )

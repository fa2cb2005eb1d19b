"""Is the hardware busy, and if not, why: shares of the peaks, and what the per-layer profile says bounds the time."""

from __future__ import annotations

from collections.abc import Sequence

from bench_tests.harness.report import commands
from bench_tests.harness.report.document import Block, Number, Paragraph, Section, Sentence, joined, say
from bench_tests.harness.report.material import Entry, Group, Material, Profile, fastest
from bench_tests.harness.report.picks import headline
from bench_tests.harness.report.profile_facts import BUSY, loads, possible
from bench_tests.harness.report.wording import cut, duration, mebibytes, name, per_cent, place

_BOUNDS = {
    "compute": "bound by arithmetic, which INT8 and structured pruning make less",
    "memory": "bound by memory, which fused operators and narrower types relieve",
    "overhead": "overhead, which a compiled graph or larger batches relieve and less arithmetic does not",
}


def hardware_answer(material: Material, group: Group) -> Section:
    """The share of the measured and of the theoretical peak, and the reasons for what is missing."""
    slug, title = f"hardware-{group.slug}", "Is the hardware busy, and if not, why?"
    best = fastest(headline(group))
    if group.in_cycles:
        return Section(slug, title, (Paragraph(_on_chip(best)),))
    reached = best.number_of("share_of_peak")
    blocks: list[Block] = []
    if reached is None:
        words = "The records have no share of a peak: they are older than that figure. This measures it:"
        blocks += commands.lacking((words,), commands.measure(group, at=best))
    else:
        blocks.append(Paragraph(_first(group, best, reached)))
        blocks.append(Paragraph(joined(_reasons(group, best, reached), " ", " ")))
    profiles = material.profiles_of(group)
    if profiles:
        told = [_profile(group, profile) for profile in profiles]
        blocks.append(Paragraph(joined([sentence for sentence in told if sentence], " ", " ")))
    else:
        words = "Which layers bound it was not profiled. This tells:"
        blocks += commands.lacking((words,), commands.profile(group, best.size, group.batches[0]))
    return Section(slug, title, tuple(block for block in blocks if not isinstance(block, Paragraph) or block.sentence))


def _on_chip(best: Entry) -> Sentence:
    """Of a chip that does one thing: what a multiply-add costs."""
    cycles, macs = best.number_of("cycles_per_character"), best.number_of("macs")
    if not cycles or not macs:
        return say("The simulated chip runs nothing but {best}; its cycles are all there is.", best=name(best.variant))
    zeros = best.number_of("sparsity") or 0.0
    return say(
        "The chip runs nothing else: {best} takes {cycles} cycles for the {macs} multiply-adds of a character, {each} "
        "each, {zeros} of its weights being zero; a peak to hold that against was not measured.",
        best=name(best.variant),
        cycles=Number(f"{cycles:,.0f}", best.number),
        macs=Number(f"{macs:,.0f}", best.number),
        each=Number(f"{cycles / macs:.2f} cycles", best.number),
        zeros=Number(per_cent(zeros), best.number),
    )


def _first(group: Group, best: Entry, reached: float) -> Sentence:
    peak, theory = best.number_of("peak_gflops") or 0.0, best.number_of("share_of_theoretical_peak")
    answer = "Yes" if reached >= BUSY else "No" if reached < 0.85 else "Not quite"
    also: Sentence = ()
    if theory is not None:
        also = say(", {share} of the theoretical one", share=Number(per_cent(theory), best.number))
    return say(
        "{answer}: {best} at {place} reaches {share} of the measured {precision} peak of {peak}{also}; {busy} and "
        "above would be optimal.",
        answer=answer, best=name(best.variant), place=place(best, group), share=Number(per_cent(reached), best.number),
        precision=best.text_of("peak_precision") or best.variant.precision,
        peak=Number(f"{peak:,.0f} GFLOP/s", best.number), also=also, busy=per_cent(BUSY),
    )  # fmt: skip


def _reasons(group: Group, best: Entry, reached: float) -> list[Sentence]:
    told: list[Sentence] = []
    if reached > 1.02:
        told.append(("More than the peak: that was measured while the machine was busier than in this run.",))
    how = best.text_of("peak_theoretical_how")
    if (best.number_of("share_of_theoretical_peak") or 0.0) > 1 or _measured_above_theory(best):
        told.append(
            say(
                "The theoretical peak can be exceeded: it is computed from {how}. The measured one is what counts.",
                how=cut(how, 160) or "the processor's nominal clock",
            )
        )  # fmt: skip
    known = [(entry, entry.number_of("share_of_peak")) for entry in group.entries]
    shares = [(entry, share) for entry, share in known if share is not None]
    busiest, most = max(shares, key=lambda pair: pair[1])
    if busiest is not best and most > reached:
        told.append(
            say(
                "Closest to its peak is {busiest} at {place}, {share} of {precision}.",
                busiest=name(busiest.variant), place=place(busiest, group),
                share=Number(per_cent(most), busiest.number),
                precision=busiest.text_of("peak_precision") or busiest.variant.precision,
            )
        )  # fmt: skip
    told += _elsewhere(best, shares)
    integers, operators = best.number_of("int8_operators"), best.number_of("operators")
    if integers is not None and operators:
        told.append(
            say(
                "Of its {operators} operators {integers} run in int8; the others run in float, but all are held "
                "against the int8 peak.",
                operators=f"{operators:.0f}", integers=Number(f"{integers:.0f}", best.number),
            )
        )  # fmt: skip
    per_call = best.number_of("gflop")
    if per_call is not None and reached < 0.5 and per_call < 0.05 and best.call_s < 1e-3:
        told.append(
            say(
                "A call is only {mflop} in {time}: too little work to fill the vector units before it is over.",
                mflop=Number(f"{1e3 * per_call:.3g} MFLOP", best.number),
                time=Number(f"{1e6 * best.call_s:.0f} us", best.number),
            )
        )
    utilisation, memory = best.number_of("gpu_utilisation_percent"), best.number_of("gpu_memory_in_use_bytes")
    if utilisation is not None:
        told.append(
            say("A kernel runs on the GPU {share} of the time.", share=Number(f"{utilisation:.0f} %", best.number))
        )
    if memory is not None:
        told.append(say("{memory} of the card are in use.", memory=Number(f"{memory / 2**20:,.0f} MiB", best.number)))
    peak = mebibytes(best)
    if peak is not None:
        told.append(say("Its process peaks at {memory} of memory.", memory=peak))
    return told


def _measured_above_theory(entry: Entry) -> bool:
    theory, peak = entry.number_of("peak_theoretical_gflops"), entry.number_of("peak_gflops")
    return theory is not None and peak is not None and peak > theory


def _elsewhere(best: Entry, shares: Sequence[tuple[Entry, float]]) -> list[Sentence]:
    """How the share of the same variant depends on size and batch, and of the same backend on precision."""
    told: list[Sentence] = []
    own = [(entry, share) for entry, share in shares if entry.variant == best.variant]
    for words, members in (
        ("batch", sorted((pair for pair in own if pair[0].size == best.size), key=lambda pair: pair[0].batch)),
        ("size", sorted((pair for pair in own if pair[0].batch == best.batch), key=lambda pair: pair[0].size)),
    ):
        if len(members) < 2:
            continue
        (small, low), (large, high) = members[0], members[-1]
        ends = (small.batch, large.batch) if words == "batch" else (small.size, large.size)
        reason = " small ones leave it idle" if high > 1.1 * low else " larger ones do not fill it better"
        told.append(
            say(
                "With the {words} its share goes from {low} at {first} to {high} at {last}:{reason}.",
                words=words, low=Number(per_cent(low), small.number), high=Number(per_cent(high), large.number),
                first=str(ends[0]), last=str(ends[1]), reason=reason,
            )
        )  # fmt: skip
    if best.variant.precision != "fp32":
        plain = (best.variant._replace(precision="fp32"), best.size, best.batch)
        twins = [pair for pair in shares if (pair[0].variant, pair[0].size, pair[0].batch) == plain]
        for twin, share in twins:
            told.append(
                say(
                    "In fp32 the same reaches {share} of {peak}.",
                    share=Number(per_cent(share), twin.number),
                    peak=Number(f"{twin.number_of('peak_gflops') or 0:,.0f} GFLOP/s", twin.number),
                )
            )
    return told


def _profile(group: Group, profile: Profile) -> Sentence:
    """What bounds PyTorch eager, layer by layer, and what the roofline would leave of its time."""
    found = loads(profile)
    if not found:
        return ()
    parts: list[Sentence] = [
        (f"{100 * load.share:.0f} % is {_BOUNDS.get(load.bound, cut(load.bound))}",)
        for load in found
        if load.share >= 0.005
    ]
    where = f"{profile.size} {group.unit} and batch {profile.batch}"
    told = (
        f"Of PyTorch eager's {duration(profile.total_s)} at {where}, ",
        *joined(parts, "; ", "; "),
        ".",
    )
    least = possible(profile)
    if least is None:
        return told
    return (*told, f" With every layer on its roofline it would be {least:.1f} times as fast, in fp32.")

"""Tinychat as firmware of an Arduino UNO, in exact clock cycles of a simulated chip.

``pytest bench_tests/test_firmware.py --benchmark-json run.json``. Before anything is counted, the chip's answers to the
validation queries, all of them, must be those of the integer reference, every logit bit for bit. The
cycles of a case are those of a query and its first character, which a history's gate compares exactly; the table tells
those of a character over whole answers, the query's part shared.
"""

from collections.abc import Callable

import numpy as np
import pytest

from bench_tests.harness.case import Case, NotMeasuredError
from bench_tests.harness.record import Record
from bench_tests.harness.session import Session
from bench_tests.harness.timing import case_clock
from models.data.chat import MOST_ANSWER, context_features, query_codes, query_features
from models.integer import IntegerNet, IntegerTinychat
from optim.backends.avr import AvrRunner

SHOWN = 6  # answers that stand beside the table
PLAIN, PLAIN_QUERIES = "avr_plain", 50


@pytest.mark.benchmark(timer=case_clock, disable_gc=True)
def test_firmware(case: Case, measure: Callable[..., object]) -> None:
    """Take one network as firmware through the harness."""
    measure(case, check=answers_as_the_reference)


def answers_as_the_reference(case: Case, session: Session) -> Record:
    """What whole answers cost, and examples. Raises NotMeasuredError for an answer or a logit that differs."""
    nets = [part.net for part in session.module(case).modules() if isinstance(part, IntegerTinychat)]
    runner = session.compile(case)
    if len(nets) != 1 or not isinstance(runner, AvrRunner):
        raise NotMeasuredError("failed", f"firmware: recipe {case.recipe} does not end in one integer network")
    chats = session.workload(case.workload).data("test", case.size)
    queries = list(dict.fromkeys(chats.queries))
    if case.backend == PLAIN:  # it is there for its cycles, and takes them
        queries = queries[:PLAIN_QUERIES]
    spent = characters = most = 0
    shown: list[str] = []
    for query in queries:
        answer = runner.answer(query_codes(query).tobytes().rstrip(b"\0"))
        said, logits = reference(nets[0], query)
        if answer.text.decode() != said or not np.array_equal(answer.logits, logits):
            raise NotMeasuredError(
                "failed",
                f"firmware: the chip answers {query!r} with {answer.text.decode()!r}, the integer reference with "
                f"{said!r}, or with other logits",
            )
        spent, characters = spent + answer.total_cycles, characters + len(answer.cycles)
        most = max(most, answer.query_cycles + answer.cycles[0], *answer.cycles[1:])
        if len(shown) < SHOWN:
            shown.append(f"{query} → {said}")
    return {
        "queries": len(queries), "characters": characters, "cycles_per_character": spent / characters,
        "most_cycles_of_a_character": most, "answers": "\n".join(shown),
    }  # fmt: skip


def reference(net: IntegerNet, query: str) -> tuple[str, np.ndarray]:
    """The answer to a query and the logits int16 (characters, classes) on the way, in numpy."""
    answer, rows = "", []
    while len(answer) < MOST_ANSWER:
        counts = np.concatenate([query_features(query), context_features(answer)])
        rows.append(net.logits(counts[None])[0])
        label = int(rows[-1].argmax())
        if label == len(net.characters):
            break
        answer += net.characters[label]
    return answer, np.array(rows)

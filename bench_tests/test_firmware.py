"""Tinychat as firmware of an Arduino UNO, in exact clock cycles of a simulated chip.

``pytest bench_tests/test_firmware.py --benchmark-json run.json``. Before anything is counted, the chip's answers to all
validation queries must be those of the integer reference, every logit bit for bit; the plain engine's to the first 50.
The cycles of a case are those of a query and its first character, which a history's gate compares exactly; the table
tells those of a character over whole answers, the query's part shared.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from bench_tests.harness.case import Case, NotMeasuredError
from bench_tests.harness.record import Record
from bench_tests.harness.session import Session
from bench_tests.harness.timing import case_clock
from models.chatting import Text, encode_counts, respond
from models.data.chat import query_codes
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
    rows: list[np.ndarray] = []

    def ask(texts: Sequence[Text]) -> torch.Tensor:
        rows.append(net.logits(encode_counts(texts)[0].numpy()))
        return torch.from_numpy(rows[-1])

    (answer,) = respond(ask, [query], net.characters)
    return answer, np.concatenate(rows)

"""The table of firmware, from records made by hand, and what the experiment asks of a chip's answers."""

from types import SimpleNamespace

import numpy as np
import pytest

from bench_tests.harness.case import NotMeasuredError
from bench_tests.harness.firmware import firmware
from bench_tests.harness.record import Record
from bench_tests.test_firmware import PLAIN, SHOWN, answers_as_the_reference, reference
from bench_tests.unit.test_avr import needs_tools, net_of
from models.data.chat import context_features, query_features
from models.integer import IntegerTinychat
from models.tinychat import TextTinychat
from models.workload import DataChoice, load_workload
from optim.backends import load_backend
from optim.backends.avr import AvrRunner
from optim.backends.base import Target

ROW: Record = {
    "recipe": "tiny", "backend": "avr", "chip": "atmega328p", "quality_next_char": 0.671,
    "quality_examples": 2_800, "parameters": 38_440,
    "flash_bytes": 11_870, "sram_bytes": 1_003, "cycles_per_character": 32_000.0, "frequency_hz": 16e6, "fits": "yes",
    "speedup": 61.44, "queries": 2, "answers": "HI → HELLO\nWHO → ME",
}  # fmt: skip


def test_a_row_tells_memory_time_and_answers():
    lines = firmware({"a": ROW, "other": {"backend": "eager"}})
    (row,) = (line for line in lines if line.startswith("| tiny"))
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "tiny, avr", "atmega328p", "67.1% of 2,800", "38,440", "11,870", "1,003", "32,000", "2.00", "yes", "61.4",
    ]  # fmt: skip
    assert lines[-4:] == [
        "tiny answers 2 queries as the integer reference does, such as",
        "- HI → HELLO",
        "- WHO → ME",
        "",
    ]


def test_no_firmware_is_no_table():
    assert firmware({"a": {"backend": "eager"}}) == []


class Run:
    """A session with one network as firmware."""

    def __init__(self, net):
        self._module = TextTinychat(IntegerTinychat(net)).eval()

    def module(self, case):
        return self._module

    def workload(self, name):
        return load_workload("tinychat_text", DataChoice("own_sentences"))

    def compile(self, case):
        example = self.workload("").example(64, 1, 1)
        return load_backend("avr").compile(self._module, example, "fp32", Target())


CASE = SimpleNamespace(workload="tinychat_text", recipe="tiny", size=64, backend="avr")


@needs_tools
def test_answers_are_the_references_and_cost_what_they_cost(monkeypatch):
    net = net_of("2bit", (256, 12, 9), seed=3)
    found = answers_as_the_reference(CASE, Run(net))
    everyone = set(load_workload("tinychat_text", DataChoice("own_sentences")).data("test", 64).queries)
    assert (found["queries"], len(found["answers"].splitlines())) == (len(everyone), SHOWN)
    assert answers_as_the_reference(SimpleNamespace(**{**vars(CASE), "backend": PLAIN}), Run(net))["queries"] <= 50
    assert 0 < found["cycles_per_character"] <= found["most_cycles_of_a_character"]
    ask = AvrRunner.answer

    def one_bit_off(self, *line):
        answer = ask(self, *line)
        answer.logits[-1, 0] ^= 1
        return answer

    monkeypatch.setattr(AvrRunner, "answer", one_bit_off)
    with pytest.raises(NotMeasuredError, match=r"firmware: the chip answers .* or with other logits"):
        answers_as_the_reference(CASE, Run(net))


def test_the_reference_goes_on_with_its_own_characters():
    net = net_of("2bit", (256, 12, 9), seed=3)
    said, rows = reference(net, "hello")
    for place, row in enumerate(rows):
        counts = np.concatenate([query_features("hello"), context_features(said[:place])])
        assert np.array_equal(row, net.logits(counts[None])[0])
    assert len(rows) == (len(said) if len(said) == 24 else len(said) + 1)

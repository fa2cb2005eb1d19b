from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from models.chat_file import save_npz
from models.data.chat import MOST_ANSWER, context_features, query_codes, query_features, recent_codes
from models.errors import SpeedproofError
from models.integer import KINDS, IntegerLayer, IntegerNet, IntegerTinychat
from models.integer_files import integer_state
from models.tinychat import TextTinychat, Tinychat, TinychatConfig
from models.weights import save_checkpoint
from optim.backends import load_backend
from optim.backends.avr import AvrRunner, build, simulate
from optim.backends.avr.__main__ import main
from optim.backends.avr.header import as_lists, fast_header
from optim.backends.base import Target

TARGET = Target()
needs_tools = pytest.mark.skipif(
    (reason := build.missing_compiler() or simulate.missing_simulator()) is not None, reason=str(reason)
)
QUERIES = (
    b"", b"h", b"Hello", b"ARE YOU sure? (1+1=2)", b"x" * 50, b"abcdefgh" * 8, b"abcdefgh" * 8 + b"Z",
    b"who are you " * 25, "große Füße, žluťoučký kůň 你好".encode(), bytes(range(128, 256)), b"nul\0gone",
)  # fmt: skip


def net_of(kind, sizes, seed=0, zeros=None, shift=2, characters="abcdefghijklmnopqrstuvwxyz!?/0123456789"):
    """A network of random weights; biases and shifts such that some sums wrap and some values are above a byte."""
    dice = np.random.default_rng(seed)
    values = KINDS[kind]
    share = None if zeros is None else [zeros if value == 0 else (1 - zeros) / (len(values) - 1) for value in values]
    layers = [
        IntegerLayer(
            dice.choice(values, (out, inputs), p=share).astype(np.int8),
            dice.integers(-400, 400, out).astype(np.int16),
            shift,
        )
        for inputs, out in pairwise(sizes)
    ]
    return IntegerNet(tuple(layers), 5, kind, characters[: sizes[-1] - 1])


def expected(net, query):
    """The answer and all logits, by the encodings in numpy and the integer reference."""
    # Bytes go through text unchanged where they are UTF-8; bare bytes above 127 are counted by their own values.
    answer, rows = "", []
    while len(answer) < MOST_ANSWER:
        counts = np.concatenate([counts_of(query), context_features(answer)])
        rows.append(net.logits(counts[None])[0])
        label = int(rows[-1].argmax())
        if label == len(net.characters):
            break
        answer += net.characters[label]
    return answer.encode(), np.array(rows)


def counts_of(query):
    try:
        return query_features(query.decode())
    except UnicodeDecodeError:
        padded = b" " + query[:64].lower() + b" "
        grams = (padded[start : start + 3] for start in range(len(padded) - 2))
        buckets = [((a * 31 + b) * 31 + c) % 128 for a, b, c in grams]
        return np.bincount(buckets, minlength=128).astype(np.uint8)


def runner_of(net, backend="avr") -> AvrRunner:
    module = TextTinychat(IntegerTinychat(net)).eval()
    runner = load_backend(backend).compile(module, example("hello", "ab"), "fp32", TARGET)
    assert isinstance(runner, AvrRunner)
    return runner


def example(query, so_far):
    return tuple(torch.from_numpy(codes.copy())[None] for codes in (query_codes(query), recent_codes(so_far)))


def all_active():
    """A network of the widest layer that bytes can number, all of whose neurons are always active."""
    net = net_of("1bit", (256, 256, 3), shift=0)
    return IntegerNet((replace(net.layers[0], bias=np.full(256, 20_000, np.int16)), net.layers[1]), 5, "1bit", "ab")


NETS = {
    "2bit_lists": net_of("2bit", (256, 37, 19, 11), zeros=0.7),
    "2bit_planes": net_of("2bit", (256, 37, 19, 11)),
    "2bit_all_twos": net_of("2bit", (256, 21, 5), zeros=0.05, shift=1),
    "ternary": net_of("ternary", (256, 13, 9, 6), zeros=0.6, shift=0),
    "ternary_two_pages": net_of("ternary", (256, 131, 135, 40), zeros=0.8, shift=3),
    "ternary_one_layer": net_of("ternary", (256, 3), zeros=0.5),
    "ternary_dead": net_of("ternary", (256, 5, 5, 4), zeros=0.6, shift=14),
    "1bit": net_of("1bit", (256, 37, 19, 11)),
    "1bit_whole_bytes": net_of("1bit", (256, 32, 8, 4), shift=3),
    "1bit_256_active": all_active(),
}


@needs_tools
@pytest.mark.parametrize("backend", ["avr", "avr_plain"])
@pytest.mark.parametrize("name", NETS)
def test_firmware_equals_the_integer_network(name, backend):
    net = NETS[name]
    runner = runner_of(net, backend)
    for query in QUERIES[:3] if backend == "avr_plain" else QUERIES:
        found = runner.answer(query)
        answer, logits = expected(net, query)
        assert found.text == answer
        assert np.array_equal(found.logits, logits)
        assert (found.starts, found.watchdog_on) == (1, True)


def test_both_forms_of_a_layer_are_among_those():
    forms = {name: as_lists(net, build.UNO.flash_bytes) for name, net in NETS.items()}
    assert all(forms["2bit_lists"])
    assert not any(forms["2bit_planes"])
    assert not any(forms["1bit"])


@needs_tools
@pytest.mark.parametrize("so_far", ["", "A", "ABCDEFGH", "IJKLMNOPABCDEFGH"])
def test_a_call_is_one_character_bit_for_bit(so_far):
    net = NETS["2bit_lists"]
    runner, module = runner_of(net), TextTinychat(IntegerTinychat(net))
    inputs = example("Who are you?", so_far)
    (logits,) = runner(*inputs)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, module(*inputs))
    cycles = runner.cycles
    runner(*example("another", "B"))
    runner(*inputs)
    assert runner.cycles == cycles > 0
    assert runner.coverage(inputs).operators == {"atmega328p/int16": 3}


@needs_tools
def test_cycles_of_an_answer_are_the_querys_and_each_characters():
    net = NETS["ternary_two_pages"]
    fast, plain = runner_of(net).answer(b"hello"), runner_of(net, "avr_plain").answer(b"hello")
    assert fast.text == plain.text
    assert fast.total_cycles == fast.query_cycles + sum(fast.cycles)
    assert len(fast.cycles) == len(fast.logits)
    assert 12 * fast.cycles_per_character < plain.cycles_per_character


@needs_tools
def test_a_long_query_costs_no_more_than_64_bytes():
    runner = runner_of(NETS["2bit_lists"])
    short, long = runner.answer(b"abcdefgh" * 8), runner.answer(b"abcdefgh" * 40)
    assert (long.text, long.query_cycles) == (short.text, short.query_cycles)
    assert long.stack_bytes < 200


@needs_tools
def test_a_newline_ends_a_query_and_a_tab_an_answer_so_far():
    runner = runner_of(NETS["2bit_lists"])
    for query in (b"two\nlines", b"a\tb", b"a\rb"):
        with pytest.raises(SpeedproofError, match="newline, carriage return or TAB"):
            runner.answer(query)
    simulator = runner._simulator
    plain = simulator.ask(b"hello\n")
    assert np.array_equal(simulator.ask(b"hello\r\n").logits, plain.logits)
    rest = simulator.ask(b"hello\t" + plain.text[:1] + b"\n")
    assert np.array_equal(rest.logits[: len(plain.logits) - 1], plain.logits[1:])


@needs_tools
def test_the_watchdog_does_not_bite_while_the_chip_waits(monkeypatch):
    runner = runner_of(NETS["2bit_lists"])
    whole = runner.answer(b"hello")
    monkeypatch.setattr(simulate, "_MOST_CYCLES", 3 * simulate.FREQUENCY_HZ)
    assert runner._simulator._exchange(b"he")[1] == "timeout"
    after = runner._simulator.ask(b"llo\n")
    assert after.text == whole.text
    assert after.starts == 1


def changed_sketch(monkeypatch, tmp_path, *changes):
    """Firmware is built from a sketch with some text replaced."""
    (tmp_path / "sketch").mkdir()
    for source in build.SKETCH.iterdir():
        text = source.read_text()
        for old, new in changes:
            text = text.replace(old, new)
        (tmp_path / "sketch" / source.name).write_text(text)
    monkeypatch.setattr(build, "SKETCH", tmp_path / "sketch")


HANG = ("engine_query(query,", "while (length == 7) continue; engine_query(query,")  # at a query of 5 bytes


@needs_tools
def test_the_watchdog_starts_a_chip_that_hangs_again(monkeypatch, tmp_path):
    net = NETS["ternary_one_layer"]
    changed_sketch(monkeypatch, tmp_path, HANG)
    monkeypatch.setattr(simulate, "_MOST_CYCLES", 3 * simulate.FREQUENCY_HZ)
    simulator = simulate.Simulator(build.build_firmware(net)[0])
    assert simulator._exchange(b"hello\n")[1] == "timeout"
    after = simulator.ask(b"hi\n")
    assert (after.text, after.starts) == (expected(net, b"hi")[0], 2)


@needs_tools
def test_after_a_query_without_an_answer_the_next_one_has_its_own(monkeypatch, tmp_path):
    net = NETS["ternary_one_layer"]
    changed_sketch(monkeypatch, tmp_path, HANG)
    monkeypatch.setattr(simulate, "_MOST_CYCLES", simulate.FREQUENCY_HZ)
    simulator = simulate.Simulator(build.build_firmware(net)[0])
    for line in (b"hello\n", b"no end"):
        with pytest.raises(SpeedproofError, match="did not answer"):
            simulator.ask(line)
        after = simulator.ask(b"hi\n")
        assert np.array_equal(after.logits, expected(net, b"hi")[1])
        assert after.starts == 1


@needs_tools
def test_what_is_no_line_is_refused_and_leaves_the_chip_alone():
    net = NETS["ternary_one_layer"]
    simulator = runner_of(net)._simulator
    for line in (b"x" * 1000 + b"\n", b"two\nlines\n"):
        with pytest.raises(SpeedproofError, match="are no line for the chip"):
            simulator.ask(line)
        assert np.array_equal(simulator.ask(b"hi\n").logits, expected(net, b"hi")[1])
    long = simulator.ask(b"x" * 999 + b"\n")
    assert np.array_equal(long.logits, expected(net, b"x" * 999)[1])


@needs_tools
@pytest.mark.parametrize("less", [1, 0, -1])
def test_a_stack_that_has_no_room_left_is_seen(less, monkeypatch, tmp_path):
    net = NETS["1bit"]
    measured = runner_of(net)
    room = build.UNO.sram_bytes - measured.firmware.sram_bytes
    left = measured.stack_bytes - less
    assert left >= build.SMALLEST_STACK_BYTES
    pad = f"static volatile uint8_t pad[{room - left}];\nvoid setup() {{\n  pad[0] = 1;"
    changed_sketch(monkeypatch, tmp_path, ("void setup() {", pad))
    if less < 0:
        assert runner_of(net).stack_bytes == measured.stack_bytes
        return
    with pytest.raises(SpeedproofError, match=f"variables leave {left} bytes, and the stack has no room left"):
        runner_of(net)


@needs_tools
def test_sizes_are_those_of_the_file(tmp_path):
    runner = runner_of(NETS["1bit"])
    firmware = runner.firmware
    assert runner.size_bytes == firmware.flash_bytes
    binary = tmp_path / "firmware.bin"
    assert build.works(["avr-objcopy", "-O", "binary", str(firmware.elf), str(binary)])
    assert binary.stat().st_size == firmware.flash_bytes
    assert 0 < runner.stack_bytes < 300
    assert firmware.end_address - build.SRAM_START == firmware.sram_bytes


@needs_tools
def test_one_bit_weights_leave_room():
    net = net_of("1bit", (256, 128, 96, 64, 40))
    firmware, _ = build.build_firmware(net)
    assert sum(layer.weights.size for layer in net.layers) > 53_000
    assert firmware.flash_bytes < 10_240


@needs_tools
def test_too_big_says_by_how_many_bytes_of_which_memory():
    net = net_of("2bit", (256, 256, 192, 128, 40))
    with pytest.raises(SpeedproofError, match=r"bytes of flash are [\d,]+ more than the 32,256"):
        build.build_firmware(net)
    wide = net_of("2bit", (256,) * 11 + (40,))
    with pytest.raises(SpeedproofError, match=r"bytes of flash are [\d,]+ more than the 32,256"):
        build.build_firmware(wide)
    with pytest.raises(SpeedproofError, match=r"17\d,\d{3} bytes of flash are 1\d\d,\d{3} more than the 65,536"):
        build.build_firmware(wide, build.LARGE, plain=True)
    firmware, _ = build.build_firmware(NETS["1bit"])
    room = build.UNO.sram_bytes - firmware.sram_bytes
    firmware.check(room)
    with pytest.raises(SpeedproofError, match=r"2,055 bytes of SRAM are 7 more than the 2,048"):
        firmware.check(room + 7)


@needs_tools
def test_a_large_network_has_a_plain_reference_on_the_larger_chip():
    runner = load_backend("avr_plain").compile(
        TextTinychat(Tinychat(TinychatConfig())).eval(), example("hello", ""), "fp32", TARGET
    )
    assert isinstance(runner, AvrRunner)
    assert runner.firmware.chip.name == "atmega1284p"
    assert runner.cycles > 10 * 140_000  # of the call that measured the stack


def test_a_module_without_integers_is_one_sentence():
    with pytest.raises(SpeedproofError, match="avr runs integer networks only, and Tinychat holds 0"):
        load_backend("avr").compile(Tinychat(), example("hello", ""), "fp32", TARGET)
    with pytest.raises(SpeedproofError, match="integer networks only, and ReLU"):
        load_backend("avr_plain").compile(nn.ReLU(), example("hello", ""), "fp32", TARGET)


@needs_tools
def test_two_queries_at_once_are_refused():
    runner = runner_of(NETS["1bit"])
    with pytest.raises(SpeedproofError, match="one query at a time"):
        runner(torch.zeros(2, 64, dtype=torch.uint8), torch.zeros(2, 8, dtype=torch.uint8))


def test_what_is_missing_is_told_with_the_command(monkeypatch):
    monkeypatch.setenv("PATH", "")
    for function in (build.missing_compiler, simulate.missing_simulator):
        function.cache_clear()
        assert "apt install gcc gcc-avr avr-libc simavr" in function()
        function.cache_clear()
    assert "int16" in load_backend("avr").missing("bf16", TARGET)
    assert "not on cuda" in load_backend("avr").missing("fp32", Target("cuda"))


def test_networks_that_bytes_cannot_number_are_refused():
    with pytest.raises(SpeedproofError, match="takes 256 counts"):
        fast_header(net_of("ternary", (128, 8, 4)), 32_256)


def test_the_sketch_is_what_was_measured(tmp_path, capsys):
    net = NETS["ternary"]
    state, meta = integer_state(net)
    save_checkpoint(tmp_path / "model.pt", {"state_dict": state, "meta": meta})
    assert main([str(tmp_path / "model.pt"), "-o", str(tmp_path)]) == 0
    assert "tinychat.ino" in capsys.readouterr().out
    sketch = tmp_path / "tinychat"
    save_npz(tmp_path / "model.npz", net)
    assert main([str(tmp_path / "model.npz"), "-o", str(tmp_path / "other")]) == 0
    for source in sketch.iterdir():
        assert (tmp_path / "other" / "tinychat" / source.name).read_text() == source.read_text()
    assert {path.name for path in sketch.iterdir()} == {"tinychat.ino", "engine.c", "engine.h", "model.h"}
    assert (sketch / "model.h").read_text() == fast_header(net, build.UNO.flash_bytes)
    assert (sketch / "engine.c").read_text() == (build.SKETCH / "engine.c").read_text()


def test_a_bad_model_makes_no_sketch(tmp_path, capsys):
    (tmp_path / "model.npz").write_bytes(b"PK")
    assert main([str(tmp_path / "model.npz"), "-o", str(tmp_path / "out")]) == 2
    save_checkpoint(tmp_path / "float.pt", {"state_dict": {"x": torch.zeros(1)}, "meta": {}})
    assert main([str(tmp_path / "float.pt"), "-o", str(tmp_path / "out")]) == 2
    save_npz(tmp_path / "float.npz", Tinychat(TinychatConfig((8,))))
    assert main([str(tmp_path / "float.npz"), "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line[:6] for line in said] == ["error:"] * 3
    assert "holds a float network" in said[2]
    assert not (tmp_path / "out").exists()


@needs_tools
def test_a_chip_that_is_not_waited_for_starts_anew():
    net = net_of("2bit", (256, 12, 9), seed=3)
    runner = runner_of(net)
    whole = runner.answer(b"hello")
    assert len(whole.cycles) > 1
    for _ in range(2):
        first = runner.answer(b"hello", characters=1)
        assert np.array_equal(first.logits, whole.logits[:1])
        assert (first.query_cycles, first.cycles) == (whole.query_cycles, whole.cycles[:1])
        assert first.starts == 1  # a start that was asked for is none of the watchdog's
        assert first.stack_bytes == whole.stack_bytes  # what was painted over is not forgotten
    again = runner.answer(b"hello")
    assert (again.text, again.cycles) == (whole.text, whole.cycles)

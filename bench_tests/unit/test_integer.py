import contextlib
import tokenize
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.chat_file import read_network
from models.data.fetch import data_root
from models.errors import SpeedproofError
from models.integer import KINDS, IntegerLayer, IntegerNet, IntegerTinychat, integer_net, pack, read_released, unpack
from models.tinychat import Tinychat

RELEASED = data_root() / "z80ai-tinychat" / "model.npz"
kinds = st.sampled_from(sorted(KINDS))


def letters(count):
    return "".join(chr(ord("0") + number) for number in range(count))


@st.composite
def nets(draw):
    """Small networks of any kind, whose biases and activations are large enough to wrap."""
    kind = draw(kinds)
    sizes = draw(st.lists(st.integers(1, 9), min_size=2, max_size=4))
    dice = np.random.default_rng(draw(st.integers(0, 2**32)))
    layers = [
        IntegerLayer(
            dice.choice(KINDS[kind], (out, inputs)).astype(np.int8),
            dice.integers(-(2**15), 2**15, out).astype(np.int16),
            draw(st.integers(0, 4)),
        )
        for inputs, out in pairwise(sizes)
    ]
    return IntegerNet(tuple(layers), draw(st.integers(0, 7)), kind, letters(sizes[-1] - 1))


def add16(left, right):
    """The chip's addition: 16 bits, the carry is lost, the highest bit is the sign."""
    low = (left + right) % 2**16
    return low - 2**16 if low >= 2**15 else low


def slowly(net, counts):
    """The network one weight after the other, in Python's integers."""
    values = [int(count) * 2**net.input_shift for count in counts]
    for layer in net.layers:
        sums = []
        for row, bias in zip(layer.weights.tolist(), layer.bias.tolist(), strict=True):
            total = bias
            for weight, value in zip(row, values, strict=True):
                for _ in range(abs(weight)):
                    total = add16(total, value if weight > 0 else -value)
            sums.append(total // 2**layer.shift)
        values = [max(0, total) for total in sums]
    return sums


@given(nets(), st.integers(0, 2**32))
def test_numpy_and_torch_equal_one_weight_after_the_other(net, seed):
    counts = np.random.default_rng(seed).integers(0, 256, (3, net.sizes[0]))
    expected = [slowly(net, row) for row in counts]
    assert net.logits(counts).tolist() == expected
    assert IntegerTinychat(net)(torch.from_numpy(counts).float()).int().tolist() == expected


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_torch_is_exact_in_the_widest_layer_with_the_largest_activations(kind):
    smallest = min(KINDS[kind])
    wide = np.full((256, 256), max(KINDS[kind]), np.int8)
    wide[1::2] = smallest
    layers = (
        IntegerLayer(np.full((256, 256), -1, np.int8), np.full(256, 2**15 - 1, np.int16), 0),
        IntegerLayer(wide[:96], np.full(96, -(2**15), np.int16), 0),  # as many classes as there are characters
    )
    net = IntegerNet(layers, 7, kind, "".join(map(chr, range(32, 127))))
    counts = np.zeros((2, 256), np.uint8)
    counts[1, :3] = 1
    assert net.logits(counts)[0].tolist() == slowly(net, counts[0])
    assert np.array_equal(IntegerTinychat(net)(torch.from_numpy(counts).float()).numpy(), net.logits(counts))


@given(kinds, st.integers(1, 7), st.integers(1, 11), st.integers(0, 2**32))
def test_unpacking_undoes_packing(kind, rows, columns, seed):
    weights = np.random.default_rng(seed).choice(KINDS[kind], (rows, columns)).astype(np.int8)
    packed = pack(weights, kind)
    assert packed.dtype == np.uint8
    assert len(packed) == -(-weights.size // (8 if kind == "1bit" else 4))
    assert np.array_equal(unpack(packed, kind, (rows, columns)), weights)


def test_packed_bytes_are_low_bits_first():
    assert pack([0, 1, -2, -1, 1], "2bit").tolist() == [0b11_10_01_00, 0b01]
    assert pack([-1, 0, 1], "ternary").tolist() == [0b01_00_11]
    assert pack([1, -1, -1, 1, 1, 1, 1, 1, 1], "1bit").tolist() == [0b11111001, 1]


def floats(kind, sizes, seed):
    dice = np.random.default_rng(seed)
    return [
        (dice.choice(KINDS[kind], (out, inputs)), float(dice.uniform(0.02, 0.3)), dice.normal(0, 0.3, out))
        for inputs, out in pairwise(sizes)
    ]


@given(kinds, st.integers(0, 2**32))
def test_integers_follow_the_floats_they_were_made_of(kind, seed):
    layers = floats(kind, (40, 24, 16, 10), seed)
    counts = np.random.default_rng(seed).integers(0, 3, (64, 40)).astype(np.uint8)
    net = integer_net(layers, counts, letters(9), kind, input_shift=7, most_activation=2**15)
    values = counts.astype(np.float64)
    for number, (q, scale, bias) in enumerate(layers):
        values = values @ (q * scale).T + bias
        values = values if number == len(layers) - 1 else np.maximum(values, 0)
    units = 2.0**7 / np.prod([scale * 2**layer.shift for (_, scale, _), layer in zip(layers, net.layers, strict=True)])
    # What is lost is at most a unit for each rounding, which the later layers multiply.
    lost = 24 * 2 * 16 * 2
    assert np.abs(net.logits(counts) - values * units).max() <= lost


@given(kinds, st.integers(0, 2**32), st.sampled_from([63, 255]))
def test_shifts_leave_room_for_twice_the_sums_and_keep_activations_small(kind, seed, most):
    counts = np.random.default_rng(seed).integers(0, 4, (32, 60)).astype(np.uint8)
    net = integer_net(floats(kind, (60, 30, 20, 7), seed), counts, letters(6), kind, most_activation=most)
    values = counts.astype(np.int64) << net.input_shift
    for number, layer in enumerate(net.layers):
        sums = values @ layer.weights.T.astype(np.int64) + layer.bias
        assert np.abs(sums).max() < (2**15 if number == 0 else 2**14)
        values = np.maximum(sums >> layer.shift, 0)
        if number < len(net.layers) - 1:
            assert values.max() <= most
    assert net.layers[-1].shift == 0


def test_a_network_whose_first_sums_do_not_fit_is_refused():
    counts = np.full((1, 256), 255, np.uint8)
    with pytest.raises(SpeedproofError, match="do not fit into 16 bits; give a smaller input_shift than 5"):
        integer_net([(np.ones((2, 256)), 1.0, np.zeros(2))], counts, "a", "1bit")


def layer(inputs=3, outputs=2, *, weight=1, shift=0, dtype=np.int8):
    return IntegerLayer(np.full((outputs, inputs), weight, dtype), np.zeros(outputs, np.int16), shift)


@pytest.mark.parametrize(
    ("layers", "options", "said"),
    [
        ((layer(),), {"kind": "3bit"}, "unknown kind of weights '3bit'"),
        ((), {}, "0 layers"),
        ((layer(),), {"input_shift": 8}, "input shift 8"),
        ((layer(), layer(3)), {}, "layer 1 has 3 inputs: expected the 2 of the layer before"),
        ((layer(300),), {}, "at most 256"),
        ((layer(weight=2),), {}, "expected int8 weights among"),
        ((layer(weight=0),), {"kind": "1bit"}, "expected int8 weights among"),
        ((layer(dtype=np.int16),), {}, "found int16"),
        ((layer(shift=15),), {}, "a shift of 15 bits"),
        ((layer(),), {"characters": "abc"}, "2 classes and 3 characters"),
        ((layer(outputs=3),), {"characters": "aa"}, "the characters 'aa': expected different printable ASCII"),
        ((layer(),), {"characters": "\n"}, "expected different printable ASCII"),
        ((layer(),), {"characters": "é"}, "expected different printable ASCII"),
        ((layer(outputs=256),), {"characters": "x" * 255}, "expected different printable ASCII"),
    ],
)
def test_an_impossible_network_is_one_sentence(layers, options, said):
    with pytest.raises(SpeedproofError, match=said) as caught:
        IntegerNet(layers, **({"input_shift": 5, "kind": "2bit", "characters": "a"} | options))
    assert "\n" not in str(caught.value)


def released(path, **changes):
    arrays = {
        "fc1_weight": np.ones((3, 4), np.int8), "fc1_bias": np.zeros(3, np.int16),
        "fc2_weight": np.full((2, 3), -2, np.int8), "fc2_bias": np.ones(2, np.int16),
        "_architecture": np.array(b'{"input_size": 4, "hidden_sizes": [3], "num_classes": 2}'),
        "_charset": np.array(b"A"),
    } | changes  # fmt: skip
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def test_a_file_in_the_released_form_is_read(tmp_path):
    net = read_released(released(tmp_path / "model.npz"))
    assert (net.sizes, net.characters, net.kind, net.input_shift) == ((4, 3, 2), "A", "2bit", 5)
    assert net.logits([[1, 0, 0, 1]]).tolist() == [slowly(net, [1, 0, 0, 1])]


@pytest.mark.parametrize(
    "changes",
    [
        {"fc2_bias": None},
        {"_charset": None},
        {"_architecture": np.array(b"[1]")},
        {"_architecture": np.array(b"not json")},
        {"_architecture": np.array(b'{"input_size": 5, "hidden_sizes": [3], "num_classes": 2}')},
        {"fc1_weight": np.full((3, 4), 3, np.int8)},
        {"fc1_weight": np.full((3, 4), "a")},
        {"_architecture": np.array(b'{"input_size": 4, "hidden_sizes": [3], "num_classes": "2"}')},
    ],
)
def test_a_file_that_is_not_whole_is_one_sentence(tmp_path, changes):
    with pytest.raises(SpeedproofError) as caught:
        read_released(released(tmp_path / "model.npz", **changes))
    assert "\n" not in str(caught.value)


def test_a_missing_and_a_truncated_file_are_one_sentence(tmp_path):
    with pytest.raises(SpeedproofError, match="no network at"):
        read_released(tmp_path / "nowhere.npz")
    whole = released(tmp_path / "model.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SpeedproofError, match=r"truncated or no model\.npz"):
        read_released(tmp_path / "half.npz")


@pytest.mark.parametrize("error", [NotImplementedError, RuntimeError, tokenize.TokenError, RecursionError])
def test_whatever_the_readers_raise_is_one_sentence(tmp_path, monkeypatch, error):
    path = released(tmp_path / "model.npz")

    def broken(*_, **__):
        raise error("it is\nbroken")

    monkeypatch.setattr(np, "load", broken)
    for read in (read_released, read_network):
        with pytest.raises(SpeedproofError, match="truncated") as caught:
            read(path)
        assert "\n" not in str(caught.value)


@given(st.data())
def test_a_file_with_some_bytes_changed_is_a_network_or_one_sentence(tmp_path_factory, data):
    path = released(tmp_path_factory.mktemp("npz") / "model.npz")
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    for read in (read_released, read_network):
        with contextlib.suppress(SpeedproofError):
            assert isinstance(read(path), IntegerNet | Tinychat)


@pytest.mark.skipif(not RELEASED.is_file(), reason=f"no released network at {RELEASED}")
def test_the_released_network_is_the_one_of_the_facts():
    net = read_released(RELEASED)
    assert net.sizes == (256, 256, 192, 128, 40)
    assert sum(layer.weights.size for layer in net.layers) + sum(len(layer.bias) for layer in net.layers) == 145_000
    assert sum(len(pack(layer.weights, "2bit")) for layer in net.layers) == 36_096

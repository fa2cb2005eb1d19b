"""Weights of few bits: the grids against plain references, their gradients, and the integers that come out."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from models.bits import CEILING, BitLinear
from models.errors import SpeedproofError
from models.integer import KINDS, IntegerLayer, IntegerNet, IntegerTinychat
from models.integer_files import INTEGER, integer_of, integer_state, packed_bytes
from models.tinychat import Tinychat, TinychatConfig
from models.weights import read_checkpoint, save_checkpoint
from optim.bits import bit_network, progress_at

kinds = st.sampled_from(sorted(KINDS))
sizes = st.integers(1, 9)
seeds = st.integers(0, 2**16)


def layer(kind: str, inputs: int = 7, outputs: int = 5, seed: int = 0) -> BitLinear:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BitLinear(inputs, outputs, kind)


def reference(weight: np.ndarray, kind: str) -> tuple[np.ndarray, float]:
    """The definitions, weight by weight."""
    flat = [abs(float(value)) for value in weight.flat]
    if kind == "1bit":
        return np.where(weight < 0, -1, 1), sum(flat) / len(flat)
    if kind == "2bit":
        scale = sorted(flat)[max(1, round(0.95 * len(flat))) - 1]
        return np.clip(np.rint(weight / np.float32(scale)), -2, 1), scale
    threshold = 1.2 * sum(flat) / len(flat)
    large = [value for value in flat if value > threshold]
    return np.sign(weight) * (np.abs(weight) > threshold), sum(large) / max(1, len(large))


@given(kinds, sizes, sizes, seeds)
def test_the_grids_are_those_of_their_papers(kind, inputs, outputs, seed):
    own = layer(kind, inputs, outputs, seed)
    q, scale = own.quantized()
    expected, expected_scale = reference(own.weight.detach().numpy(), kind)
    assert q.dtype == np.int8
    assert set(q.flat) <= set(KINDS[kind])
    assert (q == expected).all()
    assert scale == pytest.approx(max(expected_scale, 1e-6), rel=1e-5)


@given(kinds, st.floats(0, 1), seeds)
def test_training_sees_the_grid_as_far_as_it_is_closed_and_judging_always_whole(kind, progress, seed):
    own = layer(kind, seed=seed)
    own.progress = progress
    x = torch.randn(3, 7, generator=torch.Generator().manual_seed(seed))
    q, scale = own.quantized()
    rounded = torch.from_numpy(q).float() * scale
    seen = (1 - progress) * own.weight + progress * rounded
    torch.testing.assert_close(own.train()(x), x @ seen.T + own.bias)
    torch.testing.assert_close(own.eval()(x), x @ rounded.T + own.bias)


@given(kinds, seeds)
def test_the_gradient_goes_straight_through_the_rounding(kind, seed):
    own, plain = layer(kind, seed=seed).train(), nn.Linear(7, 5)
    x = torch.randn(3, 7, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        q, scale = own.quantized()
        plain.weight.copy_(torch.from_numpy(q) * scale)
        plain.bias.copy_(own.bias)
    for module in (own, plain):
        module(x).square().sum().backward()
    torch.testing.assert_close(own.weight.grad, plain.weight.grad)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_weights_of_zero_have_a_grid_too(kind):
    own = layer(kind)
    nn.init.zeros_(own.weight)
    q, scale = own.quantized()
    assert 0 < scale < 1e-5
    assert (q == (1 if kind == "1bit" else 0)).all()
    assert own(torch.ones(1, 7)).isfinite().all()


@pytest.mark.parametrize("kind", ["2bit", "ternary"])
def test_the_loss_pulls_weights_onto_their_grid(kind):
    own = layer(kind, 32, 16)
    before = own.distance().item()
    optimizer = torch.optim.SGD(own.parameters(), 5e-4 * own.weight.numel())
    for _ in range(100):
        optimizer.zero_grad()
        own.distance().backward()
        optimizer.step()
    assert own.distance().item() < 0.2 * before


def test_overflow_counts_only_sums_beyond_the_ceiling():
    own = BitLinear(4, 2, "1bit")  # every |q| is 1
    x = torch.ones(1, 4)
    assert own.overflow(x, CEILING / 4) == 0
    assert own.overflow(x, CEILING / 2).item() == pytest.approx(1)  # twice the ceiling: once too much
    assert own.overflow(-x, CEILING / 2).item() == pytest.approx(1)  # order and signs do not help
    leaf = torch.full((1, 4), 3.0, requires_grad=True)
    own.overflow(leaf, CEILING / 4).backward()
    assert (leaf.grad > 0).all()


def test_the_grid_closes_over_most_epochs():
    found = [progress_at(epoch, 50) for epoch in range(50)]
    assert found[0] == pytest.approx(0.3)
    assert found[20] == pytest.approx(0.65)
    assert found == sorted(found)
    assert all(value == 1 for value in found[40:])


def test_an_unknown_kind_and_a_network_of_another_class_are_refused():
    with pytest.raises(SpeedproofError, match="unknown kind of weights '3bit': expected one of"):
        BitLinear(4, 2, "3bit")
    with pytest.raises(
        SpeedproofError, match="Linear cannot be quantized to 1bit: expected a float network of tinychat"
    ):
        bit_network(nn.Linear(4, 2), "1bit")


@pytest.mark.parametrize("wide", [TinychatConfig((300, 8)), TinychatConfig((8,), inputs=300)])
def test_a_layer_too_wide_for_integers_is_refused_before_training(wide):
    with pytest.raises(SpeedproofError, match="300 inputs, more than the 256 that integers allow"):
        bit_network(Tinychat(wide), "1bit")
    assert bit_network(Tinychat(TinychatConfig((256,))), "1bit").sizes().hidden == (256,)


def test_a_network_takes_over_the_weights_and_leaves_them_alone():
    plain = Tinychat(TinychatConfig((8, 6)))
    own = bit_network(plain, "2bit")
    assert own.sizes() == plain.sizes()
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in own.state_dict().items())
    with torch.no_grad():
        own.layers[0].weight.zero_()
    assert plain.layers[0].weight.abs().sum() > 0


@st.composite
def integer_nets(draw):
    kind, dice = draw(kinds), np.random.default_rng(draw(seeds))
    widths = [draw(sizes) for _ in range(draw(st.integers(1, 3)))] + [draw(st.integers(2, 9))]
    layers = tuple(
        IntegerLayer(
            dice.choice(KINDS[kind], (outputs, inputs)).astype(np.int8),
            dice.integers(-(2**15), 2**15, outputs).astype(np.int16),
            int(dice.integers(0, 15)),
        )
        for inputs, outputs in itertools.pairwise(widths)
    )
    return IntegerNet(layers, int(dice.integers(0, 8)), kind, "ABCDEFGH"[: widths[-1] - 1])


@given(integer_nets())
def test_an_integer_network_comes_back_from_a_file_bit_for_bit(tmp_path_factory, net):
    path = tmp_path_factory.mktemp("net") / "net.pt"
    state, meta = integer_state(net)
    save_checkpoint(path, {"state_dict": state, "meta": meta})
    again = integer_of(*read_checkpoint(path), str(path))
    assert (again.kind, again.input_shift, again.characters) == (net.kind, net.input_shift, net.characters)
    for one, other in zip(again.layers, net.layers, strict=True):
        assert (one.weights == other.weights).all()
        assert (one.bias == other.bias).all()
        assert one.shift == other.shift
    assert packed_bytes(net) == sum(tensor.nbytes for tensor in state.values())
    counts = np.random.default_rng(0).integers(0, 256, (4, net.sizes[0]))
    found = IntegerTinychat(again)(torch.from_numpy(counts).float())
    assert (found.numpy() == net.logits(counts)).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state, made: state.pop("bias0"), "KeyError"),
        (lambda state, made: state.update(weight0=state["weight0"][:-1]), "holds no whole integer network"),
        (lambda state, made: state.update(weight0=torch.cat([state["weight0"]] * 2)), "are of another size"),
        (lambda state, made: made.update(kind="3bit"), "3bit"),
        (lambda state, made: made.update(shifts=[99]), "a shift of 99 bits"),
        (lambda state, made: made.update(sizes=[4]), "IndexError"),
        (lambda state, made: made.update(characters="A"), "expected one class for each character"),
    ],
)
def test_a_file_that_does_not_fit_itself_is_one_sentence(change, words):
    net = IntegerNet((IntegerLayer(np.ones((4, 6), np.int8), np.zeros(4, np.int16), 2),), 5, "2bit", "ABC")
    state, meta = integer_state(net)
    change(state, meta[INTEGER])
    with pytest.raises(SpeedproofError, match=words):
        integer_of(state, meta, "net.pt")

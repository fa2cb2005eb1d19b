"""Tinychat: the network, its workloads and students, its files and commands, and how it is trained."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from models.chat_command import main as chat_main
from models.chat_file import read_network, save_npz
from models.chatting import asking, encode_codes, encode_counts, qualities, respond, sample_texts
from models.data.chat import MOST_ANSWER, OWN, chat_split
from models.data.fetch import data_root
from models.errors import SpeedproofError
from models.integer import IntegerLayer, IntegerNet
from models.tinychat import TextTinychat, Tinychat, TinychatConfig, build_tinychat
from models.weights import read_checkpoint, tinychat_path
from models.workload import DataChoice, load_workload
from optim.backends import load_backend
from optim.backends.base import Target
from optim.command import load_model
from optim.kinds import load_data
from optim.saved import save_model
from optim.train import main as train_main

OURS = DataChoice(OWN)
STUDENT = "tinychat_hidden16x8"
RELEASED = data_root() / "z80ai-tinychat" / "model.npz"
RECORD = pytest.mark.skipif(not RELEASED.is_file(), reason="z80ai's released network is not on this machine")
SMALL = TinychatConfig((5, 3), inputs=7, characters=" AB")


def small(seed: int = 0) -> Tinychat:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Tinychat(SMALL).eval()


def integers(seed: int, kind: str = "2bit", shifts=(1, 2)) -> IntegerNet:
    dice, (low, high) = np.random.default_rng(seed), {"2bit": (-2, 2), "ternary": (-1, 2)}[kind]
    layers = tuple(
        IntegerLayer(dice.integers(low, high, (out, into), np.int8), dice.integers(-9, 9, out, np.int16), shift)
        for into, out, shift in zip((256, 6), (6, 4), shifts, strict=True)
    )
    return IntegerNet(layers, 5, kind, " AB")


def refused(action, *arguments) -> str:
    with pytest.raises(SpeedproofError) as caught:
        action(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def run(capsys, main, *arguments, code=0) -> str:
    """What a command says, on stdout where it succeeds and in one sentence on stderr where it does not."""
    found = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert found == code, said.err
    assert code == 0 or said.err.count("\n") == 1
    return said.err if code else said.out


def test_the_network_is_that_of_the_released_file():
    network = build_tinychat(None)
    assert sum(parameter.numel() for parameter in network.parameters()) == 145_000
    assert (TinychatConfig().classes, network(torch.zeros(3, 256)).shape) == (40, (3, 40))


@given(st.integers(0, 2**16))
def test_the_network_is_matrix_products_with_relu_between(seed):
    network = small(seed)
    x = np.random.default_rng(seed).integers(0, 5, (4, 7)).astype(np.float32)
    state = {name: value.numpy().astype(np.float64) for name, value in network.state_dict().items()}
    hidden = x.astype(np.float64)
    for row in range(2):
        hidden = np.maximum(
            0, np.einsum("bi,oi->bo", hidden, state[f"layers.{row}.weight"]) + state[f"layers.{row}.bias"]
        )
    expected = hidden @ state["layers.2.weight"].T + state["layers.2.bias"]
    assert network(torch.from_numpy(x)).detach().numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden": (0,)}, {"hidden": (8, 5000)}, {"hidden": (1.5,)}, {"inputs": 0}, {"characters": ""},
        {"characters": "AA"}, {"characters": "é"}, {"characters": "A\n"},
    ],
)  # fmt: skip
def test_sizes_that_make_no_network(wrong):
    assert "makes no network" in refused(lambda: TinychatConfig(**wrong))


def test_students_are_named_by_their_layers():
    for name in (STUDENT, "tinychat_text_hidden16x8"):
        workload = load_workload(name, OURS)
        model = workload.build(64, None)
        network = model.network if "text" in name else model
        assert [layer.out_features for layer in network.layers[:-1]] == [16, 8]
        assert model(*workload.example(64, 2, 0)).shape == (2, network.config.classes)
        assert workload.weights(64).own is False
    for name in ("tinychat_16x8", "tinychat_hidden", "tinychat_hidden16x", "tinychat_hidden8_gru4"):
        assert f"unknown workload '{name}'" in refused(load_workload, name, OURS)
    assert "makes no network" in refused(load_workload, "tinychat_hidden0", OURS)
    assert tinychat_path("tinychat_text", "z80ai") == Path("weights/tinychat/z80ai_baseline.pt")
    assert tinychat_path("tinychat_text_hidden16x8", "z80ai").name == "z80ai_hidden16x8.pt"


@pytest.mark.parametrize("seed", range(4))
def test_text_and_counts_are_one_input(seed):
    counts, text = (load_workload(name, OURS) for name in ("tinychat", "tinychat_text"))
    (features,), codes = counts.example(64, 50, seed), text.example(64, 50, seed)
    assert [(tensor.dtype, tensor.shape) for tensor in codes] == [(torch.uint8, (50, 64)), (torch.uint8, (50, 8))]
    model = text.build(64, None)
    assert torch.equal(model.encode(*codes), features)
    assert torch.equal(model(*codes), counts.build(64, None)(features))
    assert [len(tensor) for tensor in counts.example(64, 1, seed)] == [1]


def test_random_texts_can_be_typed():
    texts = [text for pair in sample_texts(OURS, 300, 1) for text in pair]
    assert all(text.isascii() and (text.isprintable() or not text) for text in texts)
    assert {len(query) for query in texts[::2]} >= {0, 1, 64}
    known = chat_split(OURS, "validation")
    assert set(sample_texts(OURS, 50, 2)) <= set(zip(known.queries, known.so_far, strict=True))


@pytest.mark.parametrize("backend", ["eager", "onnxruntime", "openvino"])
def test_the_encoding_is_exact_on_backends(backend):
    engine = load_backend(backend)
    if reason := engine.missing("fp32", Target()):
        pytest.skip(reason)
    texts = [
        ("", ""),
        ("a", "B"),
        ("hello there", "HI"),
        ("x" * 300, "ABCDEFGHIJ"),
        ("h\u00e9 \t\n|", " "),
        ("a\0b", ""),
    ]
    texts += sample_texts(OURS, 10, 1)
    runner = engine.compile(TextTinychat(nn.Identity()), encode_codes(texts), "fp32", Target())
    assert torch.equal(runner(*encode_codes(texts))[0], encode_counts(texts)[0])
    other = sample_texts(OURS, len(texts), 0)
    assert torch.equal(runner(*encode_codes(other))[0], encode_counts(other)[0])


class Reader:
    """An oracle: from the text itself to the right character of a table, one-hot; it counts the rows of its calls."""

    def __init__(self, right: dict, classes: int) -> None:
        self.right, self.classes = right, classes
        self.calls: list[int] = []

    def __call__(self, inputs):
        self.calls.append(len(inputs[0]))
        keys = [(bytes(query).rstrip(b"\0"), bytes(recent)) for query, recent in zip(*inputs, strict=True)]
        return (nn.functional.one_hot(torch.tensor([self.right.get(key, 0) for key in keys]), self.classes).float(),)


def reader(chats, skip=()) -> Reader:
    """Knows what the first answer to each query has next, but for queries to skip, of which it says a space first."""
    right: dict[tuple[bytes, bytes], int] = {}
    for query, so_far, target in zip(chats.queries, chats.so_far, chats.targets.tolist(), strict=True):
        if query not in skip:
            right.setdefault((query.encode(), (b" " * 8 + so_far.encode())[-8:]), target)
    return Reader(right, len(chats.characters) + 1)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_quality_of_one_who_knows(batch):
    chats = chat_split(OURS, "validation")
    skip = {query for query, answers in chats.answers.items() if len(answers) > 1} | set(list(chats.answers)[:5])
    known = reader(chats, skip)
    found = {one.name: one for one in qualities(asking(known, encode_codes, batch), chats, None)}
    assert list(found) == ["next_char", "first_char", "loss", "whole_answers"]
    assert set(known.calls) == {batch}
    right = [query not in skip or chats.characters[target : target + 1] == " "
             for query, target in zip(chats.queries, chats.targets.tolist(), strict=True)]  # fmt: skip
    assert found["next_char"].outcomes.tolist() == right
    assert found["next_char"].value == np.mean(right)
    first = [one for one, so_far in zip(right, chats.so_far, strict=True) if not so_far]
    assert found["first_char"].outcomes.tolist() == first
    assert found["whole_answers"].outcomes.tolist() == [query not in skip for query in chats.answers]
    low, high = np.log(np.e + known.classes - 1) - 1, np.log(np.e + known.classes - 1)
    assert found["loss"].outcomes == pytest.approx(np.where(right, low, high))
    assert not found["loss"].higher_is_better
    said = {answers[0] for query, answers in chats.answers.items() if query not in skip}
    assert len(set(found["whole_answers"].answers)) == len(said) + 1  # those of the skipped ones are spaces without end


def test_quality_of_some_examples():
    chats = chat_split(OURS, "train")
    found = qualities(asking(reader(chats), encode_codes, 8), chats, 30)
    assert [one.examples for one in found] == [30, chats.so_far[:30].count(""), 30, len(set(chats.queries[:30]))]


def test_any_of_several_answers_is_right():
    chats = chat_split(OURS, "train")
    several = [query for query, answers in chats.answers.items() if len(answers) > 1]
    said = respond(asking(reader(chats), encode_codes, 8), several, chats.characters)
    assert all(answer in chats.answers[query] for query, answer in zip(several, said, strict=True))


def test_an_answer_without_an_end_is_cut():
    def ask(texts):
        return nn.functional.one_hot(torch.tensor([1 if query == "on" else 2 for query, _ in texts]), 3).float()

    assert respond(ask, ["on", "off"], " A") == ["A" * MOST_ANSWER, ""]
    equal = respond(lambda texts: torch.zeros(len(texts), 3), ["first of equals"], "BA")
    assert equal == ["B" * MOST_ANSWER]


def test_weights_tell_their_size(tmp_path):
    workload = load_workload("tinychat", OURS)
    network = build_tinychat(None, TinychatConfig((16, 8), characters=chat_split(OURS, "train").characters))
    save_model(tmp_path / "small.pt", network, load_workload(STUDENT, OURS), 64, {})
    again = load_workload(STUDENT, OURS).build(64, tmp_path / "small.pt")
    assert again.config == network.config
    assert all(torch.equal(one, two) for one, two in zip(again.parameters(), network.parameters(), strict=True))
    text = load_workload("tinychat_text_hidden16x8", OURS).build(64, tmp_path / "small.pt")
    assert torch.equal(text.network.layers[0].weight, network.layers[0].weight)
    assert "holds a Tinychat 256-16-8-" in refused(workload.build, 64, tmp_path / "small.pt")
    assert "holds a Tinychat" in refused(load_workload("tinychat_hidden16x7", OURS).build, 64, tmp_path / "small.pt")
    pruned = load_workload("tinychat_hidden20x8", OURS).build(64, tmp_path / "small.pt")
    assert pruned.config.hidden == (16, 8)
    assert load_model(str(tmp_path / "small.pt"), OURS, None, "--model")[1].name == STUDENT


def test_a_pruned_network_tells_what_is_left(tmp_path):
    network = load_workload(STUDENT, OURS).build(64, None)
    kept = [0, 3, 4]
    first, second = network.layers[0], network.layers[1]
    first.weight, first.bias = nn.Parameter(first.weight[kept]), nn.Parameter(first.bias[kept])
    second.weight = nn.Parameter(second.weight[:, kept])
    assert network.sizes().hidden == (3, 8)
    save_model(tmp_path / "pruned.pt", network, load_workload(STUDENT, OURS), 64, {})
    again = load_workload(STUDENT, OURS).build(64, tmp_path / "pruned.pt")
    (features,) = load_workload(STUDENT, OURS).example(64, 5, 0)
    assert torch.equal(again(features), network(features))


@pytest.mark.parametrize(
    "told", [{"hidden": "wide"}, {"hidden": [0]}, {"depth": 3}, "small", {"hidden": [16, 8], "characters": 5}]
)
def test_sizes_that_a_file_should_not_tell(tmp_path, told):
    network = build_tinychat(None, TinychatConfig((16, 8)))
    torch.save({"state_dict": network.state_dict(), "meta": {"tinychat": told}}, tmp_path / "told.pt")
    assert re.search("expected some of|makes no network", refused(build_tinychat, tmp_path / "told.pt"))


def test_a_float_network_goes_through_an_npz(tmp_path):
    save_npz(tmp_path / "a.npz", small())
    arrays = np.load(tmp_path / "a.npz", allow_pickle=False)
    assert json.loads(arrays["_architecture"].item()) == {"input_size": 7, "hidden_sizes": [5, 3], "num_classes": 4}
    assert arrays["_charset"].item() == b" AB"
    again = read_network(tmp_path / "a.npz")
    assert again.config == SMALL
    for name, value in small().state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
        layer, part = int(name.split(".")[1]) + 1, name.split(".")[2]
        assert np.array_equal(arrays[f"fc{layer}_{part}"], value.numpy())


@given(st.integers(0, 2**16), st.sampled_from(["2bit", "ternary"]), st.tuples(st.integers(0, 5), st.integers(0, 5)))
def test_an_integer_network_goes_through_an_npz(tmp_path_factory, seed, kind, shifts):
    path, net = tmp_path_factory.mktemp("npz") / "a.npz", integers(seed, kind, shifts)
    save_npz(path, net)
    again = read_network(path)
    counts = np.random.default_rng(seed).integers(0, 9, (20, 256))
    assert np.array_equal(again.logits(counts), net.logits(counts))
    assert (again.kind, again.characters, again.sizes) == (kind, " AB", (256, 6, 4))


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_broken_npz(tmp_path, share):
    path = tmp_path / "a.npz"
    save_npz(path, small())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "holds no tinychat" in refused(read_network, path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fc1_weight": None}, "fc1_weight"),
        ({"fc2_bias": np.zeros(9, np.float32)}, "holds no tinychat"),
        ({"_architecture": np.array(b"{")}, "holds no tinychat"),
        ({"_architecture": np.array(b"[1, 2]")}, "holds no tinychat"),
        ({"_charset": np.array(b"AA")}, "makes no network"),
        ({"_charset": np.array("\u00e9")}, "holds no tinychat"),
        ({"fc1_weight": np.array([object()])}, "holds no tinychat"),
    ],
)
def test_an_npz_of_something_else(tmp_path, changes, said):
    save_npz(tmp_path / "a.npz", small())
    with np.load(tmp_path / "a.npz") as file:
        arrays = {**file, **changes}
    np.savez(tmp_path / "b.npz", **{name: value for name, value in arrays.items() if value is not None})
    assert said in refused(read_network, tmp_path / "b.npz")
    assert "no network at" in refused(read_network, tmp_path / "none.npz")


@RECORD
def test_the_released_network_is_as_good_as_is_known(capsys):
    said = run(capsys, chat_main, "load", RELEASED)
    assert "256-256-192-128-40" in said
    assert "37,328 bytes" in said
    rows = {line.split()[0]: line for line in said.splitlines()[3:]}
    assert rows["next_char"].endswith("79.6% of 14,814")
    assert rows["whole_answers"].endswith("39.1% of 2,280")
    assert run(capsys, chat_main, "chat", "hello", "--weights", RELEASED) == "HI\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a student that saw our sentences twice, its arrays and its history."""
    folder = tmp_path_factory.mktemp("trained")
    options = ["--workload", STUDENT, "--data", OWN, "--epochs", "2", "--warmup-epochs", "0.5", "--lr", "0.01"]
    assert train_main([*options, "--threads", "1", "--out", str(folder)]) == 0
    return folder / "tinychat"


def test_training_writes_weights_arrays_and_a_history(trained, capsys):
    path = trained / "own_sentences_hidden16x8.pt"
    assert {file.name for file in trained.iterdir()} == {path.with_suffix(end).name for end in (".pt", ".npz", ".json")}
    network, arrays = read_network(path), read_network(path.with_suffix(".npz"))
    assert read_checkpoint(path)[1]["tinychat"]["hidden"] in ([16, 8], (16, 8))
    for one, two in zip(network.parameters(), arrays.parameters(), strict=True):
        assert torch.equal(one, two)
    history = json.loads(path.with_suffix(".json").read_text())
    config = {"epochs": 2, "warmup_epochs": 0.5, "batch_size": 32, "optimizer": "adam", "lr": 0.01}
    assert config.items() <= history["config"].items()
    chats = chat_split(OURS, "validation")
    found = qualities(asking(lambda inputs: (network(*inputs),), encode_counts, 64), chats, None)
    assert history["test_next_char"] == found[0].value == max(row["validation_next_char"] for row in history["epochs"])
    loss = min(row["validation_loss"] for row in history["epochs"])
    assert loss < np.log(network.config.classes)
    assert found[2].value in [pytest.approx(row["validation_loss"], abs=1e-5) for row in history["epochs"]]


def test_training_sees_all_examples_once_an_epoch():
    workload = load_workload(STUDENT, OURS)
    data = load_data(workload.build(64, None), workload, 64)
    chats = chat_split(OURS, "train")
    order = data.order(torch.Generator().manual_seed(0))
    assert sorted(order.tolist()) == list(range(len(chats)))
    (batch,) = data.batches((order[:50],), 0, None, "cpu")
    assert torch.equal(batch.views(64), torch.stack([chats[row][0] for row in order[:50].tolist()]))
    assert batch.labels.tolist() == [chats[row][1] for row in order[:50].tolist()]
    assert data.inputs(3, 64).shape == (3, 256)


def test_commands(trained, tmp_path, capsys):
    path = trained / "own_sentences_hidden16x8.pt"
    said = run(capsys, chat_main, "load", path, "--data", OWN)
    assert "256-16-8-29, 4,456 float weights" in said
    assert re.search(r"next_char +[\d.]+% of 996 +[\d.]+% of 370 +[\d.]+% of 1,366\n", said)
    assert re.search(r"loss +\d\.\d{3} of 996", said)
    out = tmp_path / "model.npz"
    assert run(capsys, chat_main, "export", path, "-o", out) == f"{out}: written\n"
    talk = run(capsys, chat_main, "chat", "hello", " bye \n now", "--weights", out)
    assert talk == run(capsys, chat_main, "chat", "hello", " bye \n now", "--weights", path)
    assert [line.split(":")[0] for line in talk.splitlines()] == ["hello", "bye now"]
    for query in ("?", "h\u00e9 \U0001f600", "\udcff"):
        assert run(capsys, chat_main, "chat", query, "--weights", out).endswith("\n")
    assert chat_main(["chat", "x" * 300, "--weights", str(out)]) == 0
    assert "of the 300 bytes of 'xxxxxxxxxxxxxxxxxxxx'... the first 64 count" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("main", "options", "said"),
    [
        (chat_main, ["chat", "hi", "--weights", "none.pt"], "no weights at none.pt"),
        (chat_main, ["chat", "hi", "--data", OWN], "no trained weights at weights/tinychat/own_sentences_baseline.pt"),
        (chat_main, ["chat", " ", "--weights", "FILE"], "an empty query has no answer: type some words"),
        (chat_main, ["load", "none.npz"], "no network at none.npz"),
        (chat_main, ["load", "FILE", "--data", OWN, "--data-dir", "x"], "--data-dir x is another corpus than --data"),
        (chat_main, ["load", "FILE", "--data-dir", "x"], "--data-dir x: expected a corpus of query|answer lines"),
        (chat_main, ["load", "SMALL", "--data", OWN], "the network's characters are ' AB', those of own_sentences are"),
        (chat_main, ["export", "FILE", "-o", "model.pt"], "-o model.pt: expected a name that ends in .npz"),
        (chat_main, ["export", "FILE", "-o", "FILE/model.npz"], "cannot write to"),
        (train_main, ["--workload", "tinychat_text"], "--workload tinychat_text: train tinychat, whose weights it has"),
        (train_main, ["--workload", "tinychat_text_hidden8"], "tinychat_text_hidden8: train tinychat_hidden8, whose"),
        (train_main, ["--workload", "tinychat", "--size", 32], "--size 32: tinychat needs at least 64 chars"),
        (train_main, ["--workload", "tinychat", "--size", 64, 128], "tinychat is trained on queries of 64 chars"),
        (
            train_main,
            ["--workload", "tinychat", "--masking", 0.5],
            "--masking goes with speech; tinychat is about chat",
        ),
        (train_main, ["--workload", "tinychat", "--end-share", 0.5], "--end-share goes with images; tinychat is about"),
        (train_main, ["--workload", "tinychat", "--warmup-epochs", -1], "--warmup-epochs -1: expected a number from 0"),
        (train_main, ["--workload", "tinychat", "--keyword", "yes"], "--keyword yes: tinychat is not about speech"),
        (train_main, ["--workload", "tinychat", "--data", "digits"], "--data digits: tinychat is about chats"),
        (train_main, ["--workload", "resnet18", "--data", OWN], f"unknown data set '{OWN}': expected one of digits"),
        (train_main, ["--workload", "tinychat", "--data", OWN, "--data-dir", "x"], "--data-dir x is another corpus"),
        (train_main, ["--workload", "tinychat", "--data-dir", "x"], "--data-dir x: expected a corpus of query|answer"),
    ],
)
def test_bad_input(trained, tmp_path, monkeypatch, capsys, main, options, said):
    monkeypatch.chdir(tmp_path)
    save_npz(tmp_path / "small.npz", small())
    named = {"FILE": trained / "own_sentences_hidden16x8.pt", "SMALL": "small.npz"}
    found = [str(option).replace("FILE", str(named["FILE"])).replace("SMALL", "small.npz") for option in options]
    assert said in run(capsys, main, *found, code=2)
    assert [file.name for file in tmp_path.iterdir()] == ["small.npz"]

"""Methods on tinychat, on our own sentences: fewer neurons, few bits, integers on disk, recipes and their pipeline."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.bits import BitLinear
from models.errors import SpeedproofError
from models.integer import IntegerTinychat
from models.integer_files import packed_bytes
from models.tinychat import TextTinychat
from models.workload import DataChoice, load_workload
from optim.bits import TUNE, BitsConfig, bit_layers, bit_network, integers_of, quantize_bits
from optim.command import load_model
from optim.distill import distill
from optim.prune import PruneConfig, parameters, prune, sparsity
from optim.prune.__main__ import main as prune_command
from optim.quantize.__main__ import main as quantize_command
from optim.quantize.config import QAT
from optim.recipe import RECIPES, Recipe, follow, pipeline
from optim.recipe.__main__ import main as recipe_command
from optim.saved import load_saved, save_model

OWN = DataChoice("own_sentences")
SMALL = load_workload("tinychat_hidden16x12", OWN)
SIZE = SMALL.sizes[0]
SHORT = replace(TUNE, epochs=2, warmup_epochs=0.5, batch_size=64, label_smoothing=0.0)
SCHEDULE = ("--fine-tune-epochs", "1", "--lr", "0.002", "--batch-size", "64")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEEDPROOF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def network():
    return SMALL.build(SIZE, None)


def counts(rows: int = 200) -> torch.Tensor:
    data = SMALL.data("test", SIZE)
    return torch.stack([data[index][0] for index in range(min(rows, len(data)))])


def same(one: IntegerTinychat, other: torch.nn.Module) -> bool:
    assert isinstance(other, IntegerTinychat)
    pairs = zip(one.net.layers, other.net.layers, strict=True)
    return all((a.weights == b.weights).all() and (a.bias == b.bias).all() and a.shift == b.shift for a, b in pairs)


def test_neurons_go_by_any_ratio_and_the_network_tells_its_sizes(network):
    for amount, left in ((0.3, (11, 8)), (0.5, (8, 6)), (0.9, (2, 1))):
        found = prune(network, SMALL, PruneConfig("structured", amount, round_to=1))
        assert found.sizes().hidden == left
        assert found(counts()).shape == (len(counts()), network.config.classes)
    assert network.sizes().hidden == (16, 12)


def test_fine_tuning_of_neurons_stops_early(network, capsys):
    tuning = replace(SHORT, epochs=40, patience=2, lr=0.05)  # far too much: it soon gets worse
    prune(network, SMALL, PruneConfig("structured", 0.5, fine_tune=tuning))
    epochs = re.findall(r"epoch (\d+)/40", capsys.readouterr().out)
    assert 3 <= len(epochs) < 40


@pytest.mark.parametrize("kind", ["2bit", "1bit", "ternary"])
def test_the_integers_answer_as_the_network_behind_its_grid(kind, network):
    config = BitsConfig(kind, fine_tune=SHORT)
    own = bit_network(network, kind).eval()
    with torch.no_grad():
        for layer in bit_layers(own):
            layer.bias.mul_(0.2)
    net = integers_of(own, SMALL, config)
    with torch.inference_mode():
        floats, integers = own(counts()), torch.from_numpy(net.logits(counts().numpy()).astype(np.float32))
    units = 2.0**net.input_shift
    for layer, made in zip(bit_layers(own), net.layers, strict=True):
        units /= layer.quantized()[1] * 2**made.shift
    off = (integers / units - floats).abs().max() / floats.abs().max()
    assert off < 0.1  # what shifts and the biases' rounding cost, of the largest logit
    assert (integers.argmax(1) == floats.argmax(1)).float().mean() > 0.8


@pytest.mark.parametrize(("kind", "progressive"), [("2bit", True), ("1bit", False), ("ternary", False)])
def test_quantization_learns_and_leaves_the_original_as_it_is(kind, progressive, network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    tuning = replace(SHORT, epochs=15, lr=0.01)
    made = quantize_bits(network, SMALL, BitsConfig(kind, fine_tune=tuning, progressive=progressive))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    targets = torch.from_numpy(SMALL.data("train", SIZE).targets)
    features = torch.from_numpy(SMALL.data("train", SIZE).features).float()
    guessing = targets.bincount().max() / len(targets)
    assert (made(features).argmax(1) == targets).float().mean() > guessing + 0.05
    assert parameters(made) == 256 * 16 + 16 + 16 * 12 + 12 + 12 * made.net.classes + made.net.classes
    assert (sparsity(made)["overall"] > 0.4) == (kind != "1bit")


def test_a_teacher_is_heard_where_alpha_asks_for_it(network):
    teacher = SMALL.build(SIZE, None)
    with torch.no_grad():
        teacher.layers[-1].bias[3] = 50.0  # it always says the fourth character
    for alpha, always in ((0.0, False), (1.0, True)):
        tuning = replace(SHORT, alpha=alpha, epochs=8, lr=0.01)
        made = quantize_bits(network, SMALL, BitsConfig("ternary", fine_tune=tuning), teacher=teacher)
        assert bool((made(counts()).argmax(1) == 3).all()) == always


def test_dropout_hides_neurons_from_training_and_never_counts(network, monkeypatch):
    seen = []
    forward = BitLinear.forward

    def watched(self, x):
        seen.append((self.training, self.in_features, float((x == 0).float().mean())))
        return forward(self, x)

    monkeypatch.setattr(BitLinear, "forward", watched)
    quantize_bits(network, SMALL, BitsConfig("ternary", fine_tune=SHORT, dropout=0.9))
    share = {
        key: np.mean([zeros for *own, zeros in seen if tuple(own) == key]) for key in {tuple(own) for *own, _ in seen}
    }
    assert share[True, 16] > 0.88  # of the hidden neurons, ReLU's zeros among them
    assert share[False, 16] < 0.88
    assert share[True, 256] == pytest.approx(share[False, 256], abs=0.03)  # counts are never hidden
    with pytest.raises(SpeedproofError, match="dropout 1 of BitsConfig: expected a share"):
        BitsConfig(dropout=1.0).check()


def test_a_student_learns_from_the_float_network(network):
    student = load_workload("tinychat_hidden8", OWN)
    found = distill(network, student.build(SIZE, None), student, replace(SHORT, alpha=0.5))
    assert found.sizes().hidden == (8,)


def test_a_killed_run_goes_on_unless_its_values_are_others(network, tmp_path, monkeypatch, capsys):
    keep, forward = tmp_path / "run.pt", BitLinear.forward

    def killed(self, x):
        if keep.with_suffix(".resume").exists():  # the first epoch is over
            raise KeyboardInterrupt
        return forward(self, x)

    whole = quantize_bits(network, SMALL, BitsConfig("1bit", fine_tune=SHORT))
    for begun, going_on in (("2bit", False), ("1bit", True)):
        monkeypatch.setattr(BitLinear, "forward", killed)
        with pytest.raises(KeyboardInterrupt):
            quantize_bits(network, SMALL, BitsConfig(begun, fine_tune=SHORT), keep=keep)
        monkeypatch.setattr(BitLinear, "forward", forward)
        capsys.readouterr()
        assert same(whole, quantize_bits(network, SMALL, BitsConfig("1bit", fine_tune=SHORT), keep=keep))
        assert ("going on after epoch 1" in capsys.readouterr().out) == going_on


def test_an_integer_network_is_saved_and_loaded_weights_only(network, tmp_path):
    made = quantize_bits(network, SMALL, BitsConfig("1bit", fine_tune=SHORT))
    path = tmp_path / "made.pt"
    save_model(path, made, SMALL, SIZE, {"method": "1bit"})
    assert same(made, load_saved(path, network, SMALL))
    again, workload = load_model(str(path), OWN, None, "--model")
    assert same(made, again)
    assert workload.name == SMALL.name
    assert path.stat().st_size < packed_bytes(made.net) + 4000
    assert Recipe("made", (), file=path).quantized


def test_recipes_run_on_the_network_behind_its_encoding(network):
    text = load_workload("tinychat_text_hidden16x12", OWN)
    wrapped = TextTinychat(network).eval()
    recipe = Recipe("two", (PruneConfig("structured", 0.5, round_to=2), BitsConfig("ternary", fine_tune=SHORT)))
    made = follow(recipe, wrapped, text, OWN, SIZE)
    alone = follow(recipe, network, SMALL, OWN, SIZE)
    assert isinstance(made, TextTinychat)
    assert same(alone, made.network)
    assert alone.net.sizes[1:3] == (8, 6)
    assert (parameters(made), sparsity(made)) == (parameters(alone), sparsity(alone))
    assert parameters(alone) == sum(layer.weights.size + layer.bias.size for layer in alone.net.layers)
    query, recent = text.example(SIZE, 4, 0)
    assert torch.equal(made(query, recent), alone(wrapped.encode(query, recent)))


def test_nothing_follows_a_quantization_to_bits():
    with pytest.raises(SpeedproofError, match="step 2 follows a quantization"):
        Recipe("wrong", (BitsConfig(), PruneConfig())).check()


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("tinychat_")])
def test_every_recipe_of_tinychat_can_be_followed(name):
    recipe = RECIPES[name]
    recipe.check()
    assert recipe.model == "tinychat"
    assert recipe.quantized == ("bit" in name)


def test_the_pipeline_makes_every_network_and_a_table(tmp_path, monkeypatch, capsys):
    def short(step):
        if isinstance(step, PruneConfig):
            return replace(step, fine_tune=replace(SHORT, epochs=1))
        return replace(step, fine_tune=replace(SHORT, epochs=1))

    quick = {
        name: replace(recipe, steps=tuple(map(short, recipe.steps)))
        for name, recipe in RECIPES.items()
        if name.startswith("tinychat_")
    }
    monkeypatch.setattr(pipeline, "RECIPES", quick)
    monkeypatch.setattr(pipeline, "usual_schedule", lambda *_: {"epochs": 1, "batch_size": 64, "precision": "fp32"})
    monkeypatch.chdir(tmp_path)
    assert recipe_command(["tinychat", "--data", "own_sentences"]) == 0
    folder = tmp_path / "weights" / "tinychat"
    table = (folder / "own_sentences_tinychat.md").read_text()
    assert table.strip() in capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["baseline", *quick]
    for name in quick:
        made, _ = load_model(str(folder / f"own_sentences_{name}.pt"), OWN, None, "--model")
        assert f"| {parameters(made):,} |" in re.sub(" +", " ", table)


def run(capsys, command, *arguments, code):
    assert command([str(argument) for argument in arguments]) == code
    said = capsys.readouterr()
    return said.err if code else said.out


def test_a_sweep_of_pruning_is_one_table(network, tmp_path, capsys):
    model, path = tmp_path / "model.pt", tmp_path / "cut.pt"
    save_model(model, network, SMALL, SIZE, {})
    usual = ("--model", model, "--data", "own_sentences", "--pruning-method", "structured", "--save-path", path)
    amounts = ("--amount", 0.3, 0.5, "--round-to", 1, "--fine-tune", *SCHEDULE, "--patience", 1)
    out = run(capsys, prune_command, *usual, *amounts, code=0)
    assert re.search(r"before +0.3 gone +0.5 gone", out)
    for percent, hidden in ((30, (11, 8)), (50, (8, 6))):
        made, _ = load_model(str(tmp_path / f"cut_{percent}.pt"), OWN, None, "--model")
        assert made.sizes().hidden == hidden
        assert f"{parameters(made):,}" in out
    assert "--amount 1.5: expected" in run(capsys, prune_command, *usual, "--amount", 0.3, 1.5, code=2)


def test_the_command_quantizes_to_bits(network, tmp_path, capsys):
    model, path = tmp_path / "model.pt", tmp_path / "bits.pt"
    save_model(model, network, SMALL, SIZE, {})
    usual = ("--model", model, "--data", "own_sentences", "--save-path", path)
    out = run(
        capsys, quantize_command, *usual, "--quantization-method", "2bit", *SCHEDULE, "--progressive", "--teacher",
        model, code=0,
    )  # fmt: skip
    made, _ = load_model(str(path), OWN, None, "--model")
    assert made.net.kind == "2bit"
    assert f"{packed_bytes(made.net):,} after" in out
    for option, words in (
        (("--bits", 4), "--bits does not go with --quantization-method 1bit"),
        (("--per-tensor",), "--per-tensor does not go"),
        (("--lr", 0), "--lr 0"),
    ):
        assert words in run(capsys, quantize_command, *usual, "--quantization-method", "1bit", *option, code=2)
    wrong = ("--quantization-method", "static", "--progressive")
    assert "--progressive goes with" in run(capsys, quantize_command, *usual, *wrong, code=2)
    again = ("--model", path, "--data", "own_sentences", "--save-path", path, "--quantization-method", "1bit")
    assert "is a network in integers, which no method trains" in run(capsys, quantize_command, *again, code=2)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (quantize_command, ("--quantization-method", "1bit")),
        (quantize_command, ("--quantization-method", "static")),
        (quantize_command, ("--quantization-method", "bf16")),
        (prune_command, ("--pruning-method", "structured")),
        (prune_command, ("--sensitivity",)),
    ],
)
def test_commands_refuse_networks_that_no_method_trains(command, options, network, tmp_path, capsys):
    made = IntegerTinychat(integers_of(bit_network(network, "1bit"), SMALL, BitsConfig("1bit")))
    integer, plain, path = tmp_path / "integer.pt", tmp_path / "plain.pt", tmp_path / "out.pt"
    save_model(integer, made, SMALL, SIZE, {})
    save_model(plain, network, SMALL, SIZE, {})
    save = () if "--sensitivity" in options else ("--save-path", path)
    taught = ("--fine-tune",) if command is prune_command else ()
    cases = [((integer,), "in integers"), (("tinychat_text_hidden16x12",), "behind its encoding")]
    if not {"--sensitivity", "static", "bf16"} & set(options):
        cases += [((plain, "--teacher", integer, *taught), "in integers")]
    for given, words in cases:
        said = run(capsys, command, "--model", *given, "--data", "own_sentences", *save, *options, code=2)
        assert words in said
        assert said.count("\n") == 1
    assert not path.exists()


def test_the_help_tells_the_schedule_of_each_method(capsys):
    with pytest.raises(SystemExit):
        quantize_command(["--help"])
    said = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert f"passes over the data ({QAT.epochs}; 2bit, ternary, 1bit: {TUNE.epochs})" in said
    assert f"peak learning rate ({QAT.lr:g}; 2bit, ternary, 1bit: {TUNE.lr:g})" in said


@pytest.mark.parametrize("option", [("--save-path", "x.pt"), ("--model", "tinychat"), ("--size", "64"), ("--orders",)])
def test_a_pipeline_refuses_what_belongs_to_a_recipe(option, capsys):
    assert "with a recipe" in run(capsys, recipe_command, "tinychat", *option, code=2)

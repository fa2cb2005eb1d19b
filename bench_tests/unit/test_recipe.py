"""Recipes: what is made is kept by content, a killed one goes on, and what cannot be followed is one sentence."""

from dataclasses import replace

import pytest
import torch

from bench_tests.harness.case import Case, NotMeasuredError, Settings
from bench_tests.harness.expectations import Expectation
from bench_tests.harness.measure import Measurement
from bench_tests.harness.session import Session
from bench_tests.unit import toys
from bench_tests.unit.test_distill import CONFIG
from bench_tests.unit.test_train import TOY, build
from models.errors import SpeedproofError
from models.workload import DataChoice, load_workload
from optim import images as imaging
from optim.backends.base import is_quantized
from optim.command import load_model, megabytes, quality_digits
from optim.images import accuracy
from optim.prune import PruneConfig
from optim.quantize import QuantizeConfig, quantize
from optim.recipe import RECIPES, Recipe, follow, load_recipe, orders
from optim.recipe import method as following
from optim.recipe.__main__ import main
from optim.saved import load_saved, save_model

LEARN = replace(CONFIG, epochs=3, patience=3)
PRUNE = PruneConfig("structured", 0.5, round_to=2, fine_tune=replace(LEARN, epochs=2))
INT8 = QuantizeConfig(size=32, calibration_images=16)
WHOLE = Recipe("whole", (LEARN, PRUNE, INT8))
DATA = DataChoice()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEEDPROOF_CACHE", str(tmp_path / "cache"))


def followed(recipe: Recipe) -> torch.nn.Module:
    return follow(recipe, build(32, None), TOY, DATA, 32)


def outputs(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)))


def test_all_methods_one_after_another_leave_the_original_as_it_is(monkeypatch, capsys):
    original = build(32, None)
    before = {name: value.clone() for name, value in original.state_dict().items()}
    made = follow(WHOLE, original, TOY, DATA, 32)
    assert all(torch.equal(value, before[name]) for name, value in original.state_dict().items())
    assert is_quantized(made)
    assert sum(tensor.numel() for tensor in made.state_dict().values() if tensor.dtype == torch.int8) < 3 * 8 * 9 + 300
    said = capsys.readouterr().out
    assert [f"whole step {step}" in said for step in (1, 2, 3)] == [True] * 3

    monkeypatch.setattr(following, "distill", None)  # nothing is made twice
    monkeypatch.setattr(following, "prune", None)
    monkeypatch.setattr(following, "quantize", None)
    assert torch.equal(outputs(follow(WHOLE, original, TOY, DATA, 32)), outputs(made))
    assert not is_quantized(follow(Recipe("another", (LEARN, PRUNE)), original, TOY, DATA, 32))  # steps are shared


def test_a_changed_config_or_model_is_another_result(monkeypatch):
    followed(Recipe("one", (INT8,)))
    calls = []
    make = quantize

    def counted(*arguments, **more):
        calls.append(1)
        return make(*arguments, **more)

    monkeypatch.setattr(following, "quantize", counted)
    followed(Recipe("two", (INT8,)))
    assert not calls
    followed(Recipe("one", (replace(INT8, seed=1),)))
    assert len(calls) == 1
    other = build(32, None)
    with torch.no_grad():
        other[0].weight.mul_(2)
    follow(Recipe("one", (INT8,)), other, TOY, DATA, 32)
    assert len(calls) == 2


def test_a_killed_recipe_goes_on_where_it_was(monkeypatch, capsys, tmp_path):
    whole = outputs(followed(Recipe("whole", (LEARN, PRUNE))))
    monkeypatch.setenv("SPEEDPROOF_CACHE", str(tmp_path / "again"))
    judge, calls = accuracy, []

    def judged(*arguments):
        calls.append(1)
        if len(calls) > 4:  # in the second epoch of the second step
            raise KeyboardInterrupt
        return judge(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(imaging, "accuracy", judged)
        with pytest.raises(KeyboardInterrupt):
            followed(Recipe("whole", (LEARN, PRUNE)))
    capsys.readouterr()
    assert torch.equal(outputs(followed(Recipe("whole", (LEARN, PRUNE)))), whole)
    said = capsys.readouterr().out
    assert "step 1" not in said
    assert "going on after epoch 1" in said
    assert not list((tmp_path / "again" / "recipe_unfinished").glob("*"))


def test_a_student_of_another_architecture():
    recipe = Recipe("distilled", (replace(LEARN, epochs=1, views=1),), student="resnet18")
    made = follow(recipe, toys.TRAINED.build(32, None), toys.TRAINED, DATA, 32)
    assert type(made).__name__ == "ResNet"
    assert len(made.layer1) == 2


def test_what_was_pruned_first_is_what_is_distilled():
    made = followed(Recipe("pd", (PRUNE, LEARN)))
    assert made[0].weight.shape[0] == 4
    assert not torch.equal(outputs(made), outputs(followed(Recipe("p", (PRUNE,)))))


def test_orders_are_all_that_can_be_followed():
    found = orders(WHOLE)
    assert [recipe.name for recipe in found] == ["whole.dpq", "whole.pdq"]
    assert orders(Recipe("r", (PRUNE, INT8)))[0].steps == (PRUNE, INT8)


@pytest.mark.parametrize("recipe", [(LEARN, PRUNE), (INT8,)], ids=["fewer channels", "int8"])
def test_what_is_saved_is_loaded_again(tmp_path, recipe):
    made = followed(Recipe("r", recipe))
    save_model(tmp_path / "made.pt", made, TOY, 32, {})
    original = build(32, None)
    assert torch.equal(outputs(load_saved(tmp_path / "made.pt", original, TOY)), outputs(made))
    assert original[0].weight.shape == (8, 3, 3, 3)


def test_a_file_of_ones_own_workload_finds_it_again(tmp_path):
    own = load_workload("bench_tests.unit.test_train:TOY")
    for name, steps in (("float", (LEARN,)), ("int8", (INT8,))):
        made = follow(Recipe("r", steps), build(32, None), own, DATA, 32)
        save_model(tmp_path / f"{name}.pt", made, own, 32, {})
        found, workload = load_model(str(tmp_path / f"{name}.pt"), DATA, 32, "--model")
        assert workload.name == "toy"
        assert torch.equal(outputs(found), outputs(made))


def test_recipes_by_name_file_and_object(tmp_path, monkeypatch):
    assert load_recipe("int8") is RECIPES["int8"]
    for recipe in RECIPES.values():
        recipe.check()
    path = tmp_path / "my model.pt"
    save_model(path, toys.small(0).build(32, None), toys.SMALL, 32, {})
    found = load_recipe(str(path))
    assert (found.name, found.file, found.quantized) == ("my_model", path, False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_recipe.py").write_text("from bench_tests.unit.test_recipe import WHOLE\n")
    assert load_recipe("own_recipe:WHOLE").quantized


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("int9", "unknown recipe 'int9': expected one of original, int8, "),
        ("nowhere:RECIPE", "--recipe nowhere:RECIPE: module 'nowhere' failed to import"),
        ("bench_tests.unit.toys:SMALL", "expected 'SMALL' in bench_tests.unit.toys to be a Recipe, found Workload"),
    ],
)
def test_unknown_recipes_are_one_sentence(spec, said):
    with pytest.raises(SpeedproofError, match=said):
        load_recipe(spec)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (Recipe("r", (INT8, PRUNE)), "recipe r: step 2 follows a quantization"),
        (Recipe("r", ("int8",)), "recipe r: step 1 is a str, expected one of DistillConfig, PruneConfig"),
        (Recipe("a b", ()), "its name may have letters, digits, _ and . only"),
        (Recipe("r", (replace(PRUNE, amount=1.5),)), "--amount 1.5"),
        (Recipe("r", (LEARN,), teacher="nobody"), "recipe r: teacher nobody: neither a weights file nor"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_one_sentence(recipe, said, tmp_path):
    with pytest.raises(SpeedproofError, match=said):
        followed(recipe)
    assert not list((tmp_path / "cache").glob("recipe/*"))


@pytest.fixture
def session(monkeypatch):
    monkeypatch.setitem(following.RECIPES, "tiny", Recipe("tiny", (INT8,)))
    return Session(Settings(threads=1, examples=16, budget_s=0.01, specs={"small0": "bench_tests.unit.toys:SMALL"}))


@pytest.mark.parametrize("backend", ["eager", "onnxruntime", "openvino"])
def test_a_quantized_case_is_compared_with_the_original_and_shows_its_integers(session, backend):
    case = Case("small0", "digits", backend, "fp32", 32, 2, 1, "tiny")
    record, _ = Measurement(case, session, Expectation("*", drop_max=0.5)).run(rehearsed=False)
    assert record["case"].startswith("small0-digits-tiny-")
    assert record["int8_operators"] >= 3
    assert record["compressed_bytes"] < record["compressed_bytes_original"]
    assert record["macs"] == record["macs_original"] > 0
    assert 0 <= record["quality_top1_original"] <= 1
    assert record["quality_drop_low"] <= record["quality_drop"] <= record["quality_drop_high"]
    assert record["speedup"] > 0


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        (Expectation("*", drop_max=0.5, drop_min=0.9), "better than expectations.yaml says"),
        (Expectation("*", drop_max=0.5, speedup_max=1e-6), "update its row"),
        (Expectation("*", drop_max=0.5, speedup_min=1e6), "expected at least 1e"),
    ],
)
def test_bounds_are_two_sided(session, expected, said):
    case = Case("small0", "digits", "eager", "fp32", 32, 2, 1, "tiny")
    with pytest.raises(NotMeasuredError, match=said):
        Measurement(case, session, expected).run(rehearsed=False)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The options of a toy, and of a recipe of one's own in the working directory."""
    monkeypatch.chdir(tmp_path)
    return [
        "--model",
        "bench_tests.unit.test_train:TOY",
        "--recipe",
        "bench_tests.unit.test_recipe:WHOLE",
        "--size",
        "32",
    ]


def test_the_command_writes_what_the_recipe_makes(own, capsys):
    assert main([*own, "--save-path", "made.pt"]) == 0
    said = capsys.readouterr().out
    assert "before: top1" not in said  # the toy has no quality
    assert "made.pt: written" in said
    found, _ = load_model("made.pt", DATA, 32, "--model")
    assert torch.equal(outputs(found), outputs(followed(WHOLE)))


def test_the_command_compares_orders(own, capsys):
    assert main([*own, "--orders"]) == 0
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert [line.split("  ")[0] for line in lines] == ["distill > prune > quantize", "prune > distill > quantize"]


def test_sizes_and_qualities_keep_the_digits_that_tell_models_apart():
    sizes = (2_940, 23_456, 46_800_000, 999_600_000, 1_234_567_890)
    assert [megabytes(size) for size in sizes] == ["0.00294", "0.0235", "46.8", "1000", "1235"]
    assert [f"{value:.{quality_digits(value)}%}" for value in (0.873, 0.9997, 1.0)] == ["87.3%", "99.97%", "100.0%"]


def test_a_result_has_a_usual_place_where_the_recipe_names_its_model(own, capsys, tmp_path, monkeypatch):
    named = replace(WHOLE, name="mine", steps=(INT8,), model="bench_tests.unit.test_train:TOY")
    monkeypatch.setitem(following.RECIPES, "mine", named)
    assert main(["mine", "--size", "32"]) == 0
    assert "weights/synthetic_mine.pt: written" in capsys.readouterr().out
    assert is_quantized(load_model("weights/synthetic_mine.pt", DATA, 32, "--model")[0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give --save-path FILE for a result, or --orders for a comparison"),
        (["--orders", "--save-path", "x.pt"], "and not both"),
        (["--orders", "--recipe", "int9"], "unknown recipe 'int9'"),
        (["--orders", "--keyword", "happy"], "--keyword happy: toy is not about speech; leave it out"),
        (["--orders", "--size", "7"], "--size 7: toy needs at least 16 px"),
        (["--save-path", "/"], "--save-path /: this is a folder"),
    ],
)
def test_bad_options_are_one_sentence(own, capsys, tmp_path, options, said):
    assert main([*own, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "x.pt").exists()

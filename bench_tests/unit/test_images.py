"""Images by class: what is read from which folder, which split it falls into, and how a model is judged on it."""

import io
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from models.data.images import (
    IMAGENET_INDEX,
    MEAN,
    STD,
    centre_crop,
    class_names,
    image_root,
    image_split,
    image_workload,
    normalise,
    target_indices,
)
from models.errors import SpeedproofError
from models.workload import DataChoice

SPLITS = ("train", "validation", "test")
DIGITS = DataChoice("digits")


def picture(mode: str = "RGB", size: tuple[int, int] = (20, 16), seed: int = 0) -> Image.Image:
    """A smooth random image."""
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(name: str, mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    picture(mode, (40, 30)).save(stream, Image.registered_extensions()[Path(name).suffix])
    return stream.getvalue()


def fill(folder: Path, names: range | list[str], seed: int = 0) -> None:
    folder.mkdir(parents=True)
    for name in names:
        picture(seed=seed).save(folder / (name if isinstance(name, str) else f"{name:04d}.png"))


def folder(path: Path) -> DataChoice:
    return DataChoice("folder", path)


@pytest.fixture(scope="module")
def by_class(tmp_path_factory):
    root = tmp_path_factory.mktemp("by_class")
    for seed, name in enumerate(("cat", "dog")):
        fill(root / name, range(100), seed)
    return root


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
    root = tmp_path_factory.mktemp("divided")
    for seed, name in enumerate(("cat", "dog")):
        fill(root / "train" / name, range(60), seed)
        fill(root / "val" / name, range(5), seed)
    return root


def test_digits_are_split_without_overlap():
    splits = [image_split(DIGITS, split, 32) for split in SPLITS]
    assert [len(split) for split in splits] == [1297, 140, 360]
    images = [image.tobytes() for split in splits for image in split.images]
    assert len(set(images)) == 1797  # no two digits are the same image
    assert all(set(split.labels) == set(range(10)) and not split.mirrors for split in splits)
    assert class_names(DIGITS) == tuple("0123456789")


@pytest.mark.parametrize("size", [8, 33, 64])
def test_an_example_is_normalised_and_always_the_same(size):
    split = image_split(DIGITS, "test", size)
    image, label = split[7]
    assert image.shape == (3, size, size)
    assert image.dtype == torch.float32
    assert 0 <= label < 10
    pixels = image * STD + MEAN
    assert -1e-6 <= pixels.min() < 0.01
    assert 0.9 < pixels.max() <= 1 + 1e-6
    assert torch.equal(image, image_split(DIGITS, "test", size)[7][0])
    assert torch.equal(split.stack(size)[7], split.pixels(7, size))


def test_a_folder_with_train_and_val_keeps_val_for_the_test(divided):
    found = {split: image_split(folder(divided), split, 16) for split in SPLITS}
    assert {path.parent.parent.name for path in found["test"].images} == {"val"}
    assert len(found["test"]) == 10
    assert len(found["train"]) + len(found["validation"]) == 120
    assert not set(found["train"].images) & set(found["validation"].images)
    assert len(found["validation"]) < 20
    for split in found.values():
        assert split.classes == ("cat", "dog") == class_names(folder(divided))
        assert all(
            split.classes[label] == path.parent.name for label, path in zip(split.labels, split.images, strict=True)
        )
        assert split.mirrors


def test_a_folder_by_class_is_split_in_three(by_class):
    found = [set(image_split(folder(by_class), split, 16).images) for split in SPLITS]
    assert set.union(*found) == set(by_class.glob("*/*.png"))
    assert sum(map(len, found)) == 200
    assert [len(part) for part in found] == [pytest.approx(expected, abs=15) for expected in (160, 10, 30)]


def test_the_split_of_an_image_depends_on_its_name_alone(tmp_path, by_class):
    for name in ("cat", "dog"):
        fill(tmp_path / name, range(50, 130), seed=9)  # other images, and other neighbours
    for split in SPLITS:
        here = {f"{path.parent.name}/{path.name}" for path in image_split(folder(tmp_path), split, 16).images}
        there = {f"{path.parent.name}/{path.name}" for path in image_split(folder(by_class), split, 16).images}
        assert {name for name in here if name[4:8] < "0100"} == {name for name in there if name[4:8] >= "0050"}


FORMATS = [
    ("rgb.png", "RGB"), ("rgb.jpg", "RGB"), ("grey.png", "L"), ("grey.JPEG", "L"), ("alpha.png", "RGBA"),
    ("grey_alpha.png", "LA"), ("palette.png", "P"), ("bits.png", "1"), ("cmyk.jpg", "CMYK"), ("rgb.bmp", "RGB"),
    ("rgb.webp", "RGB"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "mode"), FORMATS)
@pytest.mark.parametrize("size", [(40, 30), (30, 41), (7, 50)])
def test_every_kind_of_image_comes_out_alike(tmp_path, name, mode, size):
    (tmp_path / "a").mkdir()
    picture(mode, size).save(tmp_path / "a" / name)
    split = only(tmp_path)
    image, _ = split[0]
    assert image.shape == (3, 24, 24)
    assert image.isfinite().all()
    assert split.native_edge() == min(size)
    if mode == "RGB" and size == (40, 30):
        exact = torch.from_numpy(np.array(picture(mode, size))).permute(2, 0, 1)
        resized = torch.nn.functional.interpolate(exact[None] / 255, (27, 36), mode="bicubic", antialias=True)[0]
        assert ((image * STD + MEAN) - resized[:, 1:25, 5:29].clamp(0, 1)).abs().mean() < 0.02


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path):
    (tmp_path / "a").mkdir()
    picture("P").save(tmp_path / "a" / "1.png", transparency=bytes(range(256)))
    assert only(tmp_path)[0][0].isfinite().all()


def only(root: Path):
    """The split that the only images of a folder fell into."""
    for split in SPLITS:
        try:
            return image_split(folder(root), split, 24)
        except SpeedproofError:
            continue  # as tested below
    raise AssertionError("no image in any split")


@pytest.mark.parametrize(
    "content",
    [encoded("a.png")[:300], encoded("a.jpg")[:400], b"this is no image", b"", encoded("a.png")[:20]],
    ids=["truncated png", "truncated jpg", "text", "empty", "header only"],
)
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "broken.jpg").write_bytes(content)
    split = only(tmp_path)
    for attempt in (lambda: split[0], lambda: split.stack(24)):
        with pytest.raises(SpeedproofError, match=r"image .*broken\.jpg does not decode .*remove or replace it"):
            attempt()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.sampled_from([name for name, mode in FORMATS if mode == "RGB"]), st.booleans())
def test_damaged_bytes_give_an_image_or_one_sentence(tmp_path, seed, name, cut):
    dice, content = random.Random(seed), bytearray(encoded(name))
    if cut:
        content = content[: dice.randrange(len(content))]
    else:
        for _ in range(4):
            content[dice.randrange(len(content))] = dice.randrange(256)
    (tmp_path / "a").mkdir(exist_ok=True)
    (tmp_path / "a" / name).write_bytes(content)
    split = only(tmp_path)
    try:
        shape = split.pixels(0, 24).shape
    except SpeedproofError as error:
        said = str(error)
    else:
        said = "" if shape == (3, 24, 24) else f"shape {shape}"
    assert said == "" or "does not decode" in said


def sentence(choice: DataChoice, split: str = "train") -> str:
    with pytest.raises(SpeedproofError) as caught:
        image_split(choice, split, 16)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_that_cannot_serve_is_one_sentence(tmp_path):
    assert f"--data-dir {tmp_path / 'none'}: no such folder" in sentence(folder(tmp_path / "none"))
    assert "needs --data-dir" in sentence(DataChoice("folder"))
    (tmp_path / "loose").mkdir()
    picture().save(tmp_path / "loose" / "1.png")
    assert f"{tmp_path / 'loose'} has no class folders" in sentence(folder(tmp_path / "loose"))
    fill(tmp_path / "gap" / "cat", range(9))
    (tmp_path / "gap" / "dog").mkdir()
    (tmp_path / "gap" / "dog" / "readme.txt").touch()
    assert f"class folder {tmp_path / 'gap' / 'dog'} holds no image (.bmp, " in sentence(folder(tmp_path / "gap"))
    fill(tmp_path / "lone" / "train" / "cat", range(3))
    assert "none named val or test beside it" in sentence(folder(tmp_path / "lone"))


def test_a_split_without_images_is_one_sentence(tmp_path):
    fill(tmp_path / "cat", range(2))
    said = sentence(folder(tmp_path), "validation")
    assert f"{tmp_path} holds too few images: none fell into the validation split" in said


def test_other_classes_in_val_than_in_train_are_refused(tmp_path):
    for name in ("train/cat", "train/dog", "val/dog", "val/emu"):
        fill(tmp_path / name, range(3))
    for split in SPLITS:
        assert "have different class folders (first: cat)" in sentence(folder(tmp_path), split)


def test_hidden_folders_and_other_files_are_no_classes(tmp_path):
    fill(tmp_path / "cat", range(40))
    (tmp_path / ".cache").mkdir()
    (tmp_path / "cat" / "notes.txt").touch()
    (tmp_path / "list.csv").touch()
    assert image_split(folder(tmp_path), "train", 16).classes == ("cat",)


def test_an_unknown_data_set_lists_the_known_ones():
    assert sentence(DataChoice("mnist")) == "unknown data set 'mnist': expected one of digits, imagenette, folder"


def test_no_imagenette_tells_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEEDPROOF_DATA", str(tmp_path))
    said = sentence(DataChoice("imagenette"))
    assert f"no Imagenette at {tmp_path / 'imagenette2-160'}" in said
    assert "`python -m models.data fetch imagenette`" in said


class Model:
    """Predicts from the pixels, and remembers the batches that it was given."""

    def __init__(self, outputs: int = 10) -> None:
        self.weights = torch.randn(3 * 8 * 8, outputs, generator=torch.Generator().manual_seed(0))
        self.batches: list[torch.Tensor] = []

    def __call__(self, inputs):
        self.batches.append(inputs[0])
        return (inputs[0].flatten(1) @ self.weights,)


WORKLOAD = image_workload("toy", lambda classes, _: torch.nn.Linear(1, classes), DIGITS, smallest_size=8)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 70), st.integers(1, 50))
def test_quality_asks_whole_batches_of_the_same_examples_and_counts_real_rows(batch, limit):
    model = Model()
    (quality,) = WORKLOAD.quality(model, "test", 8, batch, limit)
    assert all(len(rows) == batch for rows in model.batches)
    assert len(model.batches) == -(-limit // batch)
    assert quality.examples == limit == len(quality.outcomes) == len(quality.answers)
    split = image_split(DIGITS, "test", 8)
    order = np.random.default_rng(0).permutation(len(split))[:limit]
    shown = torch.cat(model.batches)[:limit]
    assert torch.equal(shown, torch.stack([split[int(index)][0] for index in order]))
    right = [float(answer == split.labels[index]) for answer, index in zip(quality.answers, order, strict=True)]
    assert quality.outcomes.tolist() == right
    assert quality.value == pytest.approx(np.mean(right))
    assert (quality.name, quality.higher_is_better) == ("top1", True)
    assert quality.answers.dtype == np.int64


def test_without_a_limit_all_examples_count():
    (quality,) = WORKLOAD.quality(Model(), "test", 8, 64, None)
    assert quality.examples == 360


def test_a_thousand_outputs_are_judged_by_the_imagenet_index(tmp_path):
    names = sorted(IMAGENET_INDEX)[:3]
    for name in names:
        fill(tmp_path / name, range(40))
    workload = image_workload("toy", lambda *_: torch.nn.Identity(), folder(tmp_path), smallest_size=8)

    def always(outputs, index):
        return lambda inputs: (torch.nn.functional.one_hot(torch.full((len(inputs[0]),), index), outputs).float(),)

    labels = np.asarray(image_split(folder(tmp_path), "test", 8).labels)
    for label, name in enumerate(names):
        (quality,) = workload.quality(always(1000, IMAGENET_INDEX[name]), "test", 8, 16, None)
        assert quality.value == pytest.approx((labels == label).mean())
        assert set(quality.answers) == {IMAGENET_INDEX[name]}
    assert workload.quality(always(10, 0), "test", 8, 16, None) == ()
    assert workload.quality(always(3, 0), "test", 8, 16, None) != ()


def test_outputs_stand_for_classes_where_there_is_a_mapping():
    assert target_indices(("a", "b"), 2).tolist() == [0, 1]
    assert target_indices(("a", "b"), 1000) is None
    assert target_indices(("a", "b"), 3) is None
    assert target_indices(tuple(sorted(IMAGENET_INDEX)), 1000).tolist() == sorted(IMAGENET_INDEX.values())


def test_examples_are_real_for_even_seeds_random_for_odd_ones_and_repeatable():
    for seed in range(4):
        (first,), (again,) = WORKLOAD.example(16, 5, seed), WORKLOAD.example(16, 5, seed)
        assert torch.equal(first, again)
        assert first.shape == (5, 3, 16, 16)
        assert ((first * STD + MEAN).min() < -0.1) == bool(seed % 2)


def test_normalise_and_crop():
    image = torch.arange(3 * 5 * 6, dtype=torch.uint8).reshape(3, 5, 6)
    assert torch.equal(centre_crop(image, 3), image[:, 1:4, 1:4])
    assert torch.allclose(normalise(image) * STD + MEAN, image / 255, atol=1e-6)


def test_the_real_imagenette_has_its_published_size():
    root = Path(os.environ.get("SPEEDPROOF_DATA", "data")) / "imagenette2-160"
    if not root.is_dir():
        pytest.skip(f"no Imagenette at {root}: set SPEEDPROOF_DATA to the folder that holds imagenette2-160")
    choice = DataChoice("imagenette")
    assert image_root(choice) == root
    train, validation, test = (image_split(choice, split, 64) for split in SPLITS)
    assert len(train) + len(validation) == 9469
    assert 400 < len(validation) < 550
    assert len(test) in (3925, 1975)  # as published, or the half of it that we keep
    assert train.classes == validation.classes == test.classes == tuple(sorted(IMAGENET_INDEX))
    names = [{path.name for path in split.images} for split in (train, validation, test)]
    assert len(set.union(*names)) == 9469 + len(test)
    image, label = test[0]
    assert (image.shape, label) == ((3, 64, 64), 0)

"""Images by class: ``digits`` (shipped by scikit-learn), ``imagenette`` (official layout), or any folder of yours.

Every image comes out as float32 (3, S, S), normalised with ImageNet's mean and standard deviation, resized so that the
shorter side is S x 256/224 and cropped in the centre. The official validation images are the ``test`` split here; the
``validation`` split, by which the best epoch is chosen, is a twentieth of the training images, picked by the hash of
their names, so that no figure is reported on images that took part in a choice.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from models.data.fetch import data_root
from models.errors import SpeedproofError
from models.weights import find_weights
from models.workload import DataChoice, Predict, Quality, Tensors, Weights, Workload

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
DATA_NAMES = ("digits", "imagenette", "folder")
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
CROP = 224 / 256  # share of the shorter side that the centre crop keeps, as ImageNet models are evaluated

# Where Imagenette's ten classes stand among ImageNet's thousand, so that a 1,000-way model can be judged on them.
IMAGENET_INDEX = {
    "n01440764": 0, "n02102040": 217, "n02979186": 482, "n03000684": 491, "n03028079": 497,
    "n03394916": 566, "n03417042": 569, "n03425413": 571, "n03445777": 574, "n03888257": 701,
}  # fmt: skip


@dataclass(frozen=True)
class ImageSplit(Dataset[tuple[Tensor, int]]):
    """One split: ``images`` are files, or uint8 arrays (3, H, W) in memory; ``labels`` index ``classes``.

    ``mirrors`` says whether an image keeps its class when it is mirrored: a photograph does, a digit does not.
    """

    images: Sequence[Path] | np.ndarray
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    size: int
    mirrors: bool = True

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return the normalised image (3, S, S) float32 and its label."""
        edge = centre_edge(self.size)
        return normalise(centre_crop(self.pixels(index, edge), self.size)), self.labels[index]

    def pixels(self, index: int, edge: int) -> Tensor:
        """Return the image as uint8 (3, edge, edge): shorter side resized to ``edge``, the longer one cropped."""
        image = self.images[index]
        if isinstance(image, Path):
            return _decode(image, edge)
        array = torch.from_numpy(image).float().unsqueeze(0)
        resized = F.interpolate(array, (edge, edge), mode="bilinear", align_corners=False)
        return resized.round().clamp(0, 255).to(torch.uint8).squeeze(0)

    def stack(self, edge: int) -> Tensor:
        """Return all images as one uint8 tensor (N, 3, edge, edge), decoded on all cores."""
        stacked = torch.empty(len(self), 3, edge, edge, dtype=torch.uint8)

        def decode(index: int) -> None:
            stacked[index] = self.pixels(index, edge)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(decode, range(len(self))))
        return stacked

    def native_edge(self) -> int:
        """Return the shorter side of the images as stored (median of the first 16): resizing past it adds nothing."""
        return int(np.median([min(_stored_size(image)) for image in self.images[:16]]))


def normalise(image: Tensor) -> Tensor:
    """uint8 (..., 3, H, W) to float32 with ImageNet's mean and standard deviation taken out."""
    return (image.float() / 255 - MEAN) / STD


def centre_edge(size: int) -> int:
    """Edge to which an image is resized before the centre crop of ``size``."""
    return round(size / CROP)


def centre_crop(image: Tensor, size: int) -> Tensor:
    """(..., H, W) to the (..., size, size) in its middle."""
    top, left = ((edge - size) // 2 for edge in image.shape[-2:])
    return image[..., top : top + size, left : left + size]


def _stored_size(image: Path | np.ndarray) -> tuple[int, int]:
    if isinstance(image, Path):
        with _opened(image) as opened:
            return opened.size
    return image.shape[2], image.shape[1]


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file; whatever Pillow raises while it is open becomes a sentence."""
    try:
        with Image.open(path) as image:
            yield image
    except Exception as error:  # Pillow says truncated or broken in many ways
        raise SpeedproofError(f"image {path} does not decode ({error}): remove or replace it") from error


def _decode(path: Path, edge: int) -> Tensor:
    with _opened(path) as image:
        transparent = image.mode == "P" and "transparency" in image.info  # Pillow warns of the direct way
        pixels = (image.convert("RGBA") if transparent else image).convert("RGB")
    scale = edge / min(pixels.size)
    width, height = (max(edge, round(side * scale)) for side in pixels.size)
    pixels = pixels.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - edge) // 2, (height - edge) // 2
    pixels = pixels.crop((left, top, left + edge, top + edge))
    return torch.from_numpy(np.asarray(pixels).copy()).permute(2, 0, 1)


def image_split(choice: DataChoice, split: str, size: int) -> ImageSplit:
    """One of the splits ``train``, ``validation`` and ``test``. Raises SpeedproofError where there is no such data."""
    if choice.name == "digits":
        return _digits(split, size)
    root = image_root(choice)
    files, labels, classes = _listing(root, split)
    if not files:
        raise SpeedproofError(
            f"{root} holds too few images: none fell into the {split} split, which is drawn by file name; add images"
        )
    return ImageSplit(files, labels, classes, size)


def image_root(choice: DataChoice) -> Path:
    """The folder of an image data set on this machine, or a sentence that tells how to get it."""
    if choice.name == "folder":
        if choice.directory is None:
            raise SpeedproofError("--data folder needs --data-dir with a folder of images by class")
        if not choice.directory.is_dir():
            raise SpeedproofError(
                f"--data-dir {choice.directory}: no such folder; expected a folder of images by class"
            )
        return choice.directory
    if choice.name != "imagenette":
        raise SpeedproofError(f"unknown data set {choice.name!r}: expected one of {', '.join(DATA_NAMES)}")
    root = choice.directory or data_root() / "imagenette2-160"
    if not (root / "train").is_dir():
        raise SpeedproofError(
            f"no Imagenette at {root}: fetch it with `python -m models.data fetch imagenette`, "
            f"or set SPEEDPROOF_DATA to the folder that holds your copy of imagenette2-160"
        )
    return root


@cache
def class_names(choice: DataChoice) -> tuple[str, ...]:
    """The classes of a data set, sorted."""
    return (
        tuple(str(digit) for digit in range(10)) if choice.name == "digits" else _listing(image_root(choice), "test")[2]
    )


@cache
def _digits(split: str, size: int) -> ImageSplit:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images * (255 / 16)).round().astype(np.uint8)  # (1797, 8, 8), values 0..16
    order = np.random.default_rng(0).permutation(len(images))
    chosen = {"test": order[:360], "validation": order[360:500], "train": order[500:]}[split]
    colour = np.repeat(images[chosen][:, None], 3, axis=1)
    return ImageSplit(
        colour, tuple(int(label) for label in digits.target[chosen]), tuple("0123456789"), size, mirrors=False
    )


@cache
def _listing(root: Path, split: str) -> tuple[tuple[Path, ...], tuple[int, ...], tuple[str, ...]]:
    """Files, labels and classes of a split: of ``root/train`` and ``root/val`` by class, or of ``root`` by class."""
    divided = (root / "train").is_dir()
    held_out = None
    if divided:
        held_out = next((root / name for name in ("test", "val", "validation") if (root / name).is_dir()), None)
        if held_out is None:
            raise SpeedproofError(f"{root} has a folder train but none named val or test beside it: add one")
        source = held_out if split == "test" else root / "train"
    else:
        source = root
    classes = _class_folders(source)
    if not classes:
        raise SpeedproofError(f"{source} has no class folders: expected one folder of images for each class")
    if held_out is not None and (odd := set(_class_folders(root / "train")) ^ set(_class_folders(held_out))):
        raise SpeedproofError(
            f"{root / 'train'} and {held_out} have different class folders (first: {min(odd)}): give both the same ones"
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = sorted(path for path in (source / name).iterdir() if path.suffix.lower() in SUFFIXES)
        if not images:
            raise SpeedproofError(
                f"class folder {source / name} holds no image ({', '.join(sorted(SUFFIXES))}): fill or remove it"
            )
        for path in images:
            if (divided and split == "test") or _split_of(name, path, divided) == split:
                files.append(path)
                labels.append(label)
    return tuple(files), tuple(labels), classes


def _class_folders(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")))


def _split_of(name: str, path: Path, divided: bool) -> str:
    """A split decided by the file's name alone: 5 % validation; 15 % test where the folder holds out none itself."""
    share = int.from_bytes(hashlib.sha256(f"{name}/{path.name}".encode()).digest()[:4], "big") / 2**32
    if share < 0.05:
        return "validation"
    return "test" if not divided and share < 0.20 else "train"


@lru_cache(maxsize=4)
def _examples(choice: DataChoice, split: str, size: int, limit: int | None) -> tuple[Tensor, np.ndarray]:
    """The first images of a fixed shuffle, so that every case sees the same ones and all classes are among them."""
    dataset = image_split(choice, split, size)
    chosen = np.random.default_rng(0).permutation(len(dataset))[:limit]
    # uint8 (N, 3, S, S): a quarter of the memory of what is made of it batch by batch.
    images = torch.stack([centre_crop(dataset.pixels(int(index), centre_edge(size)), size) for index in chosen])
    return images, np.asarray(dataset.labels)[chosen]


def target_indices(classes: tuple[str, ...], outputs: int) -> np.ndarray | None:
    """Which output of a model stands for each class of the data: int64 (classes,), or None where they do not match."""
    if outputs == len(classes):
        return np.arange(outputs)
    if outputs == 1000 and all(name in IMAGENET_INDEX for name in classes):
        return np.asarray([IMAGENET_INDEX[name] for name in classes])
    return None


def _top1(
    choice: DataChoice, predict: Predict, split: str, size: int, batch: int, limit: int | None
) -> tuple[Quality, ...]:
    images, labels = _examples(choice, split, size, limit)
    answers: list[np.ndarray] = []
    indices = None
    for start in range(0, len(images), batch):
        rows = normalise(images[start : start + batch])
        padded = torch.cat([rows, rows[-1:].expand(batch - len(rows), -1, -1, -1)])
        logits = predict((padded,))[0]  # (batch, outputs)
        indices = target_indices(class_names(choice), logits.shape[1])
        if indices is None:
            return ()
        answers.append(logits[: len(rows)].float().argmax(1).cpu().numpy())
    chosen = np.concatenate(answers)
    right = (chosen == indices[labels]).astype(np.float64)  # type: ignore[index]
    return (Quality("top1", float(right.mean()), len(right), True, right, chosen),)


def _example(choice: DataChoice, size: int, batch: int, seed: int) -> Tensors:
    """Real images for an even seed, random pixels for an odd one: parity is checked on both."""
    generator = torch.Generator().manual_seed(seed)
    if seed % 2:
        return (torch.randn(batch, 3, size, size, generator=generator),)
    dataset = image_split(choice, "test", size)
    chosen = torch.randint(len(dataset), (batch,), generator=generator)
    return (torch.stack([dataset[int(index)][0] for index in chosen]),)


def image_workload(
    name: str,
    build: Callable[[int, Path | None], nn.Module],
    choice: DataChoice,
    *,
    smallest_size: int,
    ready_made: str | None = None,
) -> Workload:
    """A classifier of images on a chosen data set.

    ``build(classes, weights)`` makes the module; ``ready_made`` describes the weights that it brings along itself.
    """

    def weights(size: int) -> Weights:
        found, own = find_weights(name, size, choice.label)
        if found is not None:
            note = "" if own else f" (of another size: no weights of its own at {size} px)"
            return Weights(found, found.name + note, own)
        if ready_made is not None:
            return Weights(None, ready_made, own=True)
        return Weights(None, "random initialisation, seed 0 (no trained weights found)", own=False)

    return Workload(
        name=name,
        task=f"Classify images into {len(class_names(choice))} classes ({choice.label}).",
        scenario="Single images for latency, and batches for throughput, at several resolutions.",
        platform="Servers and workstations, CPU or one GPU.",
        build=lambda _size, weights: build(len(class_names(choice)), weights),
        example=partial(_example, choice),
        sizes=(128, 224),
        batches=(1, 8),
        data=partial(image_split, choice),
        quality=partial(_top1, choice),
        weights=weights,
        smallest_size=smallest_size,
        tolerated_drop=0.01,
        data_name=choice.label,
    )

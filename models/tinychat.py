"""Tinychat: a chat network for a microcontroller, which answers a query one character at a time.

1. 256 counts describe the query and the end of the answer so far (`models.data.chat`).
2. Linear layers with ReLU between them make a logit of each character, and of the end mark, which is the last class.

The layers' sizes are those of z80ai's released network (github.com/HarryR/z80ai, examples/tinychat): 145,000 weights.
`TextTinychat` is any such network with the encoding of the text in its graph, so that it runs on whatever runs graphs.
A checkpoint tells its size by ``meta["tinychat"]``, the fields of `TinychatConfig`.

``python -m models.tinychat`` talks with a network and looks at files of weights (`models.chat_command`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.data.chat import BUCKETS, RECENT, are_characters
from models.errors import SpeedproofError
from models.weights import built, read_checkpoint

CHARACTERS = " ABCDEFGHIJKLMNOPQRSTUVWXYZ012345678!/?"  # of z80ai's data, by class
LARGEST = 4096  # of any size: far past what a microcontroller can hold


@dataclass(frozen=True)
class TinychatConfig:
    """Sizes of a network; the defaults are those of z80ai's. A student has smaller ones."""

    hidden: tuple[int, ...] = (256, 192, 128)
    inputs: int = 2 * BUCKETS
    characters: str = CHARACTERS  # what answers are made of, by class; the end mark follows

    def __post_init__(self) -> None:
        """Raise SpeedproofError for sizes that make no network."""
        sizes = (*self.hidden, self.inputs)
        whole = all(isinstance(size, int) and 1 <= size <= LARGEST for size in sizes)
        if not whole or not self.characters or not are_characters(self.characters):
            raise SpeedproofError(
                f"{self} makes no network: expected sizes of 1 to {LARGEST} and different printable ASCII characters"
            )

    @property
    def classes(self) -> int:
        """How many logits there are: one a character, and the end mark."""
        return len(self.characters) + 1


class Tinychat(nn.Module):
    """Counts (B, inputs) float32 to logits (B, classes).

    ``linear(inputs, outputs)`` makes each of ``layers``: `nn.Linear`, or one that quantizes its weights.
    """

    def __init__(self, config: TinychatConfig | None = None, linear: Callable[[int, int], nn.Module] = nn.Linear):
        super().__init__()
        self.config = config = config or TinychatConfig()
        sizes = (config.inputs, *config.hidden, config.classes)
        self.layers = nn.ModuleList(map(linear, sizes[:-1], sizes[1:]))

    def forward(self, features: Tensor) -> Tensor:
        """Map counts to logits."""
        x = features
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)  # type: ignore[no-any-return]

    def sizes(self) -> TinychatConfig:
        """The configuration as the layers are now: pruning leaves fewer neurons than it began with."""
        widths: Any = [layer.weight.shape for layer in self.layers]  # (out, in) each
        return replace(self.config, hidden=tuple(out for out, _ in widths[:-1]), inputs=widths[0][1])


class TextTinychat(nn.Module):
    """A network of counts with their encoding before it: text to logits (B, classes).

    ``query`` uint8 (B, 64) ends at its first zero, ``recent`` uint8 (B, 8) are the last bytes of the answer so far with
    spaces before them. The counts are those of `models.data.chat`, bit for bit; 31 and 2**16 make that easy: what is
    below the last 7 bits of a hash never depends on what is above them.
    """

    buckets: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        # Its dtype is that of the counts: it goes with the network's.
        self.register_buffer("buckets", torch.arange(BUCKETS, dtype=torch.float32), persistent=False)

    def forward(self, query: Tensor, recent: Tensor) -> Tensor:
        """Map text to logits."""
        return self.network(self.encode(query, recent))  # type: ignore[no-any-return]

    def encode(self, query: Tensor, recent: Tensor) -> Tensor:
        """Map text to counts (B, 256)."""
        places = torch.arange(query.shape[1] + 2, device=query.device, dtype=torch.int32)
        ended = (query == 0).int().cumsum(1) > 0
        length = (~ended).int().sum(1, keepdim=True)  # (B, 1)
        text = F.pad(_lower(query), (1, 1))
        text = torch.where((places == 0) | (places == length + 1), ord(" "), text)
        trigrams = _buckets(text, 3, torch.zeros_like(places))  # (B, 64)
        # Those that begin behind the text go where no bucket is.
        counted = self._counts(torch.where(places[:-2] < length, trigrams, BUCKETS))
        starts = 7 * torch.arange(RECENT, device=query.device, dtype=torch.int32)
        grams = torch.cat([_buckets(_lower(recent), many, starts) for many in (1, 2, 3)], 1)  # (B, 8 + 7 + 6)
        return torch.cat([counted, self._counts(grams)], 1)

    def _counts(self, buckets: Tensor) -> Tensor:
        """How often each bucket is among int32 (B, N): (B, 128)."""
        dtype = self.buckets.dtype
        return (buckets.to(dtype)[:, :, None] == self.buckets).to(dtype).sum(1)


def _lower(codes: Tensor) -> Tensor:
    """Bytes in lower case, int32."""
    wide = codes.int()
    return torch.where((wide >= ord("A")) & (wide <= ord("Z")), wide + 32, wide)


def _buckets(text: Tensor, many: int, starts: Tensor) -> Tensor:
    """Buckets of every so many neighbours in int32 (B, L), hashed from ``starts`` (L,): int32 (B, L - many + 1)."""
    count = text.shape[1] - many + 1
    value = starts[:count]
    for offset in range(many):
        value = value * 31 + text[:, offset : offset + count]
    return value % BUCKETS


def build_tinychat(weights: Path | None, config: TinychatConfig | None = None) -> Tinychat:
    """A network in eval mode of the size that a checkpoint tells, else of ``config`` or the default.

    Without weights it is random, seed 0. Raises SpeedproofError for a checkpoint that is broken or does not fit.
    """
    told = config_of(read_checkpoint(weights)[1], str(weights)) if weights is not None else None
    return built(partial(Tinychat, told or config), weights)


def config_of(meta: Mapping[str, Any], where: str) -> TinychatConfig | None:
    """The size that a checkpoint's meta data tell, if they do. Raises SpeedproofError for one that makes no network."""
    told = meta.get("tinychat")
    if told is None:
        return None
    known = {field.name for field in fields(TinychatConfig)}
    if not isinstance(told, dict) or set(told) - known or not isinstance(told.get("hidden", ()), list | tuple):
        raise SpeedproofError(f'meta["tinychat"] of {where} is {told}: expected some of {", ".join(sorted(known))}')
    sizes: dict[str, Any] = {name: tuple(value) if name == "hidden" else value for name, value in told.items()}
    return TinychatConfig(**sizes)


def described(network: Tinychat) -> dict[str, Any]:
    """What a checkpoint says of a network, so that it is built in its own size."""
    return {"tinychat": asdict(network.sizes())}


if __name__ == "__main__":
    from models.chat_command import main

    sys.exit(main())

"""Tinychat as workloads: what character comes next, and what whole answers come of it.

- ``tinychat``: counts (B, 256) to logits (B, classes), the network alone.
- ``tinychat_text``: the bytes of a query and of the answer so far to logits, the encoding included.

Students are named by their hidden layers, ``tinychat_hidden128x96x64``, and run on text too,
``tinychat_text_hidden128x96x64``. The size is that of the field that holds a query, which is one: 64 characters. All
are judged alike, on next characters after the right answer so far (teacher forcing) first.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.data.chat import (
    MOST_ANSWER,
    MOST_QUERY,
    RECENT,
    Chats,
    chat_characters,
    chat_split,
    context_features,
    data_name,
    query_codes,
    query_features,
    recent_codes,
)
from models.errors import SpeedproofError
from models.tinychat import TextTinychat, TinychatConfig, build_tinychat
from models.weights import tinychat_path
from models.workload import DataChoice, Predict, Quality, Tensors, Weights, Workload

Text = tuple[str, str]  # a query, and the answer so far
Encode = Callable[[Sequence[Text]], Tensors]  # texts to the inputs of a network
Ask = Callable[[Sequence[Text]], Tensor]  # texts to logits float32 (N, classes)

_FIRST, _LAST = ord(" "), ord("~")  # printable ASCII


def encode_counts(texts: Sequence[Text]) -> Tensors:
    """Counts, float32 (N, 256)."""
    rows = [np.concatenate([query_features(query), context_features(so_far)]) for query, so_far in texts]
    return (torch.from_numpy(np.stack(rows)).float(),)


def encode_codes(texts: Sequence[Text]) -> Tensors:
    """Bytes of the queries, uint8 (N, 64), and the last ones of the answers so far, uint8 (N, 8)."""
    queries, recent = (
        np.stack(rows) for rows in zip(*((query_codes(q), recent_codes(a)) for q, a in texts), strict=True)
    )
    return torch.from_numpy(queries), torch.from_numpy(recent)


def asking(predict: Predict, encode: Encode, batch: int) -> Ask:
    """Ask in batches of exactly ``batch`` rows."""

    def ask(texts: Sequence[Text]) -> Tensor:
        logits = []
        for start in range(0, len(texts), batch):
            rows = list(texts[start : start + batch])
            padded = rows + rows[-1:] * (batch - len(rows))
            logits.append(predict(encode(padded))[0][: len(rows)].detach().float().cpu())
        return torch.cat(logits)

    return ask


def respond(ask: Ask, queries: Sequence[str], characters: str) -> list[str]:
    """The answers: always the likeliest character, the first of equals, until the end mark or 24 characters."""
    answers, open_rows = [""] * len(queries), list(range(len(queries)))
    while open_rows:
        chosen = ask([(queries[row], answers[row]) for row in open_rows]).argmax(1).tolist()
        for row, label in zip(open_rows, chosen, strict=True):
            answers[row] += characters[label : label + 1]
        going_on = zip(open_rows, chosen, strict=True)
        open_rows = [row for row, label in going_on if label < len(characters) and len(answers[row]) < MOST_ANSWER]
    return answers


def qualities(ask: Ask, chats: Chats, limit: int | None) -> tuple[Quality, ...]:
    """Next and first characters, cross entropy, and whole answers, on the first ``limit`` examples of a split.

    A whole answer is right where it is any of those that the query has; it counts for queries of these examples.
    """
    texts = list(zip(chats.queries, chats.so_far, strict=True))[:limit]
    targets = torch.from_numpy(chats.targets[: len(texts)])
    logits = ask(texts)
    said = logits.argmax(1)
    right, first = (said == targets).double().numpy(), np.array([not so_far for _, so_far in texts])
    loss = F.cross_entropy(logits.double(), targets, reduction="none").numpy()
    queries = list(dict.fromkeys(query for query, _ in texts))
    answers = respond(ask, queries, chats.characters)
    whole = np.array([answer in chats.answers[query] for query, answer in zip(queries, answers, strict=True)], float)
    numbers = np.array([zlib.crc32(answer.encode()) for answer in answers], np.int64)  # to tell answers apart by
    return (
        Quality("next_char", float(right.mean()), len(right), True, right, said.numpy()),
        Quality("first_char", float(right[first].mean()), int(first.sum()), True, right[first], said.numpy()[first]),
        Quality("loss", float(loss.mean()), len(loss), False, loss, said.numpy()),
        Quality("whole_answers", float(whole.mean()), len(whole), True, whole, numbers),
    )


def sample_texts(choice: DataChoice, batch: int, seed: int) -> list[Text]:
    """Texts to check parity on: out of the data for an even seed, random printable ones for an odd one."""
    dice = np.random.default_rng(seed)
    if seed % 2:
        lengths = dice.integers([MOST_QUERY + 1, RECENT + 1], size=(batch, 2))
        codes = [[dice.integers(_FIRST, _LAST + 1, length).astype(np.uint8).tobytes().decode() for length in pair]
                 for pair in lengths]  # fmt: skip
        return [(query, so_far) for query, so_far in codes]
    chats = chat_split(choice, "test")
    return [(chats.queries[row], chats.so_far[row]) for row in dice.integers(len(chats), size=batch)]


def trained(name: str, data: str) -> Weights:
    """The weights of ``tinychat``, or of a student of that name, for a corpus; random ones where there are none."""
    path = tinychat_path(name, data)
    if path.is_file():
        return Weights(path, path.name, own=True)
    return Weights(None, "random initialisation, seed 0 (no trained weights found)", own=False)


def _build(hidden: tuple[int, ...], text: bool, choice: DataChoice, size: int, weights: Path | None) -> nn.Module:
    """The network with a file's weights, in eval mode; without, random, seed 0."""
    named = TinychatConfig(hidden, characters=chat_characters(choice))
    network = build_tinychat(weights, named)
    found = network.config
    # Fewer neurons are a pruned network of this name.
    fits = len(found.hidden) == len(hidden) and all(map(int.__le__, found.hidden, hidden))
    if not fits or replace(found, hidden=hidden) != named:
        raise SpeedproofError(
            f"{weights} holds a Tinychat {_words(found)}, expected one {_words(named)}, or with fewer neurons: give "
            f"weights of this network, trained on these data"
        )
    return TextTinychat(network).eval() if text else network


def _words(config: TinychatConfig) -> str:
    sizes = "-".join(map(str, (config.inputs, *config.hidden, config.classes)))
    return f"{sizes} with the characters {config.characters!r}"


def _example(choice: DataChoice, encode: Encode, size: int, batch: int, seed: int) -> Tensors:
    return encode(sample_texts(choice, batch, seed))


def _data(choice: DataChoice, split: str, size: int) -> Chats:
    return chat_split(choice, split)


def _quality(
    choice: DataChoice, encode: Encode, predict: Predict, split: str, size: int, batch: int, limit: int | None
) -> tuple[Quality, ...]:
    return qualities(asking(predict, encode, batch), chat_split(choice, split), limit)


def _workload(name: str, hidden: tuple[int, ...], text: bool, choice: DataChoice) -> Workload:
    known, encode = data_name(choice), encode_codes if text else encode_counts
    return Workload(
        name=name,
        task=f"Tell from {'the text' if text else 'counts'} of a query and its answer so far what is next ({known}).",
        scenario="One character at a time: a person waits for the answer.",
        platform="A microcontroller, an Arduino UNO: 16 MHz, 32 KiB of flash, 2 KiB of SRAM.",
        build=partial(_build, hidden, text, choice),
        example=partial(_example, choice, encode),
        sizes=(MOST_QUERY,),
        batches=(1,),
        data=partial(_data, choice),
        quality=partial(_quality, choice, encode),
        weights=lambda _size: trained(name, known),
        smallest_size=MOST_QUERY,
        tolerated_drop=0.01,
        data_name=known,
        size_unit="chars",
    )


def student(name: str) -> Callable[[DataChoice], Workload] | None:
    """What makes the workload of a name; None where it names no sizes. Raises SpeedproofError for impossible ones."""
    found = re.fullmatch(r"tinychat_(text_)?hidden(\d+(?:x\d+)*)", name)
    if found is None:
        return None
    hidden = TinychatConfig(tuple(map(int, found[2].split("x")))).hidden
    return partial(_workload, name, hidden, found[1] is not None)


WORKLOADS: dict[str, Callable[[DataChoice], Workload]] = {
    "tinychat": partial(_workload, "tinychat", TinychatConfig.hidden, False),
    "tinychat_text": partial(_workload, "tinychat_text", TinychatConfig.hidden, True),
}

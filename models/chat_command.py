"""The commands of ``python -m models.tinychat``: look at a file of weights, talk with a network, export one.

- ``load FILE``: what a file holds, a checkpoint or an ``.npz``, and how good it is on the corpus at hand;
- ``chat QUERY ...``: answers;
- ``export FILE -o model.npz``: a checkpoint as arrays that need no torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from tabulate import tabulate

from models.chat_file import Network, as_module, characters_in, read_network, save_npz, sizes_in
from models.chatting import Ask, asking, encode_counts, qualities, respond
from models.command import run
from models.data.chat import MOST_QUERY, OWN, chat_split, data_name
from models.errors import SpeedproofError
from models.files import check_writable
from models.integer import IntegerNet
from models.integer_files import packed_bytes
from models.weights import tinychat_path
from models.workload import DataChoice, Tensors

_ROWS = 256  # texts a call
_SPLITS = ("train", "validation")


def _ask(network: Network) -> Ask:
    module = as_module(network)

    def predict(inputs: Tensors) -> Tensors:
        with torch.inference_mode():
            return (module(*inputs),)

    return asking(predict, encode_counts, _ROWS)


def quality_table(network: Network, choice: DataChoice) -> str:
    """How good a network is on the splits of a corpus, and on all. Raises SpeedproofError for other characters."""
    ask, found = _ask(network), []
    for split in _SPLITS:
        chats = chat_split(choice, split)
        if characters_in(network) != chats.characters:
            raise SpeedproofError(
                f"the network's characters are {characters_in(network)!r}, those of {data_name(choice)} are "
                f"{chats.characters!r}: give the corpus that it was trained on with --data-dir"
            )
        found.append(qualities(ask, chats, None))
    integer, rows = isinstance(network, IntegerNet), []
    for parts in zip(*found, strict=True):
        name, cells = parts[0].name, [(part.value, part.examples) for part in parts]
        examples = sum(part.examples for part in parts)
        cells.append((sum(value * count for value, count in cells) / examples, examples))
        rows.append([name, *(_said(name, value, count, integer) for value, count in cells)])
    return tabulate(
        rows, [data_name(choice), *_SPLITS, "all"], disable_numparse=True, colalign=("left", *3 * ["right"])
    )


def _said(name: str, value: float, examples: int, integer: bool) -> str:
    if name == "loss":  # of integers: logits without a unit have none
        return "-" if integer else f"{value:.3f} of {examples:,}"
    return f"{value:.1%} of {examples:,}"


def _load(options: argparse.Namespace) -> None:
    network = read_network(options.file)
    sizes = sizes_in(network)
    weights = sum(left * right for left, right in pairwise(sizes))
    if isinstance(network, IntegerNet):
        kind = f"{network.kind} weights, {packed_bytes(network):,} bytes packed with their biases"
    else:
        kind = "float weights"
    print(f"{options.file}: {'-'.join(map(str, sizes))}, {weights:,} {kind}")
    print(quality_table(network, _choice(options)))


def _chat(options: argparse.Namespace) -> None:
    network = read_network(options.weights or _trained(_choice(options)))
    queries = [" ".join(query.split()) for query in options.query]
    if not all(queries):
        raise SpeedproofError("an empty query has no answer: type some words")
    for query in queries:
        if (length := len(query.encode(errors="replace"))) > MOST_QUERY:
            print(f"of the {length} bytes of {query[:20]!r}... the first {MOST_QUERY} count", file=sys.stderr)
    answers = respond(_ask(network), queries, characters_in(network))
    for query, answer in zip(queries, answers, strict=True):
        print(answer if len(queries) == 1 else f"{query}: {answer}")


def _trained(choice: DataChoice) -> Path:
    path = tinychat_path("tinychat", data_name(choice))
    if not path.is_file():
        raise SpeedproofError(
            f"no trained weights at {path}: train them with `python -m optim.train --workload tinychat`, or give "
            f"--weights FILE"
        )
    return path


def _export(options: argparse.Namespace) -> None:
    if options.output.suffix != ".npz":
        raise SpeedproofError(f"-o {options.output}: expected a name that ends in .npz, such as model.npz")
    check_writable(options.output.parent)
    save_npz(options.output, read_network(options.file))
    print(f"{options.output}: written")


def _choice(options: argparse.Namespace) -> DataChoice:
    if options.data and options.data_dir:
        raise SpeedproofError(f"--data-dir {options.data_dir} is another corpus than --data {OWN}: leave one out")
    return DataChoice(options.data or "folder", options.data_dir)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models.tinychat", description="Talk with a network, or look at one."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    loading = commands.add_parser("load", help="what a file holds, and how good it is")
    chatting = commands.add_parser("chat", help="answer queries")
    exporting = commands.add_parser("export", help="write a network as .npz")
    for command, action in ((loading, _load), (chatting, _chat), (exporting, _export)):
        command.set_defaults(action=action)
    for command in (loading, exporting):
        command.add_argument("file", type=Path, metavar="FILE", help="a checkpoint, or an .npz in z80ai's layout")
    chatting.add_argument("query", nargs="+", metavar="QUERY", help="what to answer")
    chatting.add_argument("--weights", type=Path, metavar="FILE", help="of the network (the trained ones of tinychat)")
    exporting.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="where it is written")
    for command in (loading, chatting):
        command.add_argument("--data", choices=[OWN], help="the corpus, to leave z80ai's out")
        command.add_argument("--data-dir", type=Path, metavar="DIR", help="a corpus of query|answer lines")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when it is done, 2 for bad input, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    return run(partial(options.action, options), "interrupted")

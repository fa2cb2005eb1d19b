"""Tinychat: pairs of a query and its answer, and one example for each next character of an answer.

1. A corpus has a pair ``query|answer`` a line. Blank lines and those that begin with ``#`` do not count; the first
   ``|`` divides; both sides lose the spaces around them and become upper case; queries of fewer than two characters are
   left out.
2. Pairs are split by query: a hash of it puts about 20 % of all queries into validation. There is no third part, since
   queries are few: the test is the validation again, so that the best epoch's figure is a little too good.
3. Each character of an answer, and the mark of its end, is an example: 128 counts of the query, 128 of the answer so
   far, and the character's class.

The two vectors of counts follow z80ai (github.com/HarryR/z80ai, examples/tinychat), whose data are the data of record:

- **query**: the text in lower case with a space on either side; every three neighbours fall into a bucket.
- **context**: the last 8 characters of the answer, in lower case, with spaces on the left; every one, two and three
  neighbours fall into a bucket that depends on their place too.

A bucket is the last 7 bits of a 16-bit hash, h = 31 h + byte. Text is bytes here, UTF-8, as it is on a serial line: the
first 64 of a query count, and it ends at a NUL.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from models.data.fetch import data_root
from models.errors import SpeedproofError
from models.workload import DataChoice, in_a_name

BUCKETS = 128  # of the query, and as many of the context
MOST_QUERY = 64  # bytes of a query that count: more than the longest of the data, and what a small device can keep
RECENT = 8  # characters of the answer so far that count
MOST_ANSWER = 24  # characters after which an answer is cut: the longest of the data has 13
SHORTEST_QUERY = 2

FOLDER = "z80ai-tinychat"
FILES = ("training-data.txt.gz", "training-data.txt")
OWN = "own_sentences"
_NAME = "z80ai"
_OWN_CORPUS = Path(__file__).with_name("chat_corpus.txt")
# SHA-256 of the text on which the figures of record were measured; its authors publish none.
_RECORD = "591ff655f9ecf6827a37ebef6fb8465dfabdc46920539df84e0be6bfea757f42"

Pair = tuple[str, str]
Codes = NDArray[np.uint8]


def query_codes(text: str) -> Codes:
    """The bytes of a query that count, zeros behind them: uint8 (64,)."""
    codes = text.encode(errors="replace").split(b"\0")[0][:MOST_QUERY]
    return np.frombuffer(codes.ljust(MOST_QUERY, b"\0"), np.uint8)


def recent_codes(answer: str) -> Codes:
    """The last bytes of the answer so far, spaces before them: uint8 (8,)."""
    return np.frombuffer(answer.encode(errors="replace")[-RECENT:].rjust(RECENT), np.uint8)


def query_features(text: str) -> Codes:
    """Counts of a query's trigrams: uint8 (128,)."""
    padded = b" " + query_codes(text).tobytes().rstrip(b"\0").lower() + b" "
    return _counts(_bucket(padded[start : start + 3]) for start in range(len(padded) - 2))


def context_features(answer: str) -> Codes:
    """Counts of the n-grams, up to three characters long, at the end of the answer so far: uint8 (128,)."""
    recent = recent_codes(answer).tobytes().lower()
    places = ((start, start + length) for start in range(RECENT) for length in (1, 2, 3))
    return _counts(_bucket(recent[start:end], 7 * start) for start, end in places if end <= RECENT)


def _bucket(gram: bytes, start: int = 0) -> int:
    value = start
    for byte in gram:
        value = (31 * value + byte) & 0xFFFF
    return value % BUCKETS


def _counts(buckets: Iterable[int]) -> Codes:
    return np.bincount(np.fromiter(buckets, np.int64), minlength=BUCKETS).astype(np.uint8)


def read_pairs(path: Path) -> tuple[Pair, ...]:
    """The pairs of a corpus, text or gzip, in its order. Raises SpeedproofError, with the line, for what is no pair."""
    pairs = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        query, bar, answer = (part.strip().upper() for part in stripped.partition("|"))
        if not bar or not answer or not answer.isascii() or not answer.isprintable():
            raise SpeedproofError(
                f"{path}, line {number}: expected query|answer, the answer in printable ASCII, found {stripped[:60]!r}"
            )
        if len(query) >= SHORTEST_QUERY:
            pairs.append((query, answer))
    return tuple(pairs)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise SpeedproofError(
            f"the corpus {path} is truncated, or no text in UTF-8 ({error}): copy it again"
        ) from error
    except OSError as error:
        raise SpeedproofError(f"cannot read the corpus {path} ({error.strerror}): give a readable file") from error


def characters_of(pairs: Iterable[Pair]) -> str:
    """The characters of all answers by class: the space, sorted letters, digits, all others. The end mark follows."""
    found = sorted(set("".join(answer for _, answer in pairs)) - {" "})
    return " " + "".join(sorted(found, key=lambda character: (not character.isalpha(), not character.isdigit())))


def are_characters(characters: object) -> bool:
    """Whether they can be those of a network's classes: different ones of printable ASCII."""
    if not isinstance(characters, str):
        return False
    return characters.isascii() and characters.isprintable() and len(set(characters)) == len(characters)


def which_split(query: str) -> str:
    """``train`` or ``validation``, by the query alone."""
    return "validation" if _hash(query) % 100 < 20 else "train"


def _hash(query: str) -> int:
    return int.from_bytes(hashlib.sha256(query.encode()).digest()[:8], "big")


@dataclass(frozen=True, eq=False)
class Chats(Dataset[tuple[Tensor, int]]):
    """The next-character examples of one split, the queries shuffled once for all, each with its own in a row.

    ``features`` uint8 (N, 256), query before context; ``targets`` int64 (N,), the class of the next character;
    ``queries`` and ``so_far``, the text that an example belongs to and the answer by then, have one entry each.
    ``answers`` are those that count as right for each query of the split, ``characters`` those of all classes but the
    last, the end mark.
    """

    features: Codes
    targets: NDArray[np.int64]
    queries: tuple[str, ...]
    so_far: tuple[str, ...]
    answers: Mapping[str, tuple[str, ...]]
    characters: str

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return the counts, float32 (256,), and the class of the next character."""
        return torch.from_numpy(self.features[index]).float(), int(self.targets[index])


def chat_split(choice: DataChoice, split: str) -> Chats:
    """The examples of ``train``, ``validation`` or ``test``, which is the validation again.

    Raises SpeedproofError where the corpus that was asked for is not there, broken, or has no query of this split.
    """
    return _chats(chat_file(choice), "train" if split == "train" else "validation")


def chat_characters(choice: DataChoice) -> str:
    """The characters of a corpus, as `characters_of`."""
    return characters_of(_pairs(chat_file(choice)))


def chat_file(choice: DataChoice) -> Path:
    """The corpus: a folder's or file of one's own, else z80ai's, else that of our sentences where there is no copy.

    Raises SpeedproofError where one was asked for and is not there.
    """
    if choice.name == OWN:
        return _OWN_CORPUS
    if choice.directory is not None:
        found = [path for path in (choice.directory, *(choice.directory / name for name in FILES)) if path.is_file()]
        if not found:
            raise SpeedproofError(
                f"--data-dir {choice.directory}: expected a corpus of query|answer lines, or a folder with one named "
                f"{' or '.join(FILES)}"
            )
        return found[0]
    return _copy_in(data_root()) or _OWN_CORPUS


def _copy_in(root: Path) -> Path | None:
    return next((path for path in (root / FOLDER / name for name in FILES) if path.is_file()), None)


def data_name(choice: DataChoice) -> str:
    """``z80ai`` for the text of record, ``own_sentences`` for ours; another text has a hash of it in its name.

    Figures and weights of different texts never share a name. Raises SpeedproofError as `chat_split`.
    """
    path = chat_file(choice)
    if path == _OWN_CORPUS:
        return OWN
    digest = hashlib.sha256(_text(path).encode()).hexdigest()
    return _NAME if digest == _RECORD else f"{in_a_name(choice.directory or path.parent)}_{digest[:8]}"


def check_copy(root: Path) -> str:
    """What the copy of z80ai's data in a folder of data sets is, in a sentence. Raises SpeedproofError without one.

    There is no archive with a published checksum, so that nothing can be fetched and checked.
    """
    path = _copy_in(root)
    if path is None:
        raise SpeedproofError(
            f"chat has no archive with a published checksum, so nothing is fetched: copy {FILES[0]} from "
            f"examples/tinychat of github.com/HarryR/z80ai into {root / FOLDER}; until then {OWN} take its place"
        )
    pairs, name = read_pairs(path), data_name(DataChoice("folder", path))
    known = "the text of the figures of record" if name == _NAME else f"not the text of the figures of record: {name}"
    return f"chat is at {path} already: {len(pairs):,} pairs, {known}"


@cache
def _pairs(path: Path) -> tuple[Pair, ...]:
    pairs = read_pairs(path)
    if len({which_split(query) for query, _ in pairs}) < 2:
        raise SpeedproofError(f"{path} holds {len(pairs)} pairs, too few to train on and judge by: expected dozens")
    return pairs


@cache
def _chats(path: Path, split: str) -> Chats:
    pairs = _pairs(path)
    characters = characters_of(pairs)
    chosen = sorted((pair for pair in pairs if which_split(pair[0]) == split), key=lambda pair: _hash(pair[0]))
    answers: dict[str, tuple[str, ...]] = {}
    for query, answer in chosen:
        answers[query] = tuple(dict.fromkeys((*answers.get(query, ()), answer)))
    examples = [(query, answer[:end], answer[end:][:1]) for query, answer in chosen for end in range(len(answer) + 1)]
    of_query, of_context = cache(query_features), cache(context_features)
    return Chats(
        features=np.stack([np.concatenate([of_query(query), of_context(so_far)]) for query, so_far, _ in examples]),
        targets=np.array([characters.index(after) if after else len(characters) for *_, after in examples]),
        queries=tuple(query for query, *_ in examples),
        so_far=tuple(so_far for _, so_far, _ in examples),
        answers=answers,
        characters=characters,
    )

"""Chats: what is counted of a text, which pairs a corpus has, how they are split, and what is refused."""

import gzip
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.data.__main__ import main
from models.data.chat import (
    MOST_ANSWER,
    MOST_QUERY,
    OWN,
    Chats,
    characters_of,
    chat_characters,
    chat_file,
    chat_split,
    context_features,
    data_name,
    query_codes,
    query_features,
    read_pairs,
    recent_codes,
    which_split,
)
from models.data.fetch import data_root
from models.errors import SpeedproofError
from models.tinychat import TextTinychat
from models.workload import DataChoice

OURS, USUAL = DataChoice(OWN), DataChoice()
RECORD = pytest.mark.skipif(
    not (data_root() / "z80ai-tinychat" / "training-data.txt.gz").is_file(),
    reason="z80ai's data are not on this machine",
)
printable = st.text(st.characters(min_codepoint=32, max_codepoint=126))
pair_text = st.text("abcXYZ 019!?", min_size=1, max_size=8).filter(str.strip)


def refused(action, *arguments) -> str:
    with pytest.raises(SpeedproofError) as caught:
        action(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def counted(grams) -> list[int]:
    """How often each bucket is hit by (start, gram): the hash as a polynomial in exact integers, not step by step."""
    hit = Counter(
        (start * 31 ** len(gram) + sum(ord(one) * 31**power for power, one in enumerate(reversed(gram)))) % 2**16 % 128
        for start, gram in grams
    )
    return [hit[bucket] for bucket in range(128)]


@given(printable)
def test_a_query_is_counted_by_its_trigrams(text):
    padded = f" {text[:64].lower()} "
    grams = [(0, "".join(three)) for three in zip(padded, padded[1:], padded[2:], strict=False)]
    assert query_features(text).tolist() == counted(grams)
    assert query_features(text).sum() == min(len(text), 64)


@given(printable)
def test_an_answer_is_counted_by_place(text):
    recent = f"{'':8}{text.lower()}"[-8:]
    grams = [(7 * start, recent[start:end]) for end in range(9) for start in range(max(0, end - 3), end)]
    assert context_features(text).tolist() == counted(grams)
    assert context_features(text).sum() == 8 + 7 + 6


def test_buckets_worked_out_by_hand():
    # " a " is (32 * 31 + 97) * 31 + 32 = 33,791, which is 263 * 128 + 127.
    assert np.flatnonzero(query_features("A")).tolist() == [127]
    # Of eight spaces the first alone is 32, all three 32 * 31 * 31 + 32 * 31 + 32 = 31,776 = 248 * 128 + 32.
    assert context_features("")[32] >= 2


@given(st.text())
def test_text_is_its_bytes_up_to_a_nul(text):
    """Whatever a person types: UTF-8 as on a serial line, 64 bytes of a query, 8 of an answer."""
    data = text.encode()
    assert query_codes(text).tobytes() == data.partition(b"\0")[0][:64].ljust(64, b"\0")
    assert recent_codes(text).tobytes() == (b" " * 8 + data)[-8:]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("", ""),
        ("HeLLo", "hello"),
        ("a" * 300, "a" * 64),
        ("hi\0there", "hi"),
        ("\0", ""),
        ("é" * 300, "é" * 32),
        ("\udcff", "?"),  # what Python makes of a byte of a command line that is no UTF-8
    ],
)
def test_texts_that_count_the_same(text, same):
    assert np.array_equal(query_features(text), query_features(same))


@pytest.mark.parametrize(("text", "total"), [("", 0), ("x", 1), ("x" * 50, 50), ("x" * 300, 64), ("a\nb", 3), ("é", 2)])
def test_each_byte_of_a_query_is_the_middle_of_one_trigram(text, total):
    assert query_features(text).sum() == total


@given(st.lists(st.tuples(st.binary(max_size=64), st.binary(min_size=8, max_size=8)), min_size=1, max_size=8))
def test_the_graph_counts_as_numpy_does(rows):
    """Any bytes, also those that are no text: NULs within a query, and above 127."""
    query = torch.tensor([list(text.ljust(64, b"\0")) for text, _ in rows], dtype=torch.uint8)
    recent = torch.tensor([list(text) for _, text in rows], dtype=torch.uint8)
    found = TextTinychat(torch.nn.Identity())(query, recent)
    assert (found.dtype, found.shape) == (torch.float32, (len(rows), 256))
    for row, (text, last) in enumerate(rows):
        padded = b" " + text.partition(b"\0")[0].lower() + b" "
        grams = [(0, padded[start : start + 3].decode("latin-1")) for start in range(len(padded) - 2)]
        small = last.lower().decode("latin-1")
        places = [(7 * start, small[start:end]) for end in range(9) for start in range(max(0, end - 3), end)]
        assert found[row].int().tolist() == counted(grams) + counted(places)


def corpus(folder, text: str, name: str = "training-data.txt") -> DataChoice:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return DataChoice("folder", path)


@pytest.mark.parametrize("name", ["training-data.txt", "training-data.txt.gz", "mine.txt"])
def test_what_is_a_pair(tmp_path, name):
    text = (
        "\ufeff# a comment|no pair\n\n   \n  hello there | hi \nHello There|hey\nx|too short\n  # another|comment\n"
        "what|is|this|\r\nab|c\n"
    )
    path = corpus(tmp_path, text, name).directory
    assert read_pairs(path) == (
        ("HELLO THERE", "HI"), ("HELLO THERE", "HEY"), ("WHAT", "IS|THIS|"), ("AB", "C"),
    )  # fmt: skip


@given(st.lists(st.tuples(pair_text, pair_text, st.sampled_from(["", "# so|so", " \t"])), max_size=20))
def test_pairs_come_back_in_their_order(tmp_path_factory, rows):
    lines = [line for query, answer, between in rows for line in (between, f" {query}|{answer} ")]
    path = corpus(tmp_path_factory.mktemp("corpus"), "\n".join(lines)).directory
    expected = [(query.strip().upper(), answer.strip().upper()) for query, answer, _ in rows]
    assert read_pairs(path) == tuple(pair for pair in expected if len(pair[0]) > 1)


@given(st.lists(st.text("zA b09!?/|~", min_size=1)))
def test_characters_are_space_letters_digits_and_the_rest(answers):
    found = characters_of([("query", answer.upper()) for answer in answers])
    assert set(found) == set("".join(answers).upper()) | {" "}
    kinds = ["slp"[0 if one == " " else 1 if one.isalpha() else 2] if not one.isdigit() else "m" for one in found]
    assert kinds == sorted(kinds, key="slmp".index)
    for kind in "lmp":
        own = [one for one, other in zip(found, kinds, strict=True) if other == kind]
        assert own == sorted(own)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "hello|hi\nno bar here\n",
            "line 2: expected query|answer, the answer in printable ASCII, found 'no bar here'",
        ),
        ("hello|\n", "line 1: expected query|answer"),
        ("hello|h\u00e9\n", "line 1: expected query|answer"),
        ("hello|h\0i\n", "line 1: expected query|answer"),
        ("", "holds 0 pairs, too few to train on and judge by"),
        ("hello|hi\n", "holds 1 pairs, too few"),
    ],
)
def test_what_is_no_corpus(tmp_path, text, said):
    assert said in refused(chat_split, corpus(tmp_path, text), "train")


def test_files_that_are_none(tmp_path):
    choice = corpus(tmp_path, "hello|hi\n" * 100, "training-data.txt.gz")
    whole = choice.directory.read_bytes()
    for broken in (whole[:-9], whole[:4], b"hello|hi", whole[:15] + b"\xff\xff" + whole[17:]):
        choice.directory.write_bytes(broken)
        assert "is truncated, or no text in UTF-8" in refused(read_pairs, choice.directory)
    (tmp_path / "latin.txt").write_bytes("h\u00e9|hi".encode("latin-1"))
    assert "no text in UTF-8" in refused(read_pairs, tmp_path / "latin.txt")
    assert "cannot read the corpus" in refused(read_pairs, tmp_path)
    assert "expected a corpus of query|answer lines" in refused(
        chat_split, DataChoice("folder", tmp_path / "no"), "test"
    )
    (tmp_path / "empty").mkdir()
    assert "named training-data.txt.gz" in refused(data_name, DataChoice("folder", tmp_path / "empty"))


def check_split(choice: DataChoice) -> dict[str, Chats]:
    """Every pair is in one split, by its query, as all of its examples in a row."""
    pairs = read_pairs(chat_file(choice))
    splits = {split: chat_split(choice, split) for split in ("train", "validation")}
    for split, chats in splits.items():
        own = [pair for pair in pairs if which_split(pair[0]) == split]
        assert {query: set(answers) for query, answers in chats.answers.items()} == {
            query: {answer for other, answer in own if other == query} for query, _ in own
        }
        said, answer = [], ""
        for row, target in enumerate(chats.targets.tolist()):
            assert chats.so_far[row] == answer
            if target < len(chats.characters):
                answer += chats.characters[target]
            else:
                said.append((chats.queries[row], answer))
                answer = ""
        assert sorted(said) == sorted(own)
        queries = [query for query, _ in said]
        assert len(dict.fromkeys(queries)) == sum(one != two for one, two in zip(["", *queries], queries, strict=False))
        for row in range(0, len(chats), 29):
            features, target = chats[row]
            parts = query_features(chats.queries[row]), context_features(chats.so_far[row])
            assert (features.dtype, features.int().tolist()) == (torch.float32, np.concatenate(parts).tolist())
            assert target == chats.targets[row]
    assert splits["train"].answers.keys().isdisjoint(splits["validation"].answers)
    assert chat_split(choice, "test") is splits["validation"]
    return splits


def test_our_sentences():
    pairs = read_pairs(chat_file(OURS))
    assert len(pairs) >= 150
    assert max(len(query) for query, _ in pairs) <= MOST_QUERY
    assert max(len(answer) for _, answer in pairs) < MOST_ANSWER
    splits = check_split(OURS)
    assert any(len(answers) > 1 for answers in splits["train"].answers.values())
    assert data_name(OURS) == OWN


def test_a_fifth_of_all_queries_is_for_validation():
    found = [which_split(f"QUERY {number}") for number in range(20_000)]
    assert found.count("validation") / len(found) == pytest.approx(0.2, abs=0.01)


@RECORD
def test_the_data_of_record():
    pairs = read_pairs(chat_file(USUAL))
    assert (len(pairs), len({query for query, _ in pairs}), len({answer for _, answer in pairs})) == (2990, 2280, 502)
    answers = {query: {answer for other, answer in set(pairs) if other == query} for query, _ in pairs[:200]}
    assert any(len(found) > 1 for found in answers.values())
    assert chat_characters(USUAL) == " ABCDEFGHIJKLMNOPQRSTUVWXYZ012345678!/?"
    splits = check_split(USUAL)
    assert sum(map(len, splits.values())) == 14_814
    several = sum(len(found) > 1 for chats in splits.values() for found in chats.answers.values())
    assert several == 359
    assert data_name(USUAL) == "z80ai"


def test_another_text_has_another_name(tmp_path, monkeypatch):
    text = "".join(f"query {number}|answer\n" for number in range(40))
    (tmp_path / "mine").mkdir()
    first = data_name(corpus(tmp_path / "mine", text))
    assert first == data_name(DataChoice("folder", tmp_path / "mine" / "training-data.txt"))
    folder = DataChoice("folder", tmp_path / "mine")
    named = data_name(folder)
    assert named.startswith("mine_")
    corpus(tmp_path / "mine", text + "more|answer\n")
    assert data_name(folder) != named
    (tmp_path / "z80ai-tinychat").mkdir()
    corpus(tmp_path / "z80ai-tinychat", text)
    monkeypatch.setenv("SPEEDPROOF_DATA", str(tmp_path))
    assert data_name(USUAL).startswith("z80ai_tinychat_")
    monkeypatch.setenv("SPEEDPROOF_DATA", str(tmp_path / "nothing"))
    assert data_name(USUAL) == OWN


def test_nothing_is_fetched_but_a_copy_is_checked(tmp_path, monkeypatch, capsys):
    assert main(["fetch", "chat", "--to", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "copy training-data.txt.gz from examples/tinychat of github.com/HarryR/z80ai into " in said
    assert str(tmp_path / "z80ai-tinychat") in said
    (tmp_path / "z80ai-tinychat").mkdir()
    corpus(tmp_path / "z80ai-tinychat", "hello|hi\n", "training-data.txt.gz")
    assert main(["fetch", "chat", "--to", str(tmp_path)]) == 0
    assert "1 pairs, not the text of the figures of record" in capsys.readouterr().out

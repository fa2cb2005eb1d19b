"""What methods, backends and models say of themselves: the docstrings of their modules, read without importing them.

A method's docstring numbers its steps, names its papers by their arXiv numbers and ends with "Mechanism: ... Limits:
... Risk: ...". It is parsed from the source, since importing a method would import torch.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench_tests.harness.report.document import Cite, Code, Sentence, Span

_HOME = Path(__file__).parents[4]  # holds models and optim, in the repository and where the package is installed

# The module of a step, by the name that its config has in a record.
MODULES: Mapping[str, str] = {
    "distill": "optim.distill",
    **dict.fromkeys(("prune", "structured", "global", "local", "gradual", "2:4"), "optim.prune"),
    **dict.fromkeys(("quantize", "static", "dynamic", "weights", "qat"), "optim.quantize"),
    **dict.fromkeys(("bits", "2bit", "1bit", "ternary"), "optim.bits"),
}

_ARXIV = r"\d{4}\.\d{4,5}(?!\d|\.\d)"
_MARKED = re.compile(rf"``(?P<literal>.+?)``|`(?P<name>[^`]+)`|(?<![\d.])(?P<arxiv>{_ARXIV})")
# "Hinton et al., 1503.02531", "Choi et al. (1904.03814)", "Warden 2018, arXiv:1804.03209": who, and the number.
_CITED = re.compile(
    rf"(?:(?P<who>[A-Z][\w.-]*(?:(?:, | & | and )[A-Z][\w-]*| et al\.)*)(?:,? \(?\d{{4}}\)?)?(?:, | \()(?:arXiv:)?)?"
    rf"(?<![\d.])(?P<number>{_ARXIV})"
)


@dataclass(frozen=True)
class Paper:
    """A paper on arXiv, and its authors as the docstring names them; empty where it does not."""

    number: str
    who: str

    @property
    def url(self) -> str:
        """Where it lies."""
        return f"https://arxiv.org/abs/{self.number}"


@dataclass(frozen=True)
class Method:
    """What a module says of itself; a sentence is empty where its docstring does not say it."""

    module: str
    title: Sentence
    about: Sentence  # the first paragraph after the title that is plain text
    steps: tuple[Sentence, ...]
    mechanism: Sentence
    limits: Sentence
    risk: Sentence
    papers: tuple[Paper, ...]


@cache
def method(module: str) -> Method:
    """What ``module``, such as ``optim.prune``, says of itself; all of it empty where there is no such module."""
    text = docstring(module)
    title, *paragraphs = re.split(r"\n\s*\n", text)
    plain = [part for part in paragraphs if not re.match(r"\d+\. |- |[A-Z]\w+: ", part)]
    told = dict.fromkeys(("Mechanism", "Limits", "Risk"), "")
    for part in paragraphs:
        if part.startswith("Mechanism: "):
            _, *words = re.split(r"\b(Mechanism|Limits|Risk): ", part)
            told |= dict(zip(words[::2], words[1::2], strict=True))
    return Method(
        module,
        marked(title),
        marked(plain[0]) if plain else (),
        tuple(marked(step) for step in _steps(text)),
        marked(told["Mechanism"]),
        marked(told["Limits"]),
        marked(told["Risk"]),
        papers([text]),
    )


def docstring(module: str) -> str:
    """A module's docstring without its indentation; empty where there is no such module, or no docstring."""
    place = _HOME.joinpath(*module.split("."))
    for file in (place / "__init__.py", place.with_suffix(".py")):
        if file.is_file():
            return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return ""


def _steps(text: str) -> list[str]:
    """The numbered paragraphs, each with the indented lines that go on with it."""
    return re.findall(r"^\d+\. (.*(?:\n +\S.*)*)", text, re.MULTILINE)


def papers(texts: Iterable[str]) -> tuple[Paper, ...]:
    """The papers that some texts cite, once each, in their order."""
    found: dict[str, Paper] = {}
    for text in texts:
        for match in _CITED.finditer(" ".join(text.split())):
            number, who = match["number"], match["who"] or ""
            if number not in found or (who and not found[number].who):
                found[number] = Paper(number, who)
    return tuple(found.values())


def marked(text: str) -> Sentence:
    """A docstring's text as a sentence: names in backticks are code, numbers of arXiv are links."""
    text = " ".join(text.split())
    spans: list[Span] = []
    at = 0
    for match in _MARKED.finditer(text):
        spans += [text[at : match.start()]] if match.start() > at else []
        if match["arxiv"]:
            spans.append(Cite(f"arXiv {match['arxiv']}", Paper(match["arxiv"], "").url))
        else:
            spans.append(Code(match["literal"] or match["name"]))
        at = match.end()
    return (*spans, text[at:]) if at < len(text) else tuple(spans)

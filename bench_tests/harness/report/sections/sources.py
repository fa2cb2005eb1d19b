"""What a report rests on: papers, manuals, data sets and libraries, only those that its material has to do with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench_tests.harness.report.document import Block, Cell, Cite, Column, Items, Row, Section, Sentence, Table, say
from bench_tests.harness.report.material import Material
from bench_tests.harness.report.phrases import listed
from bench_tests.harness.report.sections.hyperparameters import commanded, followed
from bench_tests.harness.report.sections.methods import Paper, docstring, papers


@dataclass(frozen=True)
class Reference:
    """A paper or a page, as a list of references prints it."""

    who: str
    title: str
    where: str  # and when
    url: str

    def sentence(self) -> Sentence:
        """In one line, with its link."""
        link = Cite(self.title, self.url)
        return say("{who}: {title}. {where}.", who=self.who, title=link, where=self.where)


# The papers that docstrings name by their arXiv number.
ARXIV: Mapping[str, tuple[str, str, str]] = {
    "1211.5063": ("Pascanu, Mikolov & Bengio", "On the difficulty of training recurrent neural networks", "ICML 2013"),
    "1308.3432": ("Bengio, Léonard & Courville", "Estimating or Propagating Gradients Through Stochastic Neurons for "
                  "Conditional Computation", "2013"),
    "1409.0473": ("Bahdanau, Cho & Bengio", "Neural Machine Translation by Jointly Learning to Align and Translate",
                  "ICLR 2015"),
    "1412.6550": ("Romero, Ballas, Kahou, Chassang, Gatta & Bengio", "FitNets: Hints for Thin Deep Nets", "ICLR 2015"),
    "1503.02531": ("Hinton, Vinyals & Dean", "Distilling the Knowledge in a Neural Network", "2015"),
    "1511.00363": ("Courbariaux, Bengio & David", "BinaryConnect: Training Deep Neural Networks with binary weights "
                   "during propagations", "NIPS 2015"),
    "1512.03385": ("He, Zhang, Ren & Sun", "Deep Residual Learning for Image Recognition", "CVPR 2016"),
    "1603.05279": ("Rastegari, Ordonez, Redmon & Farhadi", "XNOR-Net: ImageNet Classification Using Binary "
                   "Convolutional Neural Networks", "ECCV 2016"),
    "1605.04711": ("Li, Zhang & Liu", "Ternary Weight Networks", "2016"),
    "1608.03983": ("Loshchilov & Hutter", "SGDR: Stochastic Gradient Descent with Warm Restarts", "ICLR 2017"),
    "1612.03928": ("Zagoruyko & Komodakis", "Paying More Attention to Attention: Improving the Performance of "
                   "Convolutional Neural Networks via Attention Transfer", "ICLR 2017"),
    "1703.05390": ("Arik et al.", "Convolutional Recurrent Neural Networks for Small-Footprint Keyword Spotting",
                   "Interspeech 2017"),
    "1710.01878": ("Zhu & Gupta", "To prune, or not to prune: exploring the efficacy of pruning for model compression",
                   "2017"),
    "1712.05877": ("Jacob et al.", "Quantization and Training of Neural Networks for Efficient "
                   "Integer-Arithmetic-Only Inference", "CVPR 2018"),
    "1804.03209": ("Warden", "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition", "2018"),
    "1904.03814": ("Choi et al.", "Temporal Convolution for Real-time Keyword Spotting on Mobile Devices",
                   "Interspeech 2019"),
    "1905.11946": ("Tan & Le", "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", "ICML 2019"),
    "2104.00298": ("Tan & Le", "EfficientNetV2: Smaller Models and Faster Training", "ICML 2021"),
    "2104.08378": ("Mishra et al.", "Accelerating Sparse Deep Neural Networks", "2021"),
    "2106.05237": ("Beyer, Zhai, Royer, Markeeva, Anil & Kolesnikov", "Knowledge distillation: A good teacher is "
                   "patient and consistent", "CVPR 2022"),
    "2301.12900": ("Fang, Ma, Song, Mi & Wang", "DepGraph: Towards Any Structural Pruning", "CVPR 2023"),
}  # fmt: skip

_ROOFLINE = Reference(
    "Williams, Waterman & Patterson",
    "Roofline: An Insightful Visual Performance Model for Multicore Architectures",
    "Communications of the ACM 52(4), 2009",
    "https://doi.org/10.1145/1498765.1498785",
)
_PAIRED = (
    Reference("Hodges & Lehmann", "Estimates of Location Based on Rank Tests", "Annals of Mathematical Statistics "
              "34(2), 1963", "https://doi.org/10.1214/aoms/1177704172"),
    Reference("Hollander & Wolfe", "Nonparametric Statistical Methods", "Wiley, section 3.3 (the interval of the "
              "signed-rank test)", "https://doi.org/10.1002/9781119196037"),
)  # fmt: skip
_PROPORTIONS = (
    Reference("Wilson", "Probable Inference, the Law of Succession, and Statistical Inference", "Journal of the "
              "American Statistical Association 22, 1927", "https://doi.org/10.1080/01621459.1927.10502953"),
    Reference("Agresti & Min", "Simple Improved Confidence Intervals for Comparing Matched Proportions",
              "Statistics in Medicine 24, 2005", "https://doi.org/10.1002/sim.1781"),
)  # fmt: skip
_RANKING = (
    Reference("DeLong, DeLong & Clarke-Pearson", "Comparing the Areas under Two or More Correlated Receiver Operating "
              "Characteristic Curves", "Biometrics 44, 1988", "https://doi.org/10.2307/2531595"),
    Reference("Field & Welsh", "Bootstrapping clustered data", "Journal of the Royal Statistical Society B 69, 2007",
              "https://doi.org/10.1111/j.1467-9868.2007.00593.x"),
    Reference("Efron", "Better Bootstrap Confidence Intervals", "Journal of the American Statistical Association 82, "
              "1987", "https://doi.org/10.1080/01621459.1987.10478410"),
)  # fmt: skip
_SAINATH = Reference(
    "Sainath & Parada",
    "Convolutional neural networks for small-footprint keyword spotting",
    "Interspeech 2015",
    "https://www.isca-archive.org/interspeech_2015/sainath15b_interspeech.html",
)
_DATA = {
    "imagenette": Reference("Howard, fast.ai", "Imagenette", "Ten classes of ImageNet",
                            "https://github.com/fastai/imagenette"),
    "digits": Reference("scikit-learn", "The digits data set", "1,797 images of 8 x 8 pixels",
                        "https://scikit-learn.org/stable/modules/generated/sklearn.datasets.load_digits.html"),
    "z80ai": Reference("HarryR", "z80ai, examples/tinychat", "Queries and answers, and the network's layout",
                       "https://github.com/HarryR/z80ai"),
}  # fmt: skip

# The modules whose docstrings name the papers of a workload, by how its name begins.
_MODELS = {
    "resnet": ("models.resnet",), "efficientnet": ("models.efficientnet",), "kws": ("models.crnn",),
    "tinychat": ("models.bits",),
}  # fmt: skip

# Name in the versions of a run, what it is called and is used for, where it is documented, when it was used.
_LIBRARIES = (
    ("torch", "PyTorch", "the models, the reference, training", "https://pytorch.org/docs/stable/"),
    ("onnxruntime", "ONNX Runtime", "backend onnxruntime", "https://onnxruntime.ai/docs/"),
    ("onnxruntime-gpu", "ONNX Runtime, CUDA", "backend onnxruntime", "https://onnxruntime.ai/docs/"),
    ("openvino", "OpenVINO", "backend openvino", "https://docs.openvino.ai/"),
    ("torch-tensorrt", "Torch-TensorRT", "backend tensorrt", "https://docs.pytorch.org/TensorRT/"),
    ("torchao", "torchao", "quantization (PT2E)", "https://docs.pytorch.org/ao/stable/"),
    ("torch-pruning", "Torch-Pruning", "structured pruning", "https://github.com/VainF/Torch-Pruning"),
    ("simavr", "simavr", "the simulated chip", "https://github.com/buserror/simavr"),
    ("pytest-benchmark", "pytest-benchmark", "drives and stores the runs", "https://pytest-benchmark.readthedocs.io/"),
)  # fmt: skip


def sources(material: Material) -> Section:
    """Methods, models, data, statistics and software, as far as this report has to do with them."""
    methods = [_paper(paper) for paper in papers(map(docstring, sorted(_methods(material))))]
    models = [sentence for sentence in _models(material) if sentence not in methods]
    lists: list[tuple[str, str, Iterable[Sentence]]] = [
        ("methods", "Methods", methods),
        ("models", "Models and data", models),
        ("measuring", "Measuring", [reference.sentence() for reference in _measured_by(material)]),
    ]
    parts = [
        Section(f"sources-{slug}", title, (Items(items),))
        for slug, title, found in lists
        if (items := tuple(found))
    ]  # fmt: skip
    software = _software(material)
    if software:
        parts.append(Section("sources-software", "Software", software))
    return Section("sources", "Sources", (), tuple(parts))


def _paper(paper: Paper) -> Sentence:
    """A paper by its number, in full where it is known here."""
    if paper.number in ARXIV:
        who, title, where = ARXIV[paper.number]
        return Reference(who, title, f"{where}, arXiv {paper.number}", paper.url).sentence()
    return Reference(paper.who or "arXiv", f"arXiv {paper.number}", "", paper.url).sentence()


def _methods(material: Material) -> set[str]:
    """The modules whose papers the methods of this report are from."""
    modules = {module for recipe in followed(material) for module in recipe.modules}
    modules |= {module for training in material.trainings for module in commanded(training)}
    return modules | ({"optim.train"} if material.trainings else set())


def _models(material: Material) -> Iterable[Sentence]:
    workloads = dict.fromkeys(group.workload for group in material.groups)
    modules = [
        module for name in workloads for start, own in _MODELS.items() if name.startswith(start) for module in own
    ]
    students = {name for recipe in followed(material) for name in (recipe.student, recipe.name)} | set(workloads)
    convolutional = any("cnn" in name for name in students)
    modules += ["models.resnet"] if any(name.startswith("resnet") for name in students) else []
    modules += ["models.cnn"] if convolutional else []
    speech = any(group.data.startswith("speech") for group in material.groups)
    modules += ["models.data.speech"] if speech else []
    if not any("optim.bits" in recipe.modules for recipe in followed(material)):
        modules = [module for module in modules if module != "models.bits"]
    yield from (_paper(paper) for paper in papers(docstring(module) for module in dict.fromkeys(modules)))
    if convolutional:
        yield _SAINATH.sentence()
    for start, reference in _DATA.items():
        if any(group.data.startswith(start) for group in material.groups):
            yield reference.sentence()


def _measured_by(material: Material) -> Iterable[Reference]:
    groups = material.groups
    qualities = {entry.quality_name for group in groups for entry in group.entries} - {""}
    if any(not group.in_cycles for group in groups):
        yield from _PAIRED
    if qualities - {"roc_auc"}:
        yield from _PROPORTIONS
    if "roc_auc" in qualities:
        yield from _RANKING
    if any(not group.in_cycles for group in groups) or material.profiles:
        yield _ROOFLINE


def _software(material: Material) -> tuple[Block, ...]:
    used = {entry.variant.backend for group in material.groups for entry in group.entries}
    modules = _methods(material)
    needed = {
        "torch", "pytest-benchmark", *(used & {"onnxruntime", "openvino"}),
        *({"torch-tensorrt"} if "tensorrt" in used else ()), *({"simavr"} if used & {"avr", "avr_plain"} else ()),
        *({"torchao"} if "optim.quantize" in modules else ()),
        *({"torch-pruning"} if "optim.prune" in modules else ()),
    }  # fmt: skip
    columns = (
        Column("library", "library", numeric=False), Column("version", "version", numeric=False),
        Column("used_for", "used for", numeric=False), Column("address", "documented at", numeric=False),
    )  # fmt: skip
    rows = []
    for name, label, purpose, address in _LIBRARIES:
        versions = list(dict.fromkeys(run.versions[name] for run in material.runs if name in run.versions))
        if (name in needed or (versions and name == "onnxruntime-gpu" and "onnxruntime" in used)) and material.runs:
            version = listed(versions, 0) or "not recorded"
            rows.append(Row(tuple(Cell(text, text) for text in (label, version, purpose, address))))
    return (Table("software", "Libraries, with the versions of these runs", columns, tuple(rows)),) if rows else ()

"""What the documentation says is so: links lead somewhere, settings and functions are there, configs are valid."""

import ast
import itertools
import re
from contextlib import nullcontext
from pathlib import Path
from typing import get_args

import pytest
import snakemake
import yaml
from documents import ROOT, anchors, blocks, commands, links, pages, spans, tables, text_of
from project import Project, tiny_config
from pydantic import ValidationError

from selftrain import registry
from selftrain.settings import alarms, calibration, curriculum, hybrid, mixing, model, prediction, selection, training
from selftrain.settings.base import Settings, deep_merge
from selftrain.settings.config import Config
from selftrain.settings.experiments import ExperimentSettings, RoundSettings

CODE = ROOT / "src/selftrain"


PAGE = """# A page: `code` and [a link](other.md)

See [there](#a-page-code-and-a-link), [nowhere](#nowhere), [no file](none.md#top) and `[no](link.md)`.

    selftrain check my.yaml     # four blanks
    results/logs/               what it leaves

```yaml my.yaml
# no heading
seeds: [0]
```

```console
$ selftrain check \\
    my.yaml
error: no
$ make clean
```

| `policy: st` | default | |
|---|---|---|
| `one`, `two` | 1 | see [none](none.md) |
"""


def test_a_page_is_read_as_it_is_shown(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert [(one.language, one.file, one.is_shell) for one in blocks(str(page))] == [
        ("", "", True),
        ("yaml", "my.yaml", False),
        ("console", "", True),
    ]
    typed = [command for block in blocks(str(page)) if block.is_shell for command in commands(block)]
    assert [(command.text, command.output) for command in typed] == [
        ("selftrain check my.yaml", None),
        ("selftrain check     my.yaml", "error: no\n"),
        ("make clean", ""),
    ]
    assert anchors(str(page)) == {"a-page-code-and-a-link"}
    assert [link for link in links(str(page)) if not leads_somewhere(str(page), link)] == [
        "other.md",
        "#nowhere",
        "none.md#top",
        "none.md",
    ]
    (table,) = tables(str(page))
    assert table.header == ("`policy: st`", "default", "") and spans(table.rows[0][0]) == ["one", "two"]


def leads_somewhere(page: str, target: str) -> bool:
    """Whether a link, as a page has it, is to a file that is there, and a heading in it."""
    file, _, anchor = target.partition("#")
    path = (ROOT / page).parent / file if file else ROOT / page
    return path.exists() and (not anchor or anchor in anchors(str(path)))


@pytest.mark.parametrize("page", [*pages(), "CHANGELOG.md"])
def test_every_link_leads_somewhere(page):
    here = [target for target in links(page) if not target.startswith(("http:", "https:"))]
    assert [target for target in here if not leads_somewhere(page, target)] == []


def test_every_page_can_be_reached_from_the_readme():
    reached, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        files = [target.partition("#")[0] for target in links(page)]
        paths = [((ROOT / page).parent / file).resolve() for file in files if file.endswith(".md")]
        waiting += [str(path.relative_to(ROOT)) for path in paths]
    assert set(pages()) <= reached


def test_pages_that_code_and_configs_name_are_there():
    places = [ROOT / name for name in ("Makefile", "Snakefile", "config.yaml", "pyproject.toml")]
    for folder in ("src", "workflow", "configs", "tests", "benchmarks", "envs", ".ci"):
        places += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml", ".smk", ".rst", "")]
    for path in places:
        if path.is_file() and path != Path(__file__) and path.parent.suffix != ".egg-info":
            for page in re.findall(r"\bdocs/[\w/-]+\.md", path.read_text("utf-8", errors="ignore")):
                assert (ROOT / page).is_file(), f"{path}: {page}"


# What can be set.

SETTINGS: dict[str, tuple[type[Settings], type[Settings]]] = {
    "`policy`": (selection.PolicySettings, Settings),
    "`policy: st`": (selection.StSettings, selection.PolicySettings),
    "`policy: cbst`": (selection.CbstSettings, selection.PolicySettings),
    "`algorithm: self_training`": (training.SelfTrainingSettings, Settings),
    "`algorithm: weak_labels`": (training.WeakLabelSettings, training.PseudoLabeledSettings),
    "`algorithm: mean_teacher_mixing`": (mixing.MeanTeacherMixingSettings, Settings),
    "`algorithm: hybrid`": (hybrid.HybridSettings, Settings),
    "`algorithm.rare_classes`": (hybrid.RareClassSettings, Settings),
    "`algorithm.strong`": (mixing.StrongAugmentationSettings, Settings),
    "`algorithm.alignment`": (mixing.AlignmentSettings, Settings),
    "`algorithm: curriculum`": (curriculum.CurriculumSettings, Settings),
    "`train.teacher`": (training.TeacherSettings, Settings),
    "`train.class_weights: small_and_frequent`": (training.ClassWeightRuleSettings, Settings),
    "`prediction.patches`": (prediction.PatchSettings, Settings),
    "`prediction.spatial_prior`": (prediction.SpatialPriorSettings, Settings),
    "`prediction.calibration: matrix`": (calibration.MatrixSettings, Settings),
    "`prediction.calibration: histogram_binning`": (calibration.HistogramBinningSettings, Settings),
    "`alarms`": (alarms.AlarmSettings, Settings),
    "`experiments.NAME`": (ExperimentSettings, Settings),
    "`experiments.NAME.rounds`": (RoundSettings, Settings),
    "`model`": (model.ModelSettings, Settings),
    "`model.decoder: light`": (model.LightSettings, Settings),
    "`model.decoder: aspp`": (model.AsppSettings, Settings),
    "`model.decoder: pyramid_pooling`": (model.PyramidPoolingSettings, Settings),
    "`model.decoder: convolutions`": (model.ConvolutionsSettings, Settings),
    "`model.auxiliary`": (model.AuxiliarySettings, Settings),
}
"""By the head of their table: the settings that it has, and those that it leaves to another table."""
TOLD_IN_WORDS = {"the first", "the top-level one", "the experiment's", "see below"}
"""Defaults that come from another place in the config, or fill a table of their own."""


def setting_tables():
    by_hand = [page for page in pages() if page != "docs/settings.md"]
    return [table for page in by_hand for table in tables(page) if table.header[1:2] == ("default",)]


def as_written(default) -> str:
    """A default as a config would have it."""
    if isinstance(default, Settings):
        values = default.model_dump()
        inside = ", ".join(f"{key}: {as_written(value)}" for key, value in values.items())
        return values.get("name", f"{{{inside}}}")
    if isinstance(default, tuple):
        return f"[{', '.join(map(as_written, default))}]"
    if isinstance(default, dict):
        return "{}"
    if default is None or isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


@pytest.mark.parametrize("table", setting_tables(), ids=lambda table: f"{table.page}-{table.header[0]}")
def test_a_table_of_settings_has_each_with_its_default(table):
    kind, elsewhere = SETTINGS[table.header[0]]
    fields = {name: field for name, field in kind.model_fields.items() if name not in {"name", *elsewhere.model_fields}}
    told = {name: row[1] for row in table.rows for name in spans(row[0])}
    assert sorted(told) == sorted(fields), table.header[0]
    for name, field in fields.items():
        right = "–" if field.is_required() else as_written(field.get_default(call_default_factory=True))
        assert told[name] == right or told[name] in TOLD_IN_WORDS, (
            f"{table.header[0]}.{name}: {told[name]}, not {right}"
        )


def test_every_table_of_settings_is_there_once():
    assert sorted(table.header[0] for table in setting_tables()) == sorted(SETTINGS)


CHOICES = {
    "`algorithm.mixing`": (mixing.AnyMixing, Settings),
    "`algorithm.weight`": (mixing.AnyWeight, mixing.WeightSettings),
}
"""By the head of their table: what may be chosen, and the settings that all have. A row's last cell has its own."""


@pytest.mark.parametrize("head", CHOICES)
def test_a_table_of_choices_has_each_with_its_settings(head):
    (rows,) = [table.rows for page in pages() for table in tables(page) if table.header[0] == head]
    union, shared = CHOICES[head]
    kinds = {kind.model_fields["name"].default: kind for kind in get_args(get_args(union)[0])}
    assert [spans(row[0])[0] for row in rows] == list(kinds)
    for row, kind in zip(rows, kinds.values(), strict=True):
        own = {name: field for name, field in kind.model_fields.items() if name not in {"name", *shared.model_fields}}
        told = dict(re.findall(r"`(\w+)` (\[[^]]*\]|[\w.]+)", row[-1]))
        assert {name: told.get(name) for name in own} == {name: as_written(one.default) for name, one in own.items()}


def test_every_method_is_in_the_index():
    index = text_of("docs/methods/README.md")
    for key, known in (("policy", registry.POLICIES), ("algorithm", registry.ALGORITHMS)):
        for name in known:
            assert f"`{key}: {name}`" in index, name
    for name in registry.CALIBRATORS:
        assert name in index
    for path in (ROOT / "docs/methods").glob("*.md"):
        assert path.name == "README.md" or f"({path.name}" in index, path


# Equation to code.


def defined(module: Path) -> set[str]:
    """Functions, classes and methods of a module."""
    names: set[str] = set()
    for node in ast.parse(module.read_text()).body:
        names.add(getattr(node, "name", ""))
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)}
    return names


@pytest.mark.parametrize("page", pages())
def test_functions_that_a_page_names_are_there(page):
    for module, name in re.findall(r"`([\w/]+\.py): ([\w.]+)`", text_of(page)):
        assert name in defined(CODE / module), f"{page}: {module}: {name}"


def test_each_method_says_which_equation_is_which_function():
    for path in (ROOT / "docs/methods").glob("*.md"):
        if path.name != "README.md":
            assert re.search(r"`[\w/]+\.py: [\w.]+`", path.read_text()), path


# Configs.

EVERYTHING = {
    "tasks": {
        "harbor": {
            "classes": ["water", "quay", "ship", "crane"],
            "labeled": {"images": "simulator/images/*", "labels": "simulator/labels/*"},
            "unlabeled": {"images": "harbor/**/*"},
            "calibration": {"images": "held-out/images/*", "labels": "held-out/labels/*"},
            "evaluation": {"harbor": {"images": "checked/images/*", "labels": "checked/labels/*"}},
        }
    },
    "pretrain": {"supervised": {}},
}
"""What the part of a config that a page shows is a part of."""


WRONG = "wrong-"
"""How the name of a config begins that is there to be refused."""


EXTENDING = "docs/extend.md"
"""Its configs name what its examples add; test_docs_extend.py has them."""


def configs():
    shown = [page for page in pages() if page != EXTENDING]
    return [block for page in shown for block in blocks(page) if block.language == "yaml"]


@pytest.mark.parametrize("block", configs(), ids=lambda block: block.place)
def test_a_config_is_valid(block):
    told = yaml.safe_load(block.text)
    told.pop("include", None)
    with pytest.raises(ValidationError) if block.file.startswith(WRONG) else nullcontext():
        Config.model_validate(deep_merge(EVERYTHING, told))


def graph_config():
    """All rules, and in two rounds what the first one's models ask for."""
    config = tiny_config()
    config["experiments"]["cbst"]["rounds"] *= 2
    config["experiments"]["hybrid"]["prediction"] = {"calibration": "temperature"}
    config["tasks"]["tiny"]["review"] = "review.csv"
    return config


def test_the_picture_of_the_flow_is_the_graph_of_rules(tmp_path):
    """Every edge is real, and what follows from what is the same; which rules draw, check and all name, too."""
    project = Project(tmp_path / "project", graph_config())
    (project.folder / "review.csv").write_text("image,exclude\n")
    code, told = project.forked("--rulegraph")
    assert code == 0, told
    names = dict(re.findall(r'(\d+)\[label = "(\w+)"', told))
    real = {(names[one], names[other]) for one, other in re.findall(r"(\d+) -> (\d+)", told)}
    real = {edge for edge in real if "all" not in edge and edge[0] != edge[1]}
    (picture,) = [block.text for block in blocks("docs/flow.md") if block.language == "mermaid"]
    drawn = set(edges(picture))
    assert drawn <= real
    assert following(drawn) == following(real)


def edges(picture):
    """Of a flowchart in Mermaid: `a & b --> c --> d` is three."""
    for line in picture.splitlines()[1:]:
        parts = [part.strip().split(" & ") for part in re.split(r"-->|-\.->", line)]
        for ones, others in itertools.pairwise(parts):
            yield from itertools.product(ones, others)


def following(graph):
    """Every pair of rules of which the second comes after the first, directly or not."""
    whole = set(graph)
    while True:
        more = {(one, other) for one, middle in whole for again, other in whole if middle == again}
        if more <= whole:
            return whole
        whole |= more


# Messages.


def code_texts():
    """All text in the code, joined; what is put into it at run time stands as …"""
    texts = []
    for path in CODE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [one.value if isinstance(one, ast.Constant) else "…" for one in node.values]
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def messages(head):
    return [spans(row[0])[0] for table in tables("docs/trouble.md") if table.header[0] == head for row in table.rows]


def test_messages_that_the_page_of_trouble_quotes_are_in_the_code():
    texts = code_texts()
    for message in messages("message"):
        wanted = re.compile(".*".join(map(re.escape, message.split("…"))), re.DOTALL)
        assert len(message) > 12 and any(wanted.search(text) for text in texts), message


def test_what_snakemake_is_quoted_with_is_in_snakemake():
    source = "".join(path.read_text() for path in Path(snakemake.__file__).parent.glob("**/*.py"))
    for message in messages("Snakemake says"):
        assert message in source, message

"""Code as an input: what a stage's digest covers."""

import json

import pytest

from selftrain import code_digest, registry
from selftrain.code_digest import CodeDigests, Sources
from selftrain.flow import Model
from selftrain.graph import Graph
from selftrain.settings.config_file import parse

SOURCES = Sources()
closure = SOURCES.closure


def test_a_stage_reaches_what_it_imports_and_no_settings():
    reached = closure("selftrain.train.stage")
    assert {"selftrain.train.losses", "selftrain.data.batches", "selftrain.models.encoders"} <= reached
    assert not any(module.startswith(("selftrain.settings", "selftrain.registry")) for module in reached)


@pytest.mark.parametrize(
    "entries",
    [registry.ENCODERS, registry.DECODERS, registry.ALGORITHMS, registry.CALIBRATORS, registry.POLICIES],
)
def test_no_stage_reaches_a_method_that_was_not_chosen(entries):
    stages = [f"selftrain.{stage}.stage" for stage in ("train", "calibrate", "predict", "select", "label", "evaluate")]
    stages += ["selftrain.calibrate.reliability", "selftrain.label.choice", "selftrain.label.merge"]
    methods = {registry.module_of(path) for path in entries.values()}
    assert not methods & closure(*stages)
    for path in entries.values():
        assert registry.load_object(path)


def test_a_stage_reaches_no_more_than_it_uses():
    """Not what the package offers to its users, nor its version."""
    assert closure("selftrain.data.streets") & {"selftrain", "selftrain.label.pseudo_labels"} == set()
    assert "selftrain.label.pseudo_labels" not in closure("selftrain.predict.stage", "selftrain.select.stage")


def test_sizes_at_which_images_are_worked_on_are_code_of_who_reads_them():
    for stage in ("train", "predict", "label", "evaluate"):
        assert "selftrain.data.sizes" in closure(f"selftrain.{stage}.stage"), stage


@pytest.mark.parametrize("text", ["# A comment.", '"""A docstring."""', 'A = 1\n"""Of an attribute."""'])
def test_what_is_said_of_code_is_none(text):
    plain = code_digest._parsed(text.partition("\n")[0].encode() if "A =" in text else b"")
    assert code_digest._parsed(text.encode()) == plain
    inner = "class B:\n    a: int = 1\n{}    def c(self):\n{}        return 'text'\n"
    said = inner.format('    """Of a."""\n', '        """Of c."""\n')
    assert code_digest._parsed(said.encode()) == code_digest._parsed(inner.format("", "").encode())
    assert code_digest._parsed(said.encode()) != code_digest._parsed(said.replace("'text'", "'other'").encode())


def test_selecting_and_labeling_reach_no_torch_code():
    reached = closure("selftrain.select.stage", "selftrain.label.stage", "selftrain.label.merge")
    assert not any(module.startswith(("selftrain.models", "selftrain.train")) for module in reached)


def test_heads_are_code_of_their_algorithm_alone():
    assert "selftrain.models.heads" not in closure("selftrain.train.stage", "selftrain.predict.stage")
    assert "selftrain.models.heads" in closure(registry.module_of(registry.ALGORITHMS["weak_labels"]))


def test_digests_differ_by_what_is_chosen():
    digests = {
        SOURCES.digest("selftrain.select.stage", registry.module_of(path)) for path in registry.POLICIES.values()
    }
    assert len(digests) == len(registry.POLICIES)


def test_an_encoder_of_ours_is_code_of_the_jobs_that_run_it(folder_task):
    codes = {}
    for encoder in ("resnet18", "resnet34", "resnet38"):
        folder_task["pretrain"]["base"]["model"] = {"encoder": encoder}
        graph = Graph(parse(folder_task))
        first, last = Model("tiny", "base", 0, 0), Model("tiny", "dars", 0, 1)
        codes[encoder] = [
            graph.train_code(first),
            graph.predict_code(first, "single"),
            graph.choose_code(last),
            graph.evaluate_code(last),
        ]
    assert codes["resnet18"] == codes["resnet34"]  # timm's are no code of ours
    assert not set(codes["resnet18"]) & set(codes["resnet38"])


def test_a_network_of_ones_own_is_all_code_of_its_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "mynet_of_test/parts"
    folder.mkdir(parents=True)
    for file in (folder / "__init__.py", folder.parent / "__init__.py", folder.parent / "blocks.py"):
        file.write_text("")
    (folder / "net.py").write_text("from mynet_of_test.blocks import *\n")
    (tmp_path / "alone_of_test.py").write_text("")

    def of(own):
        return CodeDigests(tmp_path / "code.json", frozen=False).of(OTHER, own=own)

    names = ["mynet_of_test.parts.net:build", "mynet_of_test:build", "alone_of_test:build", "h5py:File"]
    before = [of(name) for name in names]
    (folder.parent / "blocks.py").write_text("more = 1\n")
    assert [of(name) == one for name, one in zip(names, before, strict=True)] == [False, False, True, True]
    (tmp_path / "alone_of_test.py").write_text("more = 1\n")
    assert of(names[2]) != before[2]


STAGE, OTHER = "selftrain.select.stage", "selftrain.select.dars"


@pytest.fixture
def kept(tmp_path):
    """What a run keeps, and the digests of its two modules."""
    run = CodeDigests(tmp_path / "code.json", frozen=False)
    digests = run.of(STAGE), run.of(OTHER)
    run.remember()
    return tmp_path / "modules.json", digests


def found(file):
    sources = Sources(file)
    return sources.digest(STAGE), sources.digest(OTHER)


@pytest.fixture
def parsed(monkeypatch):
    """The sources that are parsed from here on."""
    seen, parse_ = [], code_digest._parsed
    monkeypatch.setattr(code_digest, "_parsed", lambda source: seen.append(source) or parse_(source))
    return seen


def test_what_one_run_parsed_the_next_does_not(kept, parsed):
    file, digests = kept
    assert found(file) == digests and not parsed
    assert found(None) == digests and len(parsed) > 2


def test_what_has_changed_is_parsed_again_alone(kept, parsed, tmp_path, monkeypatch):
    file, digests = kept
    changed, file_of = tmp_path / "dars.py", code_digest._file
    changed.write_text("# A comment.\n" + file_of(OTHER).read_text())
    monkeypatch.setattr(code_digest, "_file", lambda module: changed if module == OTHER else file_of(module))
    assert found(file) == digests and parsed == [changed.read_bytes()]
    changed.write_text(changed.read_text() + "\nmore = 1\n")
    assert found(file)[0] == digests[0] and found(file)[1] != digests[1]
    sources = Sources(file)
    sources.digest(OTHER)
    sources.keep()
    parsed.clear()
    assert found(file)[0] == digests[0] and not parsed


def test_what_another_python_or_other_code_found_is_not_used(kept, parsed):
    file, digests = kept
    ((_, modules),) = json.loads(file.read_text()).items()
    others = {name: [source, "other", []] for name, (source, *_) in modules.items()}
    file.write_text(json.dumps({"another": others}))
    assert found(file) == digests and parsed


@pytest.mark.parametrize("content", [None, "", "[1", "[]", '{"a": 1}', '{"a": {"b": ["c"]}}', b"\xff\0"])
def test_a_file_that_cannot_be_read_or_written_does_not_matter(kept, content):
    file, digests = kept
    file.unlink()
    if content is None:
        file.mkdir()  # neither
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    run = CodeDigests(file.with_name("code.json"), frozen=False)
    assert (run.of(STAGE), run.of(OTHER)) == digests
    run.remember()
    assert file.is_dir() or found(file) == digests

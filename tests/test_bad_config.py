"""Bad configs, a row a case: the command line says what is wrong, where, what would be right, and writes nothing."""

from typing import Any

import pytest
from refusals import changed, unprivileged, written

# A change is a mapping of paths such as `tasks.tiny.classes` to values, or the text of the file.

CONFIGS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "an empty file": ("", ("config.yaml: should be a mapping of keys",)),
    "no mapping": ("- a\n", ("config.yaml: should be a mapping of keys, not ['a']",)),
    "no YAML": ("a: [1\nb: 2", ("config.yaml: not readable as YAML", "line 2")),
    "no UTF-8": (b"\xff\xfe\x00", ("config.yaml: not readable as YAML",)),
    "two documents": ("a: 1\n---\nb: 2\n", ("not readable as YAML", "another document")),
    "nested without end": ("[" * 2000, ("config.yaml: not readable as YAML",)),
    "no such date": ("seeds: 2021-13-45", ("config.yaml: not readable as YAML", "month")),
    "a number too long": ("seeds: " + "9" * 5000, ("config.yaml: not readable as YAML",)),
    "no such truth value": ("seeds: !!bool x", ("config.yaml: not readable as YAML: 'x' is no bool", "line 1")),
    "no time": ("shards: 1\nseeds: !!timestamp x", ("not readable as YAML: 'x' is no timestamp", "line 2")),
    "an empty number": ("seeds: !!int ''", ("config.yaml: not readable as YAML: '' is no int", "line 1")),
    "a null character in an include": (
        'include: ["a\\0b"]',
        ("not readable as YAML: a null character", "line 1"),
    ),
    "a null character": ('data_root: "a\\0b"', ("config.yaml: not readable as YAML: a null character", "line 1")),
    "code": ("seeds: !!python/object/apply:os.system ['touch code-ran']\n", ("not readable as YAML", "python/object")),
    "two experiments of one name": ("experiments:\n  a: {}\n  a: {}\n", ("the key 'a' is there twice", "line 2")),
    "a file to include that is not there": (
        {"include": ["no.yaml"]},
        ("config.yaml: include: ", "no such config file"),
    ),
    "a file that includes itself": ({"include": ["config.yaml"]}, ("includes this file; take one of the two out",)),
    "an unknown key": ({"shrads": 3}, ("shrads: unknown key 'shrads'; did you mean 'shards'?",)),
    "an unknown key deep inside": ({"pretrain.base.train.stpes": 1}, ("pretrain.base.train.stpes: ", "'steps'")),
    "text for a number": ({"batch_size": "many"}, ("batch_size: should be a whole number, not 'many'",)),
    "a number for a list": ({"seeds": 3}, ("seeds: should be a list, not 3",)),
    "a list for a mapping": ({"model": [1]}, ("model: should be a mapping of keys",)),
    "nothing": ({"data_root": None}, ("data_root: should be text, not empty",)),
    "no number": ({"train.steps": float("nan")}, ("train.steps: should be a finite number",)),
    "a portion above 1": ({"experiments.dars.rounds.0.portion": 1.5}, ("rounds[0].portion: ", "equal to 1, not 1.5")),
    "a portion below 0": ({"experiments.dars.rounds.1.portion": -0.1}, ("rounds[1].portion: ", "equal to 0, not -0.1")),
    "a round without a portion": ({"experiments.dars.rounds.0": {}}, ("rounds[0].portion: is missing", "from 0 to 1")),
    "no rounds": ({"experiments.dars.rounds": []}, ("experiments.dars.rounds: has too few entries",)),
    "an unknown policy": ({"experiments.dars.policy": "dasr"}, ("experiments.dars.policy: unknown name", "'dars'")),
    "an unknown algorithm": ({"experiments.dars.algorithm": "self"}, ("dars.algorithm: unknown name", "supervised")),
    "an unknown encoder": ({"model.encoder": "resnet81"}, ("pretrain.base.model.encoder: timm has no", "resnet18")),
    "an unknown decoder": ({"model.decoder": "asp"}, ("model.decoder: unknown name 'asp'; did you mean 'aspp'?",)),
    "an unknown experiment": ({"only": ["drs"]}, ("only[0]: unknown experiment 'drs'; did you mean 'dars'?",)),
    "an unknown pretraining": ({"experiments.dars.pretrain": "bas"}, ("dars.pretrain: unknown pretraining", "'base'")),
    "an unknown task": ({"experiments.dars.tasks": ["tny"]}, ("dars.tasks[0]: unknown task 'tny'", "'tiny'")),
    "an unknown data set": ({"tasks.tiny.labeled": {"dataset": "vok"}}, ("tiny.labeled.dataset.name: ", "'voc'")),
    "an unknown split": (
        {"tasks.tiny.labeled": {"dataset": {"name": "camvid", "split": "trian", "folder": "."}}},
        ("tasks.tiny.labeled: ", "'trian'", "train"),
    ),
    "a split under another's name": (
        {"tasks.tiny.evaluation.truth": {"list": "x"}},
        ("tiny.evaluation.truth: the name of another split; choose another name",),
    ),
    "no evaluation": ({"tasks.tiny.evaluation": {}}, ("tasks.tiny.evaluation: has too few entries",)),
    "no classes": ({"tasks.tiny.classes": []}, ("tasks.tiny.classes: has too few entries",)),
    "a class without a name": ({"tasks.tiny.classes": ["a", "", "c"]}, ("tasks.tiny.classes: '' cannot stand in",)),
    "a class of two lines": ({"tasks.tiny.classes": ["a", "b\nc", "d"]}, ("classes: 'b\\nc' cannot stand in",)),
    "a class twice": ({"tasks.tiny.classes": ["a", "b", "a"]}, ("tasks.tiny.classes: a named twice",)),
    "an ignore id that is a class": ({"tasks.tiny.ignore_index": 2}, ("ignore_index: 2 is the class 'car'",)),
    "an id for no class": ({"tasks.tiny.labeled.ids": {7: 3}}, ("labeled.ids.7: maps to 3", "0 to 2")),
    "a batch of 0 to predict": ({"batch_size": 0}, ("batch_size: should be greater than or equal to 1, not 0",)),
    "a batch of 0 to train": ({"train.batch_size": 0}, ("train.batch_size: should be greater than or equal to 1",)),
    "a seed twice": ({"seeds": [0, 1, 0]}, ("seeds: [0, 1, 0] has a seed twice",)),
    "a name that is a folder of its own": (
        {"experiments.logs": {"policy": "dars", "rounds": [{"portion": 0.5}]}},
        ("experiments.logs: this name is a folder of its own in results; choose another",),
    ),
    "a name with a slash": ({"experiments.a/b": {}}, ("a/b", "a name is made of letters, digits, '-' and '_'")),
    "no results": ({"results": ""}, ("config.yaml: results: should be a path, not empty",)),
    "results that are the folder itself": ({"results": "./"}, ("results: should be a folder of its own, such as",)),
    "results with braces": ({"results": "a{b}"}, ("results: 'a{b}' has braces or control characters", "rename it")),
    "results with a line break": ({"results": "a\nb"}, ("results: 'a\\nb' has braces or control characters",)),
    "weights with braces": ({"pretrain.base.start": "{a}.pth"}, ("pretrain.base.start: '{a}.pth' has braces",)),
    "weights that are not there": ({"pretrain.base.start": "no.pth"}, ("pretrain.base.start: no.pth: no such file",)),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configs(case, folder_task, tmp_path, refused, monkeypatch):
    change, told = CONFIGS[case]
    monkeypatch.chdir(tmp_path)
    content = change if isinstance(change, str | bytes) else changed(folder_task, change)
    said = refused("check", written(tmp_path, content), told=told, outputs=[tmp_path / "results"])
    assert "config.yaml" in said or "pretrain.base" in said or "tasks.tiny" in said
    assert not (tmp_path / "code-ran").exists()


def test_a_config_that_is_not_there_or_may_not_be_read(tmp_path, folder_task, refused):
    refused("check", tmp_path / "no.yaml", told=("no.yaml: no such config file",))
    refused("check", tmp_path, told=(f"{tmp_path}: no such config file",))
    path = written(tmp_path, folder_task)
    path.chmod(0)
    with unprivileged():
        refused("check", path, told=("config.yaml: not readable as YAML", "Permission denied"))

"""What a change of the config asks to be made again, by the settings that jobs are told."""

import pytest

from selftrain.flow import Model
from selftrain.graph import Graph
from selftrain.settings.config_file import parse

START, ROUND = Model("tiny", "base", 0, 0), Model("tiny", "dars", 0, 1)


def told(config, **of_unlabeled):
    """What jobs are told, by name, where this is said of the unlabeled split."""
    config["tasks"]["tiny"]["unlabeled"] |= of_unlabeled
    graph = Graph(parse(config))
    return {
        "start": graph.train(START),
        "predict": graph.predict(START, "single", 0, 1),
        "train": graph.train(ROUND),
        "evaluate": graph.evaluate(ROUND),
        "score": graph.score("tiny"),
    }


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"size": [4, 6]}, {"predict", "train", "score"}),  # how unlabeled images are seen
        ({"ids": {7: 0, 8: 1, 11: 2}}, {"score"}),  # how their hidden labels are read
    ],
)
def test_a_change_of_the_unlabeled_split_is_told_to_who_reads_it(folder_task, change, again):
    folder_task["tasks"]["tiny"] |= {"truth": True}
    folder_task["tasks"]["tiny"]["unlabeled"] |= {"labels": "unlabeled/labels/*"}
    before, after = told(folder_task), told(folder_task, **change)
    assert {job for job in before if before[job] != after[job]} == again

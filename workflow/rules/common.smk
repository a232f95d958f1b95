# The config as a graph, and the words that the rules share. All logic is in selftrain.graph.
import os
import sys

from selftrain.artifacts import bring_back
from selftrain.errors import UserError
from selftrain.flow import Model, model_at
from selftrain.graph import Graph, use_this_python

try:
    graph = Graph.load(*workflow.configfiles, over=dict(workflow.config_settings.config))
    if workflow.is_main_process:  # not again in every job that a cluster starts
        graph.check_files()
        if count := bring_back(graph.config.results):
            print(
                f"warning: the clock was set back; {count} results of a time to come are now of this one",
                file=sys.stderr,
            )
    MACHINE = graph.told(graph.config.machine)
except UserError as error:
    if os.environ.get("SELFTRAIN_DEBUG"):
        raise
    sys.exit(f"error: {error}")

use_this_python()

RESULTS = graph.config.results
THREADS = graph.config.machine.threads
PROCESSES = graph.config.machine.processes
ENVIRONMENT = f"../../envs/{graph.config.machine.environment}.yaml"
SHARDS = graph.config.shards


wildcard_constraints:
    task=r"[A-Za-z0-9_-]+",
    split=r"[A-Za-z0-9_-]+",
    experiment=r"[A-Za-z0-9_-]+",
    model=r"pretrained/[A-Za-z0-9_-]+/seed-\d+|[A-Za-z0-9_-]+/seed-\d+/round-[1-9]\d*",
    seed=r"\d+",
    round=r"[1-9]\d*",
    shard=r"\d+",
    shards=r"\d+",


def model_of(wildcards):
    """The model that a path is about."""
    if hasattr(wildcards, "model"):
        return model_at(wildcards.task, wildcards.model)
    return Model(wildcards.task, wildcards.experiment, int(wildcards.seed), int(wildcards.round))


def kept(path):
    """Predictions stay unless the config says otherwise."""
    return path if graph.config.keep_predictions else temp(path)

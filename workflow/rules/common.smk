# The config as a graph, and the words that the rules share. All logic is in selftrain.graph.
import sys

from selftrain.artifacts import bring_back
from selftrain.flow import Model, model_at
from selftrain.graph import Asked, Graph, telling, use_this_python

with telling():
    graph = Asked(Graph.load(*workflow.configfiles, over=dict(workflow.config_settings.config)))
    # First, since where nothing can be written there are no results to go through.
    MACHINE = graph.told(graph.config.machine)
    if workflow.is_main_process:  # not again in every job that a cluster starts
        graph.check_files()
        if count := bring_back(graph.config.results):
            print(
                f"warning: the clock was set back; {count} results of a time to come are now of this one",
                file=sys.stderr,
            )

use_this_python()

RESULTS = graph.config.results
THREADS = graph.config.machine.threads
PROCESSES = graph.config.machine.processes
ENVIRONMENT = f"../../envs/{graph.config.machine.environment}.yaml"
SHARDS = graph.config.shards
# A number is written in one way, so that no two paths are of one model.
FROM_0 = "(?:0|[1-9][0-9]*)"
FROM_1 = "[1-9][0-9]*"


wildcard_constraints:
    task=r"[A-Za-z0-9_-]+",
    split=r"[A-Za-z0-9_-]+",
    experiment=r"[A-Za-z0-9_-]+",
    model=rf"pretrained/[A-Za-z0-9_-]+/seed-{FROM_0}|[A-Za-z0-9_-]+/seed-{FROM_0}/round-{FROM_1}",
    seed=FROM_0,
    round=FROM_1,
    shard=FROM_0,
    shards=FROM_1,


def model_of(wildcards):
    """The model that a path is about, which may have been mistyped."""
    if hasattr(wildcards, "shard"):
        graph.check_shard(int(wildcards.shard), int(wildcards.shards))
    if hasattr(wildcards, "model"):
        return graph.known(model_at(wildcards.task, wildcards.model))
    return graph.known(Model(wildcards.task, wildcards.experiment, int(wildcards.seed), int(wildcards.round)))


def kept(path):
    """Predictions stay unless the config says otherwise."""
    return path if graph.config.keep_predictions else temp(path)

# data: draw what is built in, verify every file, list each split, count what the labeled ones show, check a review.
# All of it has priority over what is long: else a task's first training could be the last of a run to begin, alone.


rule draw:
    output:
        directory(f"{RESULTS}/{{task}}/data/{{split}}/drawn"),
    log:
        f"{RESULTS}/logs/{{task}}/data/draw-{{split}}.log",
    priority: 2
    conda:
        ENVIRONMENT
    params:
        settings=lambda w: graph.told(graph.streets(w.task, w.split)),
        code=graph.code("selftrain.data.streets"),
    shell:
        "python -m selftrain stage --log {log:q} draw --settings {params.settings:q} --output {output:q}"


# A checkpoint, since what hangs on an `ancient` input of a job that runs again is looked at by Snakemake (9.27) only when
# jobs are looked at anew, as after a checkpoint: else one run would check what has changed, and the next one use it.
checkpoint check:
    input:
        lambda w: graph.drawn_folders(w.task, *graph.splits(w.task)),
    output:
        f"{RESULTS}/{{task}}/data/checked.csv",
    log:
        f"{RESULTS}/logs/{{task}}/data/check.log",
    priority: 2
    conda:
        ENVIRONMENT
    params:
        settings=lambda w: graph.told(graph.check(w.task)),
        files=lambda w: graph.signature(w.task, *graph.splits(w.task)),
        code=graph.code("selftrain.data.check"),
    shell:
        "python -m selftrain stage --log {log:q} check --settings {params.settings:q} --output {output:q}"


if not workflow.is_main_process:
    # Of the whole graph, a job that a cluster starts needs its own rule; with a checkpoint it would plan all the others.
    rules.check.rule.is_checkpoint = False


rule list:
    input:
        lambda w: graph.drawn_folders(w.task, w.split),
        checked=ancient(f"{RESULTS}/{{task}}/data/checked.csv"),
    output:
        f"{RESULTS}/{{task}}/data/{{split}}/images.csv",
    log:
        f"{RESULTS}/logs/{{task}}/data/list-{{split}}.log",
    priority: 2
    conda:
        ENVIRONMENT
    params:
        settings=lambda w: graph.told(graph.listing(w.task, w.split)),
        files=lambda w: graph.signature(w.task, w.split),
        code=graph.code("selftrain.data.tables"),
    shell:
        "python -m selftrain stage --log {log:q} list --settings {params.settings:q} --output {output:q}"


# Early, so that a mistake in a review is told before hours of training.
rule review:
    input:
        files=lambda w: graph.reviewed_files(w.task),
        images=f"{RESULTS}/{{task}}/data/unlabeled/images.csv",
    output:
        f"{RESULTS}/{{task}}/data/review.csv",
    log:
        f"{RESULTS}/logs/{{task}}/data/review.log",
    priority: 3
    conda:
        ENVIRONMENT
    params:
        settings=lambda w: graph.told(graph.review(w.task)),
        code=graph.code("selftrain.data.review"),
    shell:
        "python -m selftrain stage --log {log:q} review --settings {params.settings:q} --images {input.images:q}"
        " --output {output:q}"


rule statistics:
    input:
        images=f"{RESULTS}/{{task}}/data/{{split}}/images.csv",
    output:
        classes=f"{RESULTS}/{{task}}/data/{{split}}/classes.csv",
        statistics=f"{RESULTS}/{{task}}/data/{{split}}/statistics.h5",
    log:
        f"{RESULTS}/logs/{{task}}/data/statistics-{{split}}.log",
    priority: 2
    conda:
        ENVIRONMENT
    params:
        settings=lambda w: graph.told(graph.read(w.task, w.split)),
        code=graph.code("selftrain.data.tables"),
    shell:
        "python -m selftrain stage --log {log:q} statistics --settings {params.settings:q} --images {input.images:q}"
        " --classes {output.classes:q} --statistics {output.statistics:q}"

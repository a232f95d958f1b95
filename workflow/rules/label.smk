# select, label: histograms of confidence to a cut, the cut to pseudo-labels.
ROUND = f"{RESULTS}/{{task}}/{{experiment}}/seed-{{seed}}/round-{{round}}"
ROUND_LOG = f"{RESULTS}/logs/{{task}}/{{experiment}}/seed-{{seed}}/round-{{round}}"


rule select:
    input:
        predictions=lambda w: graph.prediction_paths(model_of(w)),
        classes=f"{RESULTS}/{{task}}/data/labeled/classes.csv",
    output:
        f"{ROUND}/cut.csv",
    log:
        f"{ROUND_LOG}/select.log",
    priority: 1
    conda:
        ENVIRONMENT
    params:
        settings=lambda w: graph.told(graph.select(model_of(w))),
        code=lambda w: graph.select_code(model_of(w)),
        predictions=lambda w, input: [f"--prediction={file}" for file in input.predictions],
    shell:
        "python -m selftrain stage --log {log:q} select --settings {params.settings:q} {params.predictions:q}"
        " --classes {input.classes:q} --cut {output:q}"


rule choose:
    input:
        unpack(lambda w: graph.choose_files(model_of(w))),
        cut=f"{ROUND}/cut.csv",
    output:
        temp(f"{ROUND}/chosen-{{shard}}-of-{{shards}}.h5"),
    log:
        f"{ROUND_LOG}/choose-{{shard}}-of-{{shards}}.log",
    priority: 1
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        gpu=1,
        torch_threads=THREADS,  # as many as set, also where --cores is less: their number is part of the result
    params:
        settings=lambda w: graph.told(graph.choose(model_of(w), int(w.shard), int(w.shards))),
        code=lambda w: graph.choose_code(model_of(w)),
        files=lambda w, input: [f"--{name}={file}" for name, file in input.items()],
    shell:
        "python -m selftrain stage --log {log:q} choose --settings {params.settings:q} {params.files:q}"
        " --threads {resources.torch_threads:q} --output {output:q}"


rule label:
    input:
        unpack(lambda w: graph.chosen_file(model_of(w), int(w.shard)) | graph.review_file(w.task)),
        prediction=lambda w: graph.prediction_paths(model_of(w))[int(w.shard)],
        cut=f"{ROUND}/cut.csv",
    output:
        temp(f"{ROUND}/pseudo_labels-{{shard}}-of-{{shards}}.h5"),
    log:
        f"{ROUND_LOG}/label-{{shard}}-of-{{shards}}.log",
    priority: 1
    conda:
        ENVIRONMENT
    params:
        settings=lambda w: graph.told(graph.label(model_of(w))),
        code=graph.code("selftrain.label.stage"),
        files=lambda w, input: [f"--{name}={file}" for name, file in input.items()],
    shell:
        "python -m selftrain stage --log {log:q} label --settings {params.settings:q} {params.files:q}"
        " --output {output:q}"


rule merge:
    input:
        unpack(lambda w: graph.review_file(w.task)),
        shards=[f"{ROUND}/pseudo_labels-{shard}-of-{SHARDS}.h5" for shard in range(SHARDS)],
        predictions=lambda w: graph.prediction_paths(model_of(w)),
        cut=f"{ROUND}/cut.csv",
    output:
        labels=f"{ROUND}/pseudo_labels.h5",
        table=report(
            f"{ROUND}/pseudo_labels.csv",
            caption="../report/pseudo_labels.rst",
            category="Pseudo-labels",
            subcategory="{task}",
            labels={"experiment": "{experiment}", "seed": "{seed}", "round": "{round}"},
        ),
    log:
        f"{ROUND_LOG}/merge.log",
    priority: 1
    conda:
        ENVIRONMENT
    params:
        settings=lambda w: graph.told(graph.label(model_of(w))),
        code=graph.code("selftrain.label.merge"),
        shards=lambda w, input: [f"--shard={file}" for file in input.shards],
        predictions=lambda w, input: [f"--prediction={file}" for file in input.predictions],
        review=lambda w, input: [f"--review={input.review}"] if "review" in input.keys() else [],
    shell:
        "python -m selftrain stage --log {log:q} merge --settings {params.settings:q} {params.shards:q}"
        " {params.predictions:q} {params.review:q} --cut {input.cut:q} --output {output.labels:q}"
        " --table {output.table:q}"

# evaluate: confusion matrices of models; scores of pseudo-labels where there is hidden truth; images to look at.


rule evaluate:
    input:
        images=lambda w: graph.evaluation_files(w.task),
        labeled=f"{RESULTS}/{{task}}/data/labeled/classes.csv",
        model=f"{RESULTS}/{{task}}/{{model}}/model.safetensors",
    output:
        confusion=f"{RESULTS}/{{task}}/{{model}}/confusion.csv",
        metrics=report(
            f"{RESULTS}/{{task}}/{{model}}/metrics.csv",
            caption="../report/metrics.rst",
            category="Scores",
            subcategory="{task}",
            labels={"model": "{model}"},
        ),
        sizes=f"{RESULTS}/{{task}}/{{model}}/sizes.csv",
    log:
        f"{RESULTS}/logs/{{task}}/{{model}}/evaluate.log",
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        gpu=1,
        torch_threads=THREADS,  # as many as set, also where --cores is less: their number is part of the result
    params:
        settings=lambda w: graph.told(graph.evaluate(model_of(w))),
        code=lambda w: graph.evaluate_code(model_of(w)),
        images=lambda w, input: [
            f"--images={split}={file}" for split, file in zip(graph.evaluation_splits(w.task), input.images)
        ],
    shell:
        "python -m selftrain stage --log {log:q} evaluate --settings {params.settings:q} --model {input.model:q}"
        " {params.images:q} --labeled {input.labeled:q} --threads {resources.torch_threads:q}"
        " --confusion {output.confusion:q} --metrics {output.metrics:q} --sizes {output.sizes:q}"


rule score:
    input:
        labels=f"{ROUND}/pseudo_labels.h5",
        truth=f"{RESULTS}/{{task}}/data/truth/images.csv",
    output:
        f"{ROUND}/pseudo_label_scores.csv",
    log:
        f"{ROUND_LOG}/score.log",
    conda:
        ENVIRONMENT
    params:
        settings=lambda w: graph.told(graph.score(w.task)),
        code=graph.code("selftrain.evaluate.pseudo_labels"),
    shell:
        "python -m selftrain stage --log {log:q} score --settings {params.settings:q} --pseudo-labels {input.labels:q}"
        " --truth {input.truth:q} --output {output:q}"


rule preview:
    input:
        unpack(lambda w: graph.preview_files(w.task)),
    output:
        f"{RESULTS}/{{task}}/preview.h5",
    log:
        f"{RESULTS}/logs/{{task}}/preview.log",
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        gpu=1,
        torch_threads=THREADS,  # as many as set, also where --cores is less: their number is part of the result
    params:
        settings=lambda w: graph.told(graph.preview(w.task)),
        code=lambda w: graph.preview_code(w.task),
        models=lambda w, input: [
            f"--model={model.folder}={file}" for model, file in zip(graph.previewed(w.task), input.models)
        ],
        labels=lambda w, input: [f"--pseudo-labels={file}" for file in input.labels],
    shell:
        "python -m selftrain stage --log {log:q} preview --settings {params.settings:q} --images {input.images:q}"
        " {params.models:q} {params.labels:q} --threads {resources.torch_threads:q} --output {output:q}"

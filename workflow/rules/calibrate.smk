# calibrate: what makes a model's probabilities mean what they say, fitted on held-out labels; and whether it does.
CALIBRATION = f"{RESULTS}/{{task}}/{{model}}/calibration/{{mode}}"
CALIBRATION_LOG = f"{RESULTS}/logs/{{task}}/{{model}}"


rule calibrate:
    input:
        model=f"{RESULTS}/{{task}}/{{model}}/model.safetensors",
        images=f"{RESULTS}/{{task}}/data/calibration/images.csv",
    output:
        f"{CALIBRATION}/calibrator.json",
    log:
        f"{CALIBRATION_LOG}/calibrate-{{mode}}.log",
    priority: 1
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        gpu=1,
        torch_threads=THREADS,  # as many as set, also where --cores is less: their number is part of the result
    params:
        settings=lambda w: graph.told(graph.calibrate(model_of(w), w.mode)),
        code=lambda w: graph.calibrate_code(model_of(w), w.mode),
    shell:
        "python -m selftrain stage --log {log:q} calibrate --settings {params.settings:q} --model {input.model:q}"
        " --images {input.images:q} --threads {resources.torch_threads:q} --output {output:q}"


# Apart from the fit: other evaluation splits make no other calibrator, and no other predictions.
rule reliability:
    input:
        images=lambda w: [f"{RESULTS}/{w.task}/data/{split}/images.csv" for split in graph.reliability_splits(w.task)],
        model=f"{RESULTS}/{{task}}/{{model}}/model.safetensors",
        calibrator=f"{CALIBRATION}/calibrator.json",
    output:
        reliability=f"{CALIBRATION}/reliability.csv",
        calibration=f"{CALIBRATION}/calibration.csv",
    log:
        f"{CALIBRATION_LOG}/reliability-{{mode}}.log",
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        gpu=1,
        torch_threads=THREADS,  # as many as set, also where --cores is less: their number is part of the result
    params:
        settings=lambda w: graph.told(graph.reliability(model_of(w), w.mode)),
        code=lambda w: graph.reliability_code(model_of(w), w.mode),
        images=lambda w, input: [
            f"--images={split}={file}" for split, file in zip(graph.reliability_splits(w.task), input.images)
        ],
    shell:
        "python -m selftrain stage --log {log:q} reliability --settings {params.settings:q} --model {input.model:q}"
        " --calibrator {input.calibrator:q} {params.images:q} --threads {resources.torch_threads:q}"
        " --reliability {output.reliability:q} --calibration {output.calibration:q}"

# train: one command for every kind of training; round 0 is a pretraining, an online training stands where round 1 would.
# What others wait for has priority over what nobody waits for: scores then fill the last gaps, not one long training.


rule train:
    input:
        unpack(lambda w: graph.train_files(model_of(w))),
    output:
        model=f"{RESULTS}/{{task}}/{{model}}/model.safetensors",
        table=report(
            f"{RESULTS}/{{task}}/{{model}}/train.csv",
            caption="../report/train.rst",
            category="Training",
            subcategory="{task}",
            labels={"model": "{model}"},
        ),
        manifest=f"{RESULTS}/{{task}}/{{model}}/manifest.json",
    log:
        f"{RESULTS}/logs/{{task}}/{{model}}/train.log",
    priority: 1
    conda:
        ENVIRONMENT
    threads: THREADS * PROCESSES
    resources:
        gpu=PROCESSES,
        machine=MACHINE,  # no rerun when it changes, as with every resource
    params:
        settings=lambda w: graph.told(graph.train(model_of(w))),
        resume=f"{RESULTS}/.resume",
        finished=f"{RESULTS}/.finished",
        code=lambda w: graph.train_code(model_of(w)),
        inputs=lambda w, input: [f"--input={name}={file}" for name, file in input.items()],
        outputs=lambda w, output: [f"--{name}={file}" for name, file in output.items()],
    shell:
        "python -m selftrain stage --log {log:q} train --settings {params.settings:q} --code={params.code:q}"
        " --machine {resources.machine:q} --processes {resources.gpu:q} --resume {params.resume:q}"
        " --finished {params.finished:q} {params.inputs:q} {params.outputs:q}"


# The same, for what other workflows can share: with SNAKEMAKE_OUTPUT_CACHE and --cache, docs/clusters.md says how.
use rule train as pretrain with:
    wildcard_constraints:
        model=rf"pretrained/[A-Za-z0-9_-]+/seed-{FROM_0}",
    cache: True
    priority: 2


# The same, for what learns from unlabeled images step by step, and keeps some examples.
use rule train as train_showing with:
    output:
        model=f"{RESULTS}/{{task}}/{{model}}/model.safetensors",
        table=report(
            f"{RESULTS}/{{task}}/{{model}}/train.csv",
            caption="../report/train.rst",
            category="Training",
            subcategory="{task}",
            labels={"model": "{model}"},
        ),
        manifest=f"{RESULTS}/{{task}}/{{model}}/manifest.json",
        examples=f"{RESULTS}/{{task}}/{{model}}/examples.h5",
    wildcard_constraints:
        model=rf"(?:{'|'.join(graph.showing) or '(?!)'})/seed-{FROM_0}/round-{FROM_1}",


ruleorder: pretrain > train_showing > train

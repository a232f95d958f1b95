# predict: class and confidence of every unlabeled pixel; predictions belong to the model that made them.


rule predict:
    input:
        unpack(lambda w: graph.predict_files(model_of(w), w.mode)),
    output:
        kept(f"{RESULTS}/{{task}}/{{model}}/predictions/{{mode}}/shard-{{shard}}-of-{{shards}}.h5"),
    log:
        f"{RESULTS}/logs/{{task}}/{{model}}/predict-{{mode}}-{{shard}}-of-{{shards}}.log",
    priority: 1
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        gpu=1,
        torch_threads=THREADS,  # as many as set, also where --cores is less: their number is part of the result
    params:
        settings=lambda w: graph.told(graph.predict(model_of(w), w.mode, int(w.shard), int(w.shards))),
        code=lambda w: graph.predict_code(model_of(w), w.mode),
        files=lambda w, input: [f"--{name}={file}" for name, file in input.items()],
    shell:
        "python -m selftrain stage --log {log:q} predict --settings {params.settings:q} {params.files:q}"
        " --threads {resources.torch_threads:q} --output {output:q}"

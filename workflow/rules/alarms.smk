# signs, alarms: what two rounds' predictions say without any truth, and what of it goes beyond its limit.
# They come before the training that learns from the round, so that who is warned can stop it.


rule signs:
    input:
        predictions=lambda w: graph.prediction_paths(model_of(w)),
        before=lambda w: graph.earlier_prediction_paths(model_of(w)),
    output:
        f"{ROUND}/signs.csv",
    log:
        f"{ROUND_LOG}/signs.log",
    priority: 2
    conda:
        ENVIRONMENT
    params:
        code=graph.code("selftrain.alarms.signs"),
        predictions=lambda w, input: [f"--prediction={file}" for file in input.predictions],
        before=lambda w, input: [f"--before={file}" for file in input.before],
    shell:
        "python -m selftrain stage --log {log:q} signs {params.predictions:q} {params.before:q} --output {output:q}"


rule alarms:
    input:
        signs=f"{ROUND}/signs.csv",
        cut=f"{ROUND}/cut.csv",
    output:
        report(
            f"{ROUND}/alarms.csv",
            caption="../report/alarms.rst",
            category="Alarms",
            subcategory="{task}",
            labels={"experiment": "{experiment}", "seed": "{seed}", "round": "{round}"},
        ),
    log:
        f"{ROUND_LOG}/alarms.log",
    priority: 2
    conda:
        ENVIRONMENT
    params:
        settings=graph.told(graph.config.alarms),
        code=graph.code("selftrain.alarms.stage"),
    shell:
        "python -m selftrain stage --log {log:q} alarms --settings {params.settings:q} --signs {input.signs:q}"
        " --cut {input.cut:q} --output {output:q}"

# report: one table of all scores.


rule summary:
    input:
        graph.report_files(),
    output:
        f"{RESULTS}/summary.csv",
    log:
        f"{RESULTS}/logs/summary.log",
    conda:
        ENVIRONMENT
    params:
        settings=graph.told(graph.report()),
        code=graph.code("selftrain.report.summary"),
    shell:
        "python -m selftrain stage --log {log} summary --settings {params.settings} --output {output}"

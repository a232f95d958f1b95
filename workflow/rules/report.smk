# report: one table of all scores, one page to look at.


rule summary:
    input:
        graph.report_files(),
    output:
        report(f"{RESULTS}/summary.csv", caption="../report/summary.rst", category="Results"),
    log:
        f"{RESULTS}/logs/summary.log",
    conda:
        ENVIRONMENT
    params:
        settings=graph.told(graph.summary()),
        code=graph.code("selftrain.report.summary"),
    shell:
        "python -m selftrain stage --log {log:q} summary --settings {params.settings:q} --output {output:q}"


rule report:
    input:
        graph.report_files(),
        graph.alarm_files(),
        graph.report_images(),
        summary=f"{RESULTS}/summary.csv",
    output:
        page=report(f"{RESULTS}/report/index.html", caption="../report/page.rst", category="Results"),
        figures=report(
            directory(f"{RESULTS}/report/figures"),
            patterns=["{task}/{section}/{name}.svg"],
            caption="../report/figure.rst",
            category="Figures",
            subcategory="{task}",
            labels={"figure": "{section}", "of": "{name}"},
        ),
        images=directory(f"{RESULTS}/report/images"),
    log:
        f"{RESULTS}/logs/report.log",
    conda:
        ENVIRONMENT
    params:
        settings=graph.told(graph.report()),
        code=graph.code("selftrain.report.page"),
    shell:
        "python -m selftrain stage --log {log:q} report --settings {params.settings:q} --summary {input.summary:q}"
        " --output {output.page:q}"

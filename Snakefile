from snakemake.utils import min_version

min_version("9.10")


if not workflow.config_settings.configfiles:

    configfile: "config.yaml"


include: "workflow/rules/common.smk"


rule all:
    default_target: True
    input:
        f"{RESULTS}/summary.csv",
        f"{RESULTS}/report/index.html",


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/calibrate.smk"
include: "workflow/rules/predict.smk"
include: "workflow/rules/label.smk"
include: "workflow/rules/alarms.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"


onstart:
    graph.remember_code()


onsuccess:
    graph.forget_finished()

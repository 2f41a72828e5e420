"""Weights that open_clip fetches: once, before the passes that would all fetch them at a time."""


rule fetch_weights:
    input:
        marker=lambda wildcards: markers.weights(wildcards.model, DATA),
    output:
        f"{DATA}/weights/{{model}}.json",
    log:
        f"results/logs/{SUITE}/fetch_weights/{{model}}.log",
    priority: pipeline.FIRST
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        download=1,
    message:
        "fetch the weights of {wildcards.model}: its log is {log}"
    shell:
        "python -m cliptrase.model.receipt {wildcards.model:q} {output:q} > {log:q} 2>&1"

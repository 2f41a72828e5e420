"""Archives, or a generator, → data/prepared/<dataset>/: raw labels, and a check of itself."""


rule prepare_dataset:
    input:
        code=CODE(pipeline.preparing_code()),
    output:
        "data/prepared/{dataset}/selfcheck.json",
    log:
        "results/logs/prepare_dataset/{dataset}.log",
    conda:
        "../../environment.yml"
    threads: ONE_CORE
    message:
        "prepare {wildcards.dataset} → {output}"
    shell:
        "python -m cliptrase.data.prepare {wildcards.dataset} --data data > {log} 2>&1"

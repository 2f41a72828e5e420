"""Archives, or a generator, → <data>/prepared/<dataset>/: raw labels, and a check of itself.

Of an archive only its receipt is declared: Snakemake deletes what is declared before a rerun, and a
download goes on where it was broken off. A receipt is updated, as it alone says where the archive
came from. So is a prepared dataset: where it cannot be made again, as its archives are gone, the one
that stands is kept. Downloads are local rules, for the
machines of a cluster may have no network.
"""

PREPARING = pipeline.preparing_threads({PLAN.passes[name].dataset for name in PASSES}, DATA, CORES)


wildcard_constraints:
    archive=r"[^/]+\.(zip|tar|tar\.gz|tgz)",
    dataset=r"\w+",


rule fetch_archive:
    input:
        marker=lambda wildcards: markers.archive(wildcards.archive, DATA),
    output:
        update(f"{DATA}/raw/{{archive}}.json"),
    log:
        f"results/logs/{SUITE}/fetch_archive/{{archive}}.log",
    priority: pipeline.FIRST
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        download=1,
        # Not a param: the same archive from elsewhere is the same archive.
        mirror=FROM,
    message:
        "fetch {wildcards.archive}: its log is {log}"
    shell:
        f"python -m cliptrase.data.fetch.download {{wildcards.archive:q}} --data {DATA_WORD}"
        " {resources.mirror} > {log:q} 2>&1"


rule prepare_dataset:
    input:
        archives=lambda wildcards: pipeline_data.receipts(wildcards.dataset, DATA),
        code=lambda wildcards: CODE(markers.preparing(wildcards.dataset, DATA)),
        marker=lambda wildcards: markers.dataset(PLAN, wildcards.dataset),
    output:
        update(f"{DATA}/prepared/{{dataset}}/selfcheck.json"),
    log:
        f"results/logs/{SUITE}/prepare_dataset/{{dataset}}.log",
    priority: pipeline.FIRST
    conda:
        "../../environment.yml"
    threads: pipeline.claim(PREPARING, CORES)
    resources:
        mirror=FROM,
        preparing=lambda wildcards, threads: f"--threads {pipeline.busy(threads, CORES)}",
        # Optional archives list parts of a dataset, and are of use for nothing else.
        optional=lambda wildcards: (
            "" if pipeline_data.parts(PLAN, wildcards.dataset) else "--without-optional"
        ),
    message:
        "prepare {wildcards.dataset} → {output}"
    shell:
        f"python -m cliptrase.data.make.prepare {{wildcards.dataset:q}} --data {DATA_WORD}"
        " {resources.mirror} {resources.preparing} {resources.optional} > {log:q} 2>&1"

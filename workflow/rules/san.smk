"""Figure 8: SAN trained in several arms and seeds, a job each, so that they run in parallel and one that
was killed goes on: its checkpoint is not declared, and stays until the run is written.

Not part of `all`. What CLIP's frozen blocks make of the pictures, and CLIPtrase's regions, are made once.
"""

from cliptrase.publish import CONVERGENCE
from cliptrase.san import cost

SAN_WORD = shlex.quote(SAN.name)
SAN_FIGURE = f"{SAN.folder}/{CONVERGENCE}.{{kind}}"
SAN_RUNS = [str(SAN.run_file(arm, seed)) for arm in SAN.arms for seed in SAN.seeds]
SAN_DATA = [pipeline_data.selfcheck(name, DATA) for name in SAN.datasets]
SAN_DATA += [str(pipeline_data.weights_receipt(SAN.model, DATA))] * SAN.fetches_weights


wildcard_constraints:
    arm="|".join(san_settings.ARMS),
    seed=r"\d+",


rule store_san_tokens:
    input:
        code=lambda wildcards: CODE(markers.training("store")),
    output:
        f"{DATA}/san/{SAN.name}/store.json",
    log:
        f"results/logs/san/{SAN.name}/store_san_tokens.log",
    conda:
        "../../environment.yml"
    threads: ONE_CORE
    params:
        key=SAN.store_key,
    message:
        f"keep {errors.counted(SAN.pictures + SAN.validation, 'picture')} and CLIP's tokens → {{output}}"
    shell:
        f"python -m cliptrase.san.store {SAN_WORD} --data {DATA_WORD} > {{log:q}} 2>&1"


rule average_san_regions:
    input:
        data=SAN_DATA,
        code=lambda wildcards: CODE(markers.training("regions")),
    output:
        f"{DATA}/san/{SAN.name}.regions.npz",
    log:
        f"results/logs/san/{SAN.name}/average_san_regions.log",
    conda:
        "../../environment.yml"
    threads: ONE_CORE
    params:
        key=SAN.regions_key,
    message:
        f"average CLIPtrase's regions of {errors.counted(SAN.init.images, 'picture')} → {{output}}"
    shell:
        f"python -m cliptrase.san.regions {SAN_WORD} --data {DATA_WORD} > {{log:q}} 2>&1"


rule train_san:
    input:
        store=[] if SAN.train_positions else rules.store_san_tokens.output,
        regions=lambda wildcards: (
            [] if wildcards.arm == "plain" else rules.average_san_regions.output
        ),
        data=SAN_DATA,
        code=lambda wildcards: CODE(markers.training("train")),
    output:
        f"{SAN.folder}/runs/{{arm}}-{{seed}}.npz",
    log:
        f"results/logs/san/{SAN.name}/train_san/{{arm}}-{{seed}}.log",
    conda:
        "../../environment.yml"
    threads: ONE_CORE
    resources:
        gpu=min(1, SAN.gpus),
    params:
        recipe=SAN.recipe(),
    message:
        "train SAN, {wildcards.arm}, seed {wildcards.seed}: its log is {log}"
    shell:
        f"python -m cliptrase.san.train {SAN_WORD} {{wildcards.arm}} {{wildcards.seed}} --data {DATA_WORD}"
        " > {log:q} 2>&1"


rule draw_figure_8:
    input:
        runs=SAN_RUNS,
        regions=rules.average_san_regions.output,
        code=PUBLISHING,
    output:
        expand(SAN_FIGURE, kind=["svg", "png", "npz", "csv", "txt"]),
    log:
        f"results/logs/san/{SAN.name}/draw_figure_8.log",
    localrule: True
    conda:
        "../../environment.yml"
    threads: ONE_CORE
    message:
        f"draw Figure 8 → {SAN.folder}"
    shell:
        f"python -m cliptrase.san.figure {SAN_WORD} --data {DATA_WORD} > {{log:q}} 2>&1"


rule fig8:
    input:
        rules.draw_figure_8.output,

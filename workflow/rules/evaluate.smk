"""One stream over a dataset's images → all the runs of a pass.

The pass file (run → sha256 of its metrics.json) is the only output that is declared: Snakemake
deletes those before a rerun, and the run folders hold what need not be computed again. The marker
makes a pass run again that is stale: a run of it is lost, damaged, or of other code or data.
"""

DEVICE = pipeline.limit_gpus(SETTINGS.device, SETTINGS.gpus)
GPUS = machine.usable_gpus(DEVICE)
# A pass has its share of the cores, so that as many start as there are GPUs. Where the cores do not
# divide evenly there may be more, which wait for the lock of a GPU.
SHARDS = errors.exit_on_user_error(division.shards)(PLAN, LEFT, SETTINGS, DEVICE)  # of each pass
WORKERS = pipeline.workers(
    [name for name in LEFT or PASSES for _ in range(SHARDS[name])], GPUS, CORES
)
PRIORITIES = functools.cache(lambda: errors.exit_on_user_error(pipeline.priorities)(PLAN))
RUNS_OF = {name: sorted(each.runs) for name, each in PLAN.passes.items()}


# A part of the images of a pass. The pass deletes it when all are added up. It is made again where
# other code is in use: the pass would refuse it.
rule evaluate_shard:
    input:
        data=lambda wildcards: pipeline_data.prepared(PLAN.passes[wildcards.name], DATA),
        weights=lambda wildcards: pipeline_data.weights(PLAN.passes[wildcards.name], DATA),
    output:
        f"results/passes/{SUITE}/{{name}}.shard-{{number}}-of-{{shards}}.npz",
    log:
        f"results/logs/{SUITE}/evaluate_shard/{{name}}.{{number}}-of-{{shards}}.log",
    priority: lambda wildcards: PRIORITIES()[wildcards.name]
    conda:
        "../../environment.yml"
    threads: pipeline.claim(WORKERS, CORES)
    resources:
        gpu=min(1, GPUS),
        options=lambda wildcards, threads: pipeline.options(
            DEVICE, pipeline.busy(threads, CORES), GPUS, FROZEN, None
        ),
    params:
        runs=lambda wildcards: RUNS_OF[wildcards.name],
        code=lambda wildcards: code.prediction_digest(),
    message:
        "evaluate {wildcards.name}, part {wildcards.number} of {wildcards.shards}: its log is {log}"
    shell:
        f"python -m cliptrase.evaluate.planned {SUITE_WORD} {{wildcards.name:q}}"
        " --shard {wildcards.number}/{wildcards.shards} {resources.options} > {log:q} 2>&1"


# Stands for the shards of a pass, whatever their number: Snakemake makes again what has other inputs.
rule count_shards:
    input:
        lambda wildcards: pipeline.shard_files(SUITE, wildcards.name, SHARDS[wildcards.name]),
    output:
        temp(f"results/passes/{SUITE}/{{name}}.counted"),
    log:
        f"results/logs/{SUITE}/count_shards/{{name}}.log",
    priority: pipeline.FIRST
    localrule: True
    conda:
        "../../environment.yml"
    shell:
        "touch {output:q}"


rule evaluate_pass:
    input:
        data=lambda wildcards: pipeline_data.prepared(PLAN.passes[wildcards.name], DATA),
        weights=lambda wildcards: pipeline_data.weights(PLAN.passes[wildcards.name], DATA),
        marker=lambda wildcards: markers.evaluation(SUITE, wildcards.name, STALE),
        counted=lambda wildcards: pipeline.counted(SUITE, wildcards.name, SHARDS[wildcards.name]),
    output:
        f"results/passes/{SUITE}/{{name}}.json",
    log:
        f"results/logs/{SUITE}/evaluate_pass/{{name}}.log",
    priority: lambda wildcards: PRIORITIES()[wildcards.name]
    conda:
        "../../environment.yml"
    threads: pipeline.claim(WORKERS, CORES)
    resources:
        gpu=min(1, GPUS),
        # Not a param: what cannot change a number must not make a pass run again.
        options=lambda wildcards, threads: pipeline.options(
            DEVICE,
            pipeline.busy(threads, CORES),
            GPUS,
            FROZEN,
            SETTINGS.save_maps,
            SHARDS[wildcards.name],
        ),
    params:
        runs=lambda wildcards: RUNS_OF[wildcards.name],
    message:
        "evaluate {wildcards.name}: its log is {log}"
    shell:
        f"python -m cliptrase.evaluate.planned {SUITE_WORD} {{wildcards.name:q}}"
        " {resources.options} > {log:q} 2>&1"

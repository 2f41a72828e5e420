"""The tables of a suite, from its data to W&B: `snakemake --cores 8 all`

--config suite=paper          another suite of conf/suite (default: shapes)
--config benchmarks=[voc20]   only the passes that these benchmarks need
--config mirror=URL           every archive, gated ones too, from this server: URL/<file name>
--config freeze_code=true     an edit of the code makes nothing run again
--config device=cpu           auto | cpu | cuda | cuda:N
--resources gpu=1             fewer passes on GPUs at once than there are GPUs; 0: on the CPU
--config tracking=online      how W&B publishes: offline | online | disabled

`snakemake --cores 8 regenerate-paper-tables` only renders the tables from the runs that exist.
"""

import shlex
import sys
from pathlib import Path

from snakemake.utils import min_version

from cliptrase import errors, pipeline, plan
from cliptrase.pipeline import data as pipeline_data
from cliptrase.pipeline.announcement import announcement
from cliptrase.config.run import check_device
from cliptrase.pipeline.estimate import todo
from cliptrase.pipeline.estimate.start import Start

min_version("9.27")

SUITE = config.get("suite", "shapes")
PLAN = errors.exit_on_user_error(plan.load)(SUITE)
DATA, QUOTED = PLAN.data, shlex.quote(PLAN.data)
ASKED = errors.exit_on_user_error(pipeline.chosen_passes)(PLAN, config.get("benchmarks"))
MIRROR = pipeline_data.mirror_of(config.get("mirror"))
# What only the user can get is left out until it is there; its cells say how to get it.
LACKING = errors.exit_on_user_error(pipeline_data.lacking)(PLAN, ASKED, MIRROR)
PASSES = pipeline_data.without(PLAN, ASKED, LACKING)
FROZEN = bool(config.get("freeze_code", False))
CODE = ancient if FROZEN else list
CORES = workflow.resource_settings.cores  # None for --report
ONE_CORE = pipeline.claim(1, CORES)
pipeline.limit(workflow, "download", 3)  # at once; they wait for the network, not for a core

shell.prefix(pipeline.shell_prefix())
FALSE = pipeline.unmade(PLAN)  # their pass files do not hold
LEFT = todo.unmade(PLAN, FALSE, frozen=FROZEN)

if workflow.is_main_process:  # a mark that a broken run left would say that nothing is to be done
    Path("regenerate-paper-tables").unlink(missing_ok=True)


include: "workflow/rules/data.smk"
include: "workflow/rules/weights.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/publish.smk"


rule all:
    default_target: True
    input:
        expand(rules.evaluate_pass.output, name=PASSES),
        rules.render_tables.output,
        rules.draw_figures.output,
        rules.publish_runs.output,
    message:
        f"suite {SUITE} is complete: results/{SUITE}/tables, results/{SUITE}/figures"


onstart:
    said = errors.exit_on_user_error(announcement)(
        PLAN,
        ASKED,
        pipeline.passes_to_make(workflow.dag),
        MIRROR,
        Start(cores=CORES, device=DEVICE, gpus=GPUS, frozen=FROZEN, tracking=TRACKING),
    )
    print(said, file=sys.stderr)


onsuccess:
    shell("rm -f regenerate-paper-tables")


onerror:
    shell(pipeline.what_there_is(SUITE, TRACKING))

"""The tables of a suite, from its data to W&B: `snakemake --cores 8 all`

--config suite=paper          another suite of conf/suite (default: shapes)
--config benchmarks=[voc20]   only the passes that these benchmarks need
--config mirror=URL           every archive, gated ones too, from this server: URL/<file name>
--config freeze_code=true     an edit of the code makes nothing run again
--config device=cpu           auto | cpu | cuda | cuda:N
--config gpus=1               passes share the first so many GPUs; 0: the CPU
--config shards=7             every pass is cut into so many jobs, each of a part of the images
--config hours=2              … into as many as it needs for none to take longer
--config save_maps=4          every run keeps the label maps of its first pictures
--config tracking=online      how W&B publishes: offline | online | disabled
--config san=coco             with fig8: another experiment of conf/san (default: shapes)

`snakemake --cores 8 regenerate-paper-tables` only renders the suite's tables, of the runs that exist.
`snakemake --cores 8 fig8` trains SAN and draws Figure 8, which `all` does not.
"""

import functools
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from cliptrase import errors, machine, pipeline, plan
from cliptrase.pipeline import data as pipeline_data
from cliptrase.pipeline import division, markers, progress, start
from cliptrase.pipeline.announcement import announcement
from cliptrase.pipeline.settings import read_settings
from cliptrase.runs import code
from cliptrase.san import settings as san_settings

min_version("9.27")

start.end_on_signals()
errors.exit_on_user_error(start.take_folder)(job=workflow.remote_exec)
SETTINGS = errors.exit_on_user_error(read_settings)(config)
PLAN = errors.exit_on_user_error(plan.load)(SETTINGS.suite, SETTINGS.save_maps)
SUITE, DATA = PLAN.suite, PLAN.data
SUITE_WORD, DATA_WORD = shlex.quote(SUITE), shlex.quote(DATA)  # as the shell reads them
ASKED = errors.exit_on_user_error(pipeline.chosen_passes)(PLAN, SETTINGS.benchmarks)
MIRROR = SETTINGS.mirror
# What was asked for, so that the cells of other benchmarks say so.
ONLY = f" --benchmarks {shlex.quote(','.join(SETTINGS.benchmarks))}" if SETTINGS.benchmarks else ""
FROM = f"--mirror {shlex.quote(MIRROR)}" if MIRROR else ""
# What only the user can get is left out until it is there; its cells say how to get it.
LACKING = errors.exit_on_user_error(pipeline_data.lacking)(PLAN, ASKED, MIRROR)
PASSES = pipeline_data.without(PLAN, ASKED, LACKING)
FROZEN = SETTINGS.freeze_code
CODE = ancient if FROZEN else str
try:
    CORES = workflow.cores
except WorkflowError:  # a report needs none, and each job of a cluster has its own
    CORES = None
ONE_CORE = pipeline.claim(1, CORES)

shell.prefix(pipeline.shell_prefix())
STALE = pipeline.stale_passes(PLAN, frozen=FROZEN)  # pass → why it is to be made
LEFT = [name for name in PASSES if name in STALE]

# A mark that a broken run left would say that nothing is to be done.
Path("regenerate-paper-tables").unlink(missing_ok=True)


include: "workflow/rules/data.smk"
include: "workflow/rules/weights.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/publish.smk"


# A fault in conf/san costs Figure 8 alone, which says it when it is asked for.
try:
    SAN, SAN_FAULT = san_settings.load(SETTINGS.san), None
except errors.UserError as fault:
    SAN, SAN_FAULT = None, fault

if SAN:

    include: "workflow/rules/san.smk"

else:

    include: "workflow/rules/san_fault.smk"


rule all:
    default_target: True
    input:
        expand(rules.evaluate_pass.output, name=PASSES),
        rules.render_tables.output,
        rules.draw_figures.output,
        rules.write_page.output,
        rules.publish_runs.output,
    message:
        f"suite {SUITE} is complete: results/{SUITE}/index.html shows it"


onstart:
    start.end_on_signals(getattr(workflow.scheduler._executor, "run_uuid", None))  # of SLURM
    targets = {name.replace("_", "-") for name in workflow.dag_settings.targets}
    if "fig8" in targets:
        errors.exit_on_user_error(cost.refuse_without_gpu)(SAN)  # before anything is fetched
        print("\n".join(cost.lines(SAN)), file=sys.stderr)
    if targets == {"fig8"}:
        return
    if targets == {"regenerate-paper-tables"}:
        from cliptrase.publish.results import Shelf  # NumPy: not at every start

        shelf = Shelf(PLAN, Path("results"), Path(DATA), SETTINGS.benchmarks)
        errors.exit_on_user_error(shelf.refuse_none)()
    left = pipeline.passes_to_make(PLAN, LEFT, sys.argv)
    said = errors.exit_on_user_error(announcement)(
        PLAN, ASKED, left, MIRROR, CORES, DEVICE, FROZEN, elsewhere=CORES is None
    )
    print(said, file=sys.stderr)
    progress.watch(PLAN, pipeline_data.to_make(PLAN, ASKED, left, MIRROR))


onsuccess:
    Path("regenerate-paper-tables").unlink(missing_ok=True)
    if "fig8" in workflow.dag_settings.targets:
        print(Path(SAN_FIGURE.format(kind="txt")).read_text(encoding="utf-8"), file=sys.stderr)
    if not {*workflow.dag_settings.targets} - {"all"}:
        print(
            f"figures: results/{SUITE}/figures; tables, as .md, .csv and .tex:", file=sys.stderr
        )
        for table in PLAN.tables:
            print(f"  results/{SUITE}/tables/{table}.md", file=sys.stderr)
        print(f"the page, for a browser: results/{SUITE}/index.html", file=sys.stderr)


# From the runs that there are; one step that fails costs no other.
onerror:
    start.exit_if_ended()
    steps = (
        f"tables {SUITE_WORD}{ONLY}",
        f"figures {SUITE_WORD}",
        f"page {SUITE_WORD}{ONLY}",
        f"wandb {SUITE_WORD} tracking.mode={SETTINGS.tracking}",
    )
    shown = pipeline.passes_to_make(PLAN, PASSES, sys.argv) and pipeline.has_run(PLAN)
    for step in steps if shown else ():
        shell(f"python -m cliptrase.publish {step} >&2 || true")

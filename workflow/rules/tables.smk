"""Runs → tables (csv, md, tex), figures and the page. One job a kind: an import costs more than a table.

On a cluster figures and pictures are jobs, as they predict some images again; tables and the page take
less than the queue does, and are made where Snakemake runs.
"""

from cliptrase.publish import OVERVIEW, chart_names, has_overview

PUBLISHING = CODE(markers.publishing())


rule render_tables:
    input:
        passes=expand(rules.evaluate_pass.output, name=PASSES),
        conf=pipeline.table_files(PLAN),
        code=PUBLISHING,
        marker=lambda wildcards: markers.tables(SUITE),
    output:
        expand(
            "results/{suite}/tables/{table}.{kind}",
            suite=SUITE,
            table=PLAN.tables,
            kind=["csv", "md", "tex"],
        ),
    log:
        f"results/logs/{SUITE}/render_tables.log",
    localrule: True
    conda:
        "../../environment.yml"
    threads: ONE_CORE
    message:
        f"render {errors.counted(len(PLAN.tables), 'table')} → results/{SUITE}/tables"
    shell:
        f"python -m cliptrase.publish tables {SUITE_WORD}{ONLY} > {{log:q}} 2>&1"


rule draw_figures:
    input:
        passes=expand(rules.evaluate_pass.output, name=PASSES),
        conf=pipeline.table_files(PLAN),
        code=PUBLISHING,
        marker=lambda wildcards: markers.figures(SUITE),
    output:
        expand(
            "results/{suite}/figures/{figure}.{kind}",
            suite=SUITE,
            figure=chart_names(PLAN),
            kind=["svg", "png"],
        ),
        [f"results/{SUITE}/figures/{OVERVIEW}.npz"] * has_overview(PLAN),
    log:
        f"results/logs/{SUITE}/draw_figures.log",
    conda:
        "../../environment.yml"
    threads: ONE_CORE
    message:
        f"draw figures → results/{SUITE}/figures"
    shell:
        f"python -m cliptrase.publish figures {SUITE_WORD} > {{log:q}} 2>&1"


# Only where the suite names a table of pictures; the page shows why a benchmark has none.
PICTURES = [f"results/{SUITE}/pictures/kept.json"] if PLAN.pictures else []


rule keep_pictures:
    input:
        passes=expand(rules.evaluate_pass.output, name=PASSES),
        conf=pipeline.table_files(PLAN),
        code=PUBLISHING,
        marker=lambda wildcards: markers.pictures(SUITE),
    output:
        f"results/{SUITE}/pictures/kept.json",
    log:
        f"results/logs/{SUITE}/keep_pictures.log",
    conda:
        "../../environment.yml"
    threads: ONE_CORE
    message:
        "keep the pictures of the page → {output}"
    shell:
        f"python -m cliptrase.publish pictures {SUITE_WORD}{ONLY} > {{log:q}} 2>&1"


rule write_page:
    input:
        passes=expand(rules.evaluate_pass.output, name=PASSES),
        tables=rules.render_tables.output,
        pictures=PICTURES,
        conf=pipeline.table_files(PLAN),
        files=pipeline.page_files(),
        code=PUBLISHING,
        marker=lambda wildcards: markers.page(SUITE),
    output:
        f"results/{SUITE}/index.html",
    log:
        f"results/logs/{SUITE}/write_page.log",
    localrule: True
    conda:
        "../../environment.yml"
    threads: ONE_CORE
    message:
        "write the page of the suite → {output}"
    shell:
        f"python -m cliptrase.publish page {SUITE_WORD}{ONLY} > {{log:q}} 2>&1"


# No run is an input: it renders what there is, leaves the rest empty with its reason, and starts
# nothing. That the touched file is removed (onsuccess) lets both spellings work every time.
rule regenerate_paper_tables:
    output:
        touch("regenerate-paper-tables"),
    log:
        f"results/logs/{SUITE}/regenerate_paper_tables.log",
    localrule: True
    conda:
        "../../environment.yml"
    threads: ONE_CORE
    message:
        f"render what there is of {errors.counted(len(PLAN.tables), 'table')} of suite {SUITE}"
        f" (another: --config suite=NAME) → results/{SUITE}/tables"
    shell:
        f"python -m cliptrase.publish tables {SUITE_WORD}{ONLY} 2>&1 | tee {{log:q}}"

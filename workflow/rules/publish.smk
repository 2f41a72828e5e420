"""Runs, tables and the page → W&B, from files alone; a W&B that fails costs a line in the log, no more."""


rule publish_runs:
    input:
        passes=expand(rules.evaluate_pass.output, name=PASSES),
        tables=rules.render_tables.output,
        figures=rules.draw_figures.output,
        page=rules.write_page.output,
        marker=lambda wildcards: markers.wandb(SUITE),
    output:
        # Updated, not made anew: it remembers what was published.
        update(f"results/{SUITE}/wandb/ledger.json"),
    log:
        f"results/logs/{SUITE}/publish_runs.log",
    localrule: True
    conda:
        "../../environment.yml"
    threads: ONE_CORE
    message:
        "publish runs, tables and the page → {output}"
    shell:
        f"python -m cliptrase.publish wandb {SUITE_WORD} tracking.mode={SETTINGS.tracking}"
        " > {log:q} 2>&1 && (grep '^warning: W&B: ' {log:q} >&2 || true)"

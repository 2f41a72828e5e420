"""In place of san.smk where the experiment cannot be read: Figure 8 is refused, and nothing else is."""

@errors.exit_on_user_error
def refuse_figure_8(wildcards):
    raise SAN_FAULT


rule fig8:
    input:
        refuse_figure_8,

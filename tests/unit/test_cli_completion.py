"""`cliptrase --print-completion`: the script completes in a real shell."""

import shutil
import subprocess

import pytest

from cliptrase import cli, plan
from cliptrase.data.fetch.sources import read_sources

# How bash calls the function that completes: the words so far, and the number of the last
COMPLETE = """
source {script}
COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
function=$(complete -p cliptrase | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function cliptrase "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
echo "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def completed(empty, capsys):
    """completed("cliptrase show s"): what bash offers for the last word."""
    cli.main(["--print-completion", "bash"])
    script = empty / "script"
    script.write_text(capsys.readouterr().out)

    def offered(line):
        words = " ".join(f"'{word}'" for word in line.split(" "))
        program = COMPLETE.format(script=script, words=words)
        done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
        assert not done.stderr
        return done.stdout.split()

    return offered


def test_commands_options_and_words(completed):
    assert {*cli.OWN, *cli.HANDED_ON} <= {*completed("cliptrase ")}
    assert completed("cliptrase re") == ["repeat"]
    assert completed("cliptrase list m") == ["methods", "models"]
    assert completed("cliptrase clean --") == ["--help", "--results", "--keep", "--yes", "--json"]
    assert sorted(completed("cliptrase estimate ")) == plan.suites()
    assert completed("cliptrase estimate --d") == ["--device"]
    assert {"--label-maps", "--results"} <= {*completed("cliptrase figures --")}
    datasets = {"shapes", "shapes_clean", *read_sources().datasets}
    assert {*completed("cliptrase prepare ")} == datasets


def test_names_of_runs(completed, empty):
    assert completed("cliptrase show s") == []
    names = ["shapes.clip.0123456789", "shapes.sclip.abcdef0123"]
    for each in names:
        (empty / "results" / "runs" / each).mkdir(parents=True)
    assert completed("cliptrase show s") == names
    assert completed("cliptrase repeat shapes.s") == names[1:]
    assert completed(f"cliptrase compare {names[0]} shapes.s") == names[1:]


def test_of_zsh(capsys):
    cli.main(["--print-completion", "zsh"])
    script = capsys.readouterr().out
    assert script.startswith("#compdef cliptrase\n") and "ls results/runs" in script
    if shell := shutil.which("zsh"):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_another_shell_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--print-completion", "csh"])
    err = capsys.readouterr().err
    assert ended.value.code == 2 and "invalid choice: 'csh'" in err and err.count("\n") == 1

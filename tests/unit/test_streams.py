"""What is printed where stdout is closed, full, or knows no letter outside ASCII."""

import os
import subprocess
import sys

import pytest

from cliptrase.errors import UserError, exit_on_user_error, is_read

COMMANDS = [
    ["cliptrase.cli", "plan", "paper"],
    ["cliptrase.cli", "--help"],
    ["cliptrase.cli", "verify", "--quick", "--data", "nowhere"],
    ["cliptrase.evaluate", "--cfg", "job", "benchmark=shapes"],
    ["cliptrase.evaluate.planned", "--help"],
    ["cliptrase.publish", "tables", "--help"],
    ["cliptrase.data.fetch.download", "--help"],
    ["cliptrase.data.make.prepare", "--help"],
    ["cliptrase.model.receipt", "--help"],
]


def started(command, redirect, **environment):
    script = f'"$0" -m "$@" {redirect}'
    words = ["bash", "-c", script, sys.executable, *command]
    return subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_a_full_stdout_is_one_message(command):
    done = started(command, ">/dev/full")
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith("error: standard output: cannot be written (No space left on")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("redirect", [">&-", ">&- 2>&-", "| head -1; exit ${PIPESTATUS[0]}"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_stdout_is_a_quiet_end(redirect, unbuffered):
    done = started(COMMANDS[0], redirect, PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in ("", "pass\trun\tbenchmark\tmethod\timage_size\n")


def test_stderr_may_be_closed_or_full():
    for redirect in ("2>&-", "2>/dev/full"):
        done = started(["cliptrase.cli", "plan", "nothing"], redirect)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_an_interrupted_command_is_interrupted_with_a_full_stdout_too(tmp_path):
    (tmp_path / "stop.py").write_text(
        "from cliptrase.errors import exit_on_user_error\n"
        "@exit_on_user_error\n"
        "def main():\n"
        "    print('half')\n"
        "    raise KeyboardInterrupt\n"
        "main()\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = started(["stop"], ">/dev/full", PYTHONPATH=path)
    assert done.returncode == 130 and "No space left" in done.stderr


def test_what_a_log_says_cannot_steer_a_terminal():
    words = "start_log('warning: %(message)s'); logging.warning('a\\x1b[2Jb'); logging.info('c')"
    code = f"import logging; from cliptrase.errors import start_log; {words}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "warning: a\\x1b[2Jb\n"


def test_what_a_terminal_cannot_show_is_escaped(tmp_path):
    (tmp_path / "print.py").write_text(
        "from cliptrase.errors import exit_on_user_error\n"
        "exit_on_user_error(print)('60 × 40 猫 caf\\udce9')\n"
    )
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = started(
        ["print"], "", **ascii_only | {"PYTHONPATH": f"{tmp_path}:{ascii_only['PYTHONPATH']}"}
    )
    assert (done.stdout, done.stderr) == ("60 \\xd7 40 \\u732b caf\\udce9\n", "")


def test_work_goes_on_when_nobody_reads_any_more():
    script = (
        "import sys\n"
        "from cliptrase.errors import exit_on_user_error, is_read\n"
        "@exit_on_user_error\n"
        "def main():\n"
        "    heard = [is_read()]\n"
        "    for number in range(3):\n"
        "        print(number, flush=True)\n"
        "        sys.stdin.readline()\n"
        "    heard.append(is_read())\n"
        "    print('done', heard, file=sys.stderr)\n"
        "main()\n"
    )
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script], text=True, **piped) as process:
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        process.stdin.write("\n" * 3)
        process.stdin.close()
        assert process.stderr.read() == "done [True, False]\n"
    assert process.returncode == 0


def test_the_message_of_the_command_is_said_as_well(capsys):
    @exit_on_user_error
    def main():
        raise UserError("no such file")

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1 and capsys.readouterr().err == "error: no such file\n"
    assert is_read()

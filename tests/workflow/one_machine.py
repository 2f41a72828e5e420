"""A SLURM of this machine alone, from Debian's slurm-wlm and munge, in a folder of its own.

Its daemons are children of the process that starts them and end with it. A SLURM that runs already
is left alone. Its machine says that it has many cores, so that the jobs of profiles/slurm fit.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # daemons are not on the PATH of every user
CORES, MEGABYTES = 64, 500_000
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={megabytes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """Start it; yields the environment in which sbatch and the others talk to it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp")))
        folder.chmod(0o755)  # munged takes no socket in a folder that others cannot enter
        environment = _configure(folder)
        for command in (
            ["munged", "--foreground", "--force", f"--key-file={folder}/key/munge.key",
             f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
             f"--seed-file={folder}/munged.seed", f"--log-file={folder}/munged.log"],
            ["slurmctld", "-D"],
            ["slurmd", "-D", "-N", _host()],
        ):  # fmt: skip
            daemon = _start(command, environment, folder)
            stack.callback(_end, daemon)
            if command[0] == "munged":
                _until((folder / "munge.socket").exists, daemon, folder)
        _until(lambda: b"idle" in _output(["sinfo", "-h"], environment), daemon, folder)
        stack.callback(_cancel_all, environment)
        yield environment


def jobs(environment: dict[str, str], states: str = "all") -> dict[str, str]:
    """The jobs in the queue that are in such a state: their number → their comment."""
    said = _output(["squeue", "-h", "-t", states, "-o", "%i %k"], environment).decode()
    return dict(line.split(" ", 1) for line in said.splitlines())


def _cancel_all(environment: dict[str, str]) -> None:
    _output(["scancel", "--me"], environment)
    patience = time.monotonic() + 60
    while jobs(environment, "running,completing") and time.monotonic() < patience:
        time.sleep(0.5)


def _configure(folder: Path) -> dict[str, str]:
    for name in ("key", "state", "spool", "bin"):
        (folder / name).mkdir(mode=0o700)
    key = folder / "key" / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    file = folder / "slurm.conf"
    text = CONFIGURATION.format(
        host=_host(), user=pwd.getpwuid(os.getuid()).pw_name, folder=folder, ports=_free_ports(),
        cores=CORES, megabytes=MEGABYTES,
    )  # fmt: skip
    file.write_text(text)
    # Snakemake's plugin takes SLURM_CONF from srun, which looks in /etc/slurm then.
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={file} exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    return os.environ | {"SLURM_CONF": str(file), "PATH": f"{folder / 'bin'}:{PATH}"}


def missing() -> list[str]:
    """Those of its programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


def _host() -> str:
    return socket.gethostname().split(".")[0]


def _free_ports() -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _start(command: list[str], environment: dict[str, str], folder: Path) -> subprocess.Popen:
    program = shutil.which(command[0], path=PATH) or command[0]
    with open(folder / f"{command[0]}.log", "ab") as log:
        return subprocess.Popen([program, *command[1:]], env=environment, stdout=log, stderr=log)


def _end(daemon: subprocess.Popen) -> None:
    daemon.terminate()
    try:
        daemon.wait(timeout=20)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _output(command: list[str], environment: dict[str, str]) -> bytes:
    return subprocess.run(command, env=environment, capture_output=True, timeout=60).stdout


def _until(ready, daemon: subprocess.Popen, folder: Path) -> None:
    patience = time.monotonic() + 60
    while not ready():
        if daemon.poll() is not None or time.monotonic() > patience:
            logs = [f"{file.name}:\n{file.read_text()}" for file in folder.glob("*.log")]
            raise RuntimeError("SLURM does not start\n" + "\n".join(logs))
        time.sleep(0.2)

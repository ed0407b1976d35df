"""What is asked of a process that is measured, and the environment of all that speak to a queue here."""

import os
import pathlib

TICKS = os.sysconf("SC_CLK_TCK")
# Nothing of the machine's own, and no look for a role of a virtual machine.
ENV = os.environ | {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "eu-central-1",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def cpu(pid):
    """Seconds of user and system time."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid, name="VmHWM"):
    """MiB: the greatest that it had, or of another name in its status."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(name))

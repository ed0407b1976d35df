"""What systemd says of the unit that is handed out."""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

from lib.cases import case, equal, run
from lib.node import binary

UNIT = pathlib.Path(__file__).parents[2] / "packaging/postrider.service"
INSTALLED = "/usr/local/bin/postrider"
# Of 100: systemd's own measure, where 100 is a service that may do everything. One point of room.
MOST_EXPOSURE = "15"


def analyzed(*arguments, unit):
    with tempfile.TemporaryDirectory(prefix="postrider-unit-") as folder:
        path = pathlib.Path(folder) / UNIT.name
        path.write_text(unit)
        command = ["systemd-analyze", *arguments, str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"SYSTEMD_COLORS": "0"})


def with_this_binary():
    """The binary is not installed here."""
    return UNIT.read_text().replace(INSTALLED, binary())


@case
def unit_has_no_fault_that_systemd_knows():
    """systemd-analyze verify"""
    done = analyzed("verify", "--man=no", unit=with_this_binary())
    equal((done.returncode, done.stdout + done.stderr), (0, ""), "status and words")


@case
def verify_would_find_a_fault():
    """An option that does not exist is told, so that silence says something."""
    done = analyzed("verify", "--man=no", unit=with_this_binary().replace("[Service]", "[Service]\nNoSuchOption=1"))
    assert "NoSuchOption" in done.stdout + done.stderr, done


@case
def unit_is_shut_in():
    """systemd-analyze security"""
    done = analyzed("security", "--offline=true", f"--threshold={MOST_EXPOSURE}", unit=with_this_binary())
    last = (done.stdout + done.stderr).strip().splitlines()[-1:]
    equal(done.returncode, 0, f"status ({last})")


@case
def unit_starts_what_the_binary_understands():
    """Its command lines, with a configuration of its own."""
    lines = re.findall(r"^Exec(?:Start|StartPre)=(.*)$", UNIT.read_text(), re.M)
    equal(len(lines), 2, "command lines")
    with tempfile.TemporaryDirectory(prefix="postrider-unit-") as folder:
        config = pathlib.Path(folder) / "postrider.yaml"
        config.write_text("auth: { jwt: { hmac_secret: a-secret-of-more-than-enough-bytes } }\n")
        for line in lines:
            program, *arguments = shlex.split(line.replace("/etc/postrider/postrider.yaml", str(config)))
            equal(program, INSTALLED, "program")
            # What a command does not understand it refuses before it does anything, its help aside.
            done = subprocess.run([binary(), *arguments, "--help"], capture_output=True, text=True, check=False, timeout=20)
            equal(done.returncode, 0, f"status of {line}: {done.stderr}")
        check = next(shlex.split(line) for line in lines if "config check" in line)
        arguments = [str(config) if word.endswith(".yaml") else word for word in check[1:]]
        done = subprocess.run([binary(), *arguments], capture_output=True, text=True, check=False, timeout=20, cwd=folder)
        equal(done.returncode, 0, f"config check: {done.stderr}")


if __name__ == "__main__":
    sys.exit(run())

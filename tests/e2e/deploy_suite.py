"""The files under deploy/: what they say is checked by the programs that they are for, but for Docker, which is not here."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

from lib.cases import case, equal, run
from lib.node import KEY, Node, binary

COMPOSE = pathlib.Path(__file__).parents[2] / "deploy/compose"
# What an operator has to give; anything else must have its value in the file.
GIVEN = {"POSTRIDER_HMAC_SECRET": "0123456789abcdef0123456789abcdef", "POSTRIDER_API_KEY": "a-key-of-enough-characters-for-it"}
# As packaging/Dockerfile has them.
OF_THE_IMAGE = {"POSTRIDER_HTTP__LISTEN": "0.0.0.0:8080", "POSTRIDER_OPS__LISTEN": "0.0.0.0:9090"}


def document():
    return yaml.safe_load((COMPOSE / "redis.yaml").read_text())


def nodes():
    return {name: service for name, service in document()["services"].items() if name.startswith("node-")}


def substituted(text):
    """`${NAME:?why}`, as compose does it."""
    def value(found):
        name, _, why = found[1].partition(":?")
        assert why, f"{found[0]} does not say what is missing"
        return GIVEN[name]

    return re.sub(r"\$\{([^}]*)\}", value, text)


def checked(environment):
    """What `postrider config check` says of these variables alone."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("POSTRIDER_")}
    done = subprocess.run(
        [binary(), "config", "check", "--json"], env=clean | OF_THE_IMAGE | environment,
        capture_output=True, text=True, timeout=20, check=False,
    )
    return done.returncode, done.stdout + done.stderr


@case
def every_setting_of_a_node_is_one():
    found = nodes()
    equal(sorted(found), ["node-1", "node-2", "node-3"], "nodes")
    for name, node in found.items():
        environment = {key: substituted(value) for key, value in node["environment"].items()}
        status, said = checked(environment)
        equal(status, 0, f"config check of {name} ({said})")
        assert '"warnings":[]' in said.replace(" ", ""), f"{name}: {said}"
        equal(environment["POSTRIDER_ENGINE__TYPE"], "redis", "engine")


@case
def the_check_would_find_a_wrong_one():
    environment = {key: substituted(value) for key, value in nodes()["node-1"]["environment"].items()}
    status, said = checked(environment | {"POSTRIDER_ENGINE__REDIS__DURABILITY": "mostly"})
    equal(status, 2, f"status ({said})")
    status, said = checked(environment | {"POSTRIDER_ENGINE__REDIS__DURABLE": "aof"})
    assert '"warnings":[]' not in said.replace(" ", ""), f"no word of an unknown variable: {said}"


@case
def services_name_each_other_rightly():
    services = document()["services"]
    volumes, networks = document()["volumes"], document()["networks"]
    for name, service in services.items():
        needed = service.get("depends_on", {})
        assert set(needed) <= set(services), f"{name} depends on {set(needed) - set(services)}"
        assert set(service["networks"]) <= set(networks), name
        for mount in service.get("volumes", []):
            source, target = mount.split(":")[:2]
            assert target.startswith("/"), mount
            known = (COMPOSE / source).is_file() if source.startswith(".") else source in volumes
            assert known, f"{name} mounts {source}, which is nowhere"
        if "build" in service:
            context = (COMPOSE / service["build"]["context"]).resolve()
            assert (context / service["build"]["dockerfile"]).is_file(), f"{name} has no Dockerfile"
    redis = services["redis"]["command"]
    assert nodes()["node-1"]["environment"]["POSTRIDER_ENGINE__REDIS__URL"] == "redis://redis:6379"
    # What `durability: aof` asks of Redis, and what keeps it from dropping notifications when memory is short.
    for option, value in [("--appendonly", "yes"), ("--appendfsync", "always"), ("--maxmemory-policy", "noeviction")]:
        equal(redis[redis.index(option) + 1], value, option)


@case
def the_command_at_its_head_publishes():
    found = [line.removeprefix("#").strip() for line in (COMPOSE / "redis.yaml").read_text().splitlines() if "# " in line and "curl " in line]
    equal(len(found), 1, f"commands ({found})")
    with Node() as node:
        command = found[0].replace("http://127.0.0.1:8080", node.http)
        assert node.http in command, f"it is for another address: {command}"
        done = subprocess.run(
            ["sh", "-c", f"{command} --silent --fail-with-body"], env=os.environ | {"POSTRIDER_API_KEY": KEY},
            capture_output=True, text=True, timeout=20, check=False,
        )
        equal(done.returncode, 0, f"{command} ({done.stdout}{done.stderr})")


@case
def haproxy_takes_its_file():
    text = (COMPOSE / "haproxy.cfg").read_text()
    done = subprocess.run(
        ["haproxy", "-c", "-f", COMPOSE / "haproxy.cfg"], capture_output=True, text=True, timeout=20, check=False,
    )
    said = done.stdout + done.stderr
    equal(done.returncode, 0, f"haproxy -c ({said})")
    # Names of containers, which only Docker's resolver knows.
    warnings = [line for line in said.splitlines() if "WARNING" in line and "could not resolve address" not in line]
    equal(warnings, [], "warnings")
    for name in nodes():
        assert f"server {name} {name}:8080 check port 9090" in text, f"haproxy.cfg does not have {name}"
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as wrong:
        wrong.write(text.replace("balance leastconn", "balance fairly"))
        wrong.flush()
        done = subprocess.run(["haproxy", "-c", "-f", wrong.name], capture_output=True, timeout=20, check=False)
        assert done.returncode != 0, "haproxy takes anything"


if __name__ == "__main__":
    sys.exit(run())

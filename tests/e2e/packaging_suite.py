"""What is built, installed and handed out, without an engine for containers and without a long build."""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
import tomllib

from lib import cases
from lib.cases import case, equal, run
from lib.node import binary

ROOT = pathlib.Path(__file__).parents[2]
DOCKERFILE = ROOT / "packaging/Dockerfile"
CARGO = os.environ.get("CARGO", "cargo")
# `cargo install` links the binary anew.
cases.CASE_SECONDS = 300
COMPLETIONS = {"bash": "completions/postrider", "zsh": "completions/_postrider", "fish": "completions/postrider.fish"}


def said(*command, status=0, **more):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **more)
    equal(done.returncode, status, f"status of {shlex.join(map(str, command))} ({done.stdout}{done.stderr})")
    return done.stdout + done.stderr


def instructions():
    """Each with its words, lines joined, comments off."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split()[1:]) for line in joined if line.strip()]


def of(name):
    return [words for instruction, words in instructions() if instruction == name]


def manifest(path="Cargo.toml"):
    return tomllib.loads((ROOT / path).read_text())


@case
def dockerfile_has_no_fault_that_hadolint_knows():
    """hadolint"""
    said(pathlib.Path(sys.executable).with_name("hadolint"), DOCKERFILE)


@case
def dockerfile_builds_what_the_workspace_has():
    """The package, its binary and the profile that it builds."""
    (build,) = [words for words in of("RUN") if words[:2] == ["cargo", "build"]]
    option = {name: build[build.index(name) + 1] for name in ("--package", "--bin", "--profile")}
    packages = {manifest(path.relative_to(ROOT))["package"]["name"]: path for path in ROOT.glob("crates/*/Cargo.toml")}
    of_package = manifest(packages[option["--package"]].relative_to(ROOT))
    names = [entry["name"] for entry in of_package.get("bin", [])] or [option["--package"]]
    assert option["--bin"] in names, names
    assert option["--profile"] in manifest()["profile"], option
    assert "--locked" in build and (ROOT / "Cargo.lock").exists()


@case
def dockerfile_has_a_compiler_that_is_new_enough():
    """Not older than `rust-version`."""
    rust = next(words[0] for words in of("FROM") if words[0].startswith("rust:"))
    version = tuple(map(int, re.match(r"rust:(\d+)\.(\d+)", rust).groups()))
    wanted = tuple(map(int, manifest()["workspace"]["package"]["rust-version"].split(".")[:2]))
    assert version >= wanted, f"{version} is older than {wanted}"


@case
def dockerfile_copies_what_is_there():
    """From the tree, and from the stage that makes it."""
    stages = {words[2]: words[0] for words in of("FROM") if len(words) == 3 and words[1].upper() == "AS"}
    copied = of("COPY")
    for words in copied:
        sources = [word for word in words if not word.startswith("--")][:-1]
        stage = next((word.removeprefix("--from=") for word in words if word.startswith("--from=")), None)
        if stage is None:
            for source in sources:
                assert (ROOT / source).exists(), source
        else:
            assert stage in stages, stage
            equal(sources, ["/src/target/dist/postrider"], "what is copied from the build")
    assert len(copied) == 2, copied


@case
def dockerignore_keeps_out_only_what_a_build_does_not_need():
    """No pattern leaves out a file that is under version control, but for those of the benchmarks' results and of fuzzing."""
    patterns = [
        line for line in (ROOT / "packaging/Dockerfile.dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    equal(sorted(patterns), ["/.git", "/bench/results", "/fuzz/target", "/target"], "patterns")


@case
def dockerfile_sets_keys_that_the_server_knows():
    """Its environment is a good configuration."""
    pairs = dict(word.split("=", 1) for words in of("ENV") for word in words)
    assert all(name.startswith("POSTRIDER_") for name in pairs), pairs
    with tempfile.TemporaryDirectory() as folder:
        environment = {"PATH": os.environ["PATH"], "POSTRIDER_AUTH__JWT__HMAC_SECRET": "x" * 32} | pairs
        told = said(binary(), "config", "show", env=environment, cwd=folder)
    assert "no configuration key" not in told, told
    for name, value in pairs.items():
        assert value in told, f"{name}={value} is not in force:\n{told}"
    ports = {value.rpartition(":")[2] for name, value in pairs.items() if name.endswith("LISTEN")}
    equal(set(sum(of("EXPOSE"), [])), ports, "exposed ports")


@case
def cargo_install_gives_a_binary_that_runs():
    """As the documentation says, but unoptimised and into another folder."""
    with tempfile.TemporaryDirectory(prefix="postrider-install-") as folder:
        said(
            CARGO, "install", "--locked", "--debug", "--path", "crates/cli", "--root", folder,
            "--target-dir", os.environ.get("POSTRIDER_TARGET", "target"), "--no-track", cwd=ROOT,
        )
        installed = pathlib.Path(folder) / "bin/postrider"
        version = manifest()["workspace"]["package"]["version"]
        equal(said(installed, "--version").strip(), f"postrider {version}", "version")
        equal([path.name for path in installed.parent.iterdir()], ["postrider"], "what is installed")


@case
def archive_has_all_that_is_handed_out():
    """`cargo xtask dist`, of the binary under test."""
    environment = {name: value for name, value in os.environ.items() if name != "POSTRIDER_BIN"}
    told = said(os.environ["POSTRIDER_XTASK"], "dist", "--binary", binary(), env=environment, cwd=ROOT)
    archive = pathlib.Path(re.search(r"^archive +(\S+\.tar\.gz)", told, re.M).group(1))
    with tarfile.open(archive) as tar:
        members = {member.name.partition("/")[2]: member for member in tar.getmembers()}
        read = {name: tar.extractfile(member).read() for name, member in members.items() if member.isfile()}
        equal({(member.uid, member.gid) for member in members.values()}, {(0, 0)}, "owners")
    assert members["postrider"].mode & 0o111 == 0o111, oct(members["postrider"].mode)
    assert read["postrider"] == pathlib.Path(binary()).read_bytes(), "another binary is in it"
    for name in ("README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"):
        assert read[name] == (ROOT / name).read_bytes(), name
    for name in ("packaging/postrider.service", "docs/configuration.md"):
        assert read[pathlib.Path(name).name] == (ROOT / name).read_bytes(), name
    for shell, name in COMPLETIONS.items():
        assert read[name].decode() == said(binary(), "completions", shell), name
    help_text = said(binary(), "--help")
    commands = re.findall(r"^  ([a-z-]+)  ", help_text.partition("Commands:")[2].partition("Options:")[0], re.M)
    pages = {name.removeprefix("man/man1/") for name in read if name.startswith("man/")}
    for command in (name for name in commands if name != "help"):
        assert any(page.startswith(f"postrider-{command}") for page in pages), f"no page of {command}: {sorted(pages)}"
    assert read["man/man1/postrider.1"].startswith((b".ie", b".TH")), read["man/man1/postrider.1"][:40]


if __name__ == "__main__":
    sys.exit(run())

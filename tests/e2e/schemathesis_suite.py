"""Schemathesis: requests made from the description of the interface, right ones and wrong ones, and what it links to;
no answer may be a 5xx, or one that the description does not have.

POSTRIDER_SECONDS=900 goes on for so long, with other requests each time; without it they are the same each time.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml

from lib.node import Node

HERE = pathlib.Path(__file__).parent
# Requests of each operation by chance, beside those that follow from the description alone.
EXAMPLES = "30"
SEED = "1"
LIMIT_SECONDS = 150
OPS = "Operate"
# All topics, so that what is refused is refused for another reason.
SETTINGS = {"topics": {"open": ["*"]}}


def told(is_good, name, words=""):
    """One case; whether it passed."""
    print(f"{'ok  ' if is_good else 'FAIL'} {name}" + (f"\n{words}" if words else ""), flush=True)
    return is_good


def schemathesis(name, document, base, arguments, seconds):
    """One run; for each operation whether all went well."""
    with tempfile.TemporaryDirectory(prefix="postrider-schemathesis-") as folder:
        report = pathlib.Path(folder) / "report.xml"
        command = [
            pathlib.Path(sys.executable).with_name("schemathesis"), "--no-color",
            "--config-file", HERE / "schemathesis.toml",
            "run", document, "--url", base, "--report-junit-path", report, *arguments,
        ]
        command += ["--max-time", str(seconds)] if seconds else ["--max-examples", EXAMPLES, "--seed", SEED]
        hooks = {"SCHEMATHESIS_HOOKS": str(HERE / "schemathesis_hooks.py"), "PYTHONPATH": str(HERE)}
        # In a folder of its own: what it remembers of other runs would make this one differ from them.
        done = subprocess.run(
            command, cwd=folder, env=os.environ | hooks, capture_output=True, text=True, check=False,
            timeout=LIMIT_SECONDS + 2 * seconds,
        )
        cases = list(xml.parse(report).getroot().iter("testcase")) if report.exists() else []
    results = []
    for case in cases:
        faults = [fault for fault in case if fault.tag in ("failure", "error")]
        words = "\n".join(fault.text or fault.get("message", "") for fault in faults)
        results.append(told(not faults, f"{name}: {case.get('name')}", words))
    if not cases or (done.returncode and all(results)):
        ends = f"exit status {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
        results.append(told(False, f"{name}: the run itself", ends))
    told_by_it = [line.strip() for line in done.stdout.splitlines() if "generated" in line or line.startswith("Seed")]
    print(f"     {', '.join(told_by_it)}", flush=True)
    return results


def main():
    seconds = int(os.environ.get("POSTRIDER_SECONDS", "0"))
    with Node(SETTINGS) as node:
        document = f"{node.url}/openapi.json"
        results = schemathesis("public", document, node.url, ["--exclude-tag", OPS], seconds)
        # Nothing is linked from one operation to another there.
        alone = ["--include-tag", OPS, "--phases", "examples,coverage,fuzzing"]
        results += schemathesis("ops", document, f"http://{node.ops}", alone, min(seconds, 60))
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed", flush=True)
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())

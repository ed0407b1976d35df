"""Autobahn's fuzzing client against the WebSocket endpoint, every case but compression, judged by conformance.txt.

Needs the paths of `wstest` in POSTRIDER_WSTEST and of the echo node in POSTRIDER_ECHO. Arguments choose cases, as Autobahn
writes them (`7.*`); without any, all run.
"""

import fnmatch
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

from lib.node import Node, token

EXPECTATIONS = pathlib.Path(__file__).parent / "conformance.txt"
LIMIT_SECONDS = 180
VERDICTS = ("OK", "NON-STRICT", "INFORMATIONAL")
# What a session says unasked, before anything else.
UNASKED = ("hello", "cursor")
CLOSE = "8"


def expectations():
    """(pattern, {kind: verdict or close code}) by line."""
    lines = []
    for line in EXPECTATIONS.read_text().splitlines():
        words = line.split()
        if words and not line.startswith("#"):
            pattern, echo, inbox = words[:3]
            lines.append((pattern, {"echo": echo, "inbox": inbox}))
    return lines


def call(node, path, method="GET"):
    request = urllib.request.Request(node.url + path, method=method, headers={"Authorization": f"Bearer {token('ada')}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def fuzz(node, cases, folder):
    """Runs the cases, one connection each; their reports."""
    # A ticket resumes a session as often as it likes, where a cursor is named: one URL does for all cases.
    ticket, cursor = call(node, "/v1/tickets", "POST")["ticket"], call(node, "/v1/inbox?wait=0")["cursor"]
    spec = {
        "outdir": str(folder / "reports"),
        "servers": [{"agent": "postrider", "url": f"ws://{node.http}/v1/inbox/ws?ticket={ticket}&cursor={cursor}"}],
        "cases": cases,
        "exclude-cases": ["12.*", "13.*"],
        "exclude-agent-cases": {},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [os.environ["POSTRIDER_WSTEST"], "-m", "fuzzingclient", "-s", str(folder / "spec.json")]
    with open(folder / "log", "wb") as log:
        subprocess.run(command, cwd=folder, stdout=log, stderr=log, timeout=LIMIT_SECONDS, check=True)
    index = json.loads((folder / "reports/index.json").read_text())["postrider"]
    return {case: json.loads((folder / "reports" / entry["reportfile"]).read_text()) for case, entry in index.items()}


def is_unasked(event):
    if event[0] != "message" or event[2]:
        return False
    try:
        return json.loads(event[1]).get("type") in UNASKED
    except (ValueError, AttributeError):
        return False


def verdict(report, kind):
    """Autobahn's verdict; for the inbox, on what is left without what a session says unasked."""
    if kind == "inbox" and report["behavior"] == "FAILED":
        received = [event for event in report["received"] if not is_unasked(event)]
        fitting = [name for name, expected in report["expected"].items() if expected == received]
        behavior = (fitting or ["FAILED"])[0]
    else:
        behavior = report["behavior"]
    close = report["behaviorClose"]
    return behavior if close in ("OK", behavior) else f"{behavior} (close: {close})"


def fault(report, kind, expected):
    """What is wrong with a case; None where nothing is."""
    closes = report["rxFrameStats"].get(CLOSE, 0)
    if closes > 1:
        return f"{closes} close frames came"
    found, code = verdict(report, kind), report["remoteCloseCode"]
    if expected in VERDICTS:
        return None if found == expected else f"{found}, closed with {code}, instead of {expected}: {report['result']}"
    if str(code) != expected:
        return f"closed with {code} ({found}) instead of {expected}"
    return None


def order(case):
    return [int(part) for part in case.split(".")]


def judge(kind, reports, lines):
    """Tells each case that is not as expected; how many are and are not."""
    passed = failed = 0
    tally = {}
    for case, report in sorted(reports.items(), key=lambda item: order(item[0])):
        expected = next((what[kind] for pattern, what in lines if fnmatch.fnmatchcase(case, pattern)), None)
        wrong = fault(report, kind, expected) if expected else "is not in conformance.txt"
        if wrong:
            failed += 1
            print(f"FAIL {kind} {case}: {wrong} ({report['description']})", flush=True)
        else:
            passed += 1
            tally[expected] = tally.get(expected, 0) + 1
    told = ", ".join(f"{count} {name}" if name in VERDICTS else f"{count} closed with {name}" for name, count in sorted(tally.items()))
    print(f"     {kind}: {len(reports)} cases: {told}", flush=True)
    return passed, failed


def main(cases):
    lines = expectations()
    passed = failed = 0
    for kind, variable in (("echo", "POSTRIDER_ECHO"), ("inbox", "POSTRIDER_BIN")):
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="postrider-autobahn-") as folder:
            with Node({"engine": {"type": "memory"}}, program=os.environ[variable]) as node:
                reports = fuzz(node, cases or ["*"], pathlib.Path(folder))
                # The node has to be as good as new after all of it.
                assert call(node, "/v1/inbox?wait=0")["notifications"] == []
                assert node.stop() == 0, "the node did not end well"
        good, bad = judge(kind, reports, lines)
        passed, failed = passed + good, failed + bad
        print(f"     {kind}: {time.monotonic() - started:.1f} s", flush=True)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

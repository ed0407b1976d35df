"""Postrider with the preset apigw-pusher against a straight asyncio pusher, each before a fresh stub of AWS's HTTP side, turn by turn.

Usage: run.py POSTRIDER STUB PYTHON [MESSAGES] [ROUNDS]; PYTHON has aioboto3. Prints messages a second, CPU seconds per million connections
that were notified, and the greatest memory. Each run ends by itself within 60 s.
"""

import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

from measured import ENV, cpu, memory

HERE = pathlib.Path(__file__).parent
LIMIT = 60


def stats(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=5) as answer:
        return json.load(answer)


def postrider(binary, endpoint, folder):
    sets = {
        "sources.requests.endpoint": endpoint,
        "sources.requests.workers": 8,
        "sources.requests.in_flight": 400,
        "channels.push.table_endpoint": endpoint,
        "http.listen": "127.0.0.1:0",
        "ops.listen": "127.0.0.1:0",
        "data_dir": folder,
        "auth.jwt.hmac_secret": "0" * 40,
        "log.level": "info",
    }
    own = {
        "APIGW_ENDPOINT": endpoint,
        "CONNECTIONS_TABLE_NAME": "connections",
        "SQS_QUEUE_URL": f"{endpoint}/000000000000/requests",
    }
    command = [binary, "serve", "--preset", "apigw-pusher"]
    for key, value in sets.items():
        command += ["--set", f"{key}={value}"]
    return command, ENV | own


def measure(name, stub, make, messages, rows, broadcasts, expected):
    with tempfile.TemporaryDirectory(prefix="postrider-bench-") as folder:
        served = subprocess.Popen([stub, str(messages), str(rows), str(broadcasts)], stdout=subprocess.PIPE, text=True)
        port = int(served.stdout.readline().split()[1])
        command, env = make(f"http://127.0.0.1:{port}", folder)
        with open(f"{folder}/log", "w") as log:
            pusher = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        try:
            end = time.monotonic() + LIMIT
            while (now := stats(port))["posted"] < expected or now["deleted"] < messages + broadcasts:
                if pusher.poll() is not None or time.monotonic() > end:
                    log = pathlib.Path(f"{folder}/log").read_text()[-2000:]
                    sys.exit(f"{name}: {now} of {expected}\n{log}")
                time.sleep(0.05)
            used, most = cpu(pusher.pid), memory(pusher.pid)
            rate = expected / now["seconds"]
            per_million = used / expected * 1e6
            print(f"{name:10} {rate:9.0f}/s {per_million:8.1f} CPU s per million {most:7.1f} MiB", flush=True)
        finally:
            for process in (pusher, served):
                process.send_signal(signal.SIGKILL)
                process.wait()


def main(binary, stub, python, messages=20_000, rounds=2):
    ways = {
        "postrider": lambda endpoint, folder: postrider(binary, endpoint, folder),
        "straight": lambda endpoint, folder: ([python, str(HERE / "straight.py"), endpoint, "8"], ENV),
    }
    for title, some, rows, all_ in (("one user each", int(messages), 10_000, 0), ("for everyone", 0, int(messages), 1)):
        print(title)
        for _ in range(int(rounds)):
            for name, make in ways.items():
                # The straight one is slower, and is given less.
                share = 1 if name == "postrider" else 4
                count, table = some // share, rows if some else rows // share
                expected = count if some else table
                measure(name, stub, make, count, table, all_, expected)


if __name__ == "__main__":
    main(*sys.argv[1:])

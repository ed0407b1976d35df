"""Postrider's own sessions, fed from SQS, against a straight asyncio server with clients of its own, each before the same queue and read by the same
listeners, turn by turn.

    sessions.py BIN PYTHON [--transport T]… [--queue stub|NAME=URL] [--share F] [--order NAME,NAME…] [--clients N] [--out FILE]

BIN has postrider, postrider-bench-pusher and postrider-bench-listeners; PYTHON has aioboto3, aiohttp and uvloop. `--queue` is the stub, or the
name of an emulator of SQS and its address, http://127.0.0.1:PORT; its queue is made and filled by boto3. F is the share of the usual messages that it
is given, for one that is slow. NAME of an order is `postrider` or `straight`. The server has core 0, all else core 1. Prints a line for each round and
appends it to FILE as JSON. Every round ends by itself.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid

from measured import ENV, cpu, memory

HERE = pathlib.Path(__file__).parent
SECRET = "a-secret-for-a-measurement-of-enough-bytes"
RECEIVERS = 8
# So long after the last delivery CPU is still counted, so that acknowledgements are paid for.
AFTER = 1.5
LIMIT = 60
# Name, messages, for one or all, a second. The first is for warming up.
STUB_ROUNDS = [
    ("warming up", 500, "one", 0),
    ("one user each", 10_000, "one", 0),
    ("one user each, 500/s", 2_000, "one", 500),
    ("everyone", 200, "all", 0),
    ("everyone, 10/s", 40, "all", 10),
]
EMULATOR_ROUNDS = [
    ("warming up", 200, "one", 0),
    ("one user each", 3_000, "one", 0),
    ("everyone", 100, "all", 0),
]
PATHS = {
    "postrider": {"long_poll": "/v1/inbox", "sse": "/v1/inbox/stream", "websocket": "/v1/inbox/ws"},
    "straight": {"long_poll": "/poll", "sse": "/sse", "websocket": "/ws"},
}


def part(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def token(user):
    message = part(b'{"alg":"HS256"}') + b"." + part(json.dumps({"sub": user, "exp": int(time.time()) + 3600}).encode())
    return (message + b"." + part(hmac.new(SECRET.encode(), message, hashlib.sha256).digest())).decode()


def start(command, core, **more):
    pin = lambda: os.sched_setaffinity(0, {core})  # noqa: E731
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENV, preexec_fn=pin, **more)


def end(process):
    process.kill()
    process.wait()


class Stub:
    """The queue of the stub; what is put in is given out when it is asked for."""

    def __init__(self, binaries, clients):
        self.process = start([f"{binaries}/postrider-bench-pusher", "0", str(clients)], 1)
        self.pid = self.process.pid
        self.endpoint = f"http://127.0.0.1:{self.process.stdout.readline().split()[1]}"
        self.url = f"{self.endpoint}/000000000000/requests"
        self.rounds = STUB_ROUNDS
        self.sent = 0

    def ask(self, path):
        with urllib.request.urlopen(self.endpoint + path, timeout=5) as answer:
            return answer.read()

    def send(self, first, count, who, rate):
        self.sent += count
        self.ask(f"/put?{who}={count}&rate={rate}")

    def wait_until_empty(self):
        until = time.monotonic() + LIMIT
        while json.loads(self.ask("/stats"))["deleted"] < self.sent:
            if time.monotonic() > until:
                sys.exit("not all was deleted")
            time.sleep(0.02)

    def end(self):
        end(self.process)


class Emulator:
    """A queue of an emulator; boto3 sends, as fast as it is taken."""

    def __init__(self, endpoint, python, clients, share):
        self.endpoint, self.python, self.clients = endpoint, python, clients
        self.pid = owner(endpoint)
        self.rounds = [(title, max(1, round(count * share)), who, rate) for title, count, who, rate in EMULATOR_ROUNDS]
        self.sender = start([python, str(HERE / "sender.py"), endpoint, str(uuid.uuid4()), str(clients)], 1, stdin=subprocess.PIPE)
        self.url = self.sender.stdout.readline().strip()

    def ask(self, *words):
        print(*words, file=self.sender.stdin, flush=True)
        return self.sender.stdout.readline()

    def send(self, first, count, who, rate):
        self.ask("send", first, count, who)

    def wait_until_empty(self):
        if not self.ask("empty", LIMIT).startswith("yes"):
            sys.exit("not all was deleted")

    def end(self):
        end(self.sender)


def owner(endpoint):
    """The process that listens there."""
    port = endpoint.rsplit(":", 1)[1]
    said = subprocess.run(["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
    return int(said.split("pid=")[1].split(",")[0])


def postrider(binaries, python, queue, folder):
    sets = {
        "sources.requests.type": "sqs",
        "sources.requests.endpoint": queue.endpoint,
        "sources.requests.queue_url": queue.url,
        "sources.requests.decoder": "pusher",
        "sources.requests.broadcast": "true",
        "sources.requests.workers": RECEIVERS,
        "http.listen": "127.0.0.1:0",
        "ops.listen": "127.0.0.1:0",
        "data_dir": f"{folder}/data",
        "auth.jwt.hmac_secret": SECRET,
        "log.level": "warn",
    }
    command = [f"{binaries}/postrider", "serve", "--log-format", "json"]
    for key, value in sets.items():
        command += ["--set", f"{key}={value}"]
    process = start(command, 0)
    return process, json.loads(process.stdout.readline())["http"]


def straight(binaries, python, queue, folder):
    process = start([python, str(HERE / "straight_sessions.py"), queue.endpoint, queue.url, str(RECEIVERS)], 0)
    return process, f"127.0.0.1:{process.stdout.readline().split()[1]}"


def clients_file(name, transport, clients, folder):
    path = PATHS[name][transport]
    lines = [
        f"{path}\t{token(f'u{n}')}" if name == "postrider" else f"{path}?user=u{n}\t-" for n in range(clients)
    ]
    file = pathlib.Path(folder) / "clients"
    file.write_text("\n".join(lines))
    return str(file)


def measure(name, queue, transport, args):
    rows = []
    with tempfile.TemporaryDirectory(prefix="postrider-bench-") as folder:
        server, address = {"postrider": postrider, "straight": straight}[name](args.bin, args.python, queue, folder)
        before = memory(server.pid, "VmRSS")
        listeners = start(
            [f"{args.bin}/postrider-bench-listeners", address, transport, clients_file(name, transport, args.clients, folder)],
            1,
            stdin=subprocess.PIPE,
        )
        try:
            if listeners.stdout.readline() != "ready\n":
                sys.exit(f"{name} {transport}: the listeners could not connect")
            time.sleep(1)
            idle = memory(server.pid, "VmRSS")
            first = 0
            for title, count, who, rate in queue.rounds:
                row = one_round(server, listeners, queue, (first, count, who, rate), args.clients)
                first += count
                row = {"queue": args.queue[0], "transport": transport, "who": name, "round": title, "clients": args.clients} | row
                row |= {"mib_with_clients": round(idle, 1), "mib_before": round(before, 1), "mib_most": round(memory(server.pid, "VmHWM"), 1)}
                if title != "warming up":
                    rows.append(row)
                    show(row)
        finally:
            end(listeners)
            end(server)
    return rows


def one_round(server, listeners, queue, messages, clients):
    first, count, who, rate = messages
    print(first, count, who, LIMIT, file=listeners.stdin, flush=True)
    listeners.stdout.readline()
    pids = {"server": server.pid, "queue": queue.pid, "listeners": listeners.pid}
    before = {who: cpu(pid) for who, pid in pids.items()}
    began = time.monotonic()
    queue.send(first, count, who, rate)
    said = json.loads(listeners.stdout.readline())
    if not said["complete"] or said["strange"]:
        sys.exit(f"the account does not balance: {said}")
    queue.wait_until_empty()
    took = time.monotonic() - began
    busy = {who: (cpu(pid) - before[who]) / took for who, pid in pids.items()}
    time.sleep(AFTER)
    used = cpu(server.pid) - before["server"]
    row = {
        "messages": count,
        "messages_per_second": round(count / said["seconds"]),
        "deliveries_per_second": round(said["came"] / said["seconds"]),
        "cpu_seconds_per_million_messages": round(used / count * 1e6, 1),
        "p50_ms": round(said["p50_ms"], 2),
        "p99_ms": round(said["p99_ms"], 2),
        "core_server": round(busy["server"], 2),
        "core_queue": round(busy["queue"], 2),
        "core_listeners": round(busy["listeners"], 2),
    }
    # To one user each it would be the same again.
    if who == "all":
        row["cpu_seconds_per_million_deliveries"] = round(used / said["came"] * 1e6, 2)
    return row


def show(row):
    per_delivery = row.get("cpu_seconds_per_million_deliveries", "")
    print(
        f"{row['transport']:9} {row['round']:21} {row['who']:9} {row['messages_per_second']:7}/s {row['deliveries_per_second']:8}/s"
        f" {row['cpu_seconds_per_million_messages']:9.1f} {per_delivery:>8} CPU s/M"
        f" p50 {row['p50_ms']:8.2f} p99 {row['p99_ms']:8.2f} ms {row['mib_with_clients']:6.1f} {row['mib_most']:6.1f} MiB"
        f" cores {row['core_server']:.2f} {row['core_queue']:.2f} {row['core_listeners']:.2f}",
        flush=True,
    )


def emulated(text):
    """Its name and its address; the stub has none."""
    name, _, address = text.partition("=")
    if (name == "stub") == bool(address):
        raise argparse.ArgumentTypeError("it is `stub`, or NAME=URL")
    return name, address


def order(text):
    names = text.split(",")
    if unknown := set(names) - set(PATHS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: there are {' and '.join(PATHS)}")
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin")
    parser.add_argument("python")
    parser.add_argument("--transport", action="append", choices=["long_poll", "sse", "websocket"])
    parser.add_argument("--queue", type=emulated, default=("stub", ""))
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--order", type=order, default="postrider,straight,straight,postrider")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--out")
    args = parser.parse_args()
    for transport in args.transport or ["long_poll", "sse", "websocket"]:
        for nth, name in enumerate(args.order):
            address = args.queue[1]
            queue = Emulator(address, args.python, args.clients, args.share) if address else Stub(args.bin, args.clients)
            try:
                rows = measure(name, queue, transport, args)
            finally:
                queue.end()
            if args.out:
                with open(args.out, "a") as out:
                    out.writelines(json.dumps(row | {"turn": nth}) + "\n" for row in rows)


if __name__ == "__main__":
    main()

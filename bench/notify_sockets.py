#!/usr/bin/env python3
"""How many connections a node with the preset `redis-notify` holds to Redis, and what it takes itself, with many sockets.

    python3 bench/notify_sockets.py [SOCKETS] [BINARY]      10000 sockets, target/release/postrider

Each socket is a user of its own and hears one topic with all others: as many channels as users, and one. It starts a
private Redis and a node on free ports, opens the sockets, publishes to the topic and to some users with PUBLISH, checks
that each message came where it belongs, and prints what Redis says of its clients. A process may have 20,000 open files
on many machines, which bounds the sockets. Needs redis-server, and nothing of Python but itself.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

SECRET = "a-secret-for-a-measurement-of-enough-bytes"
BATCH = 250
SAMPLE = 200
SECONDS = 20


def part(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def token(name):
    message = part(b'{"alg":"HS256"}') + b"." + part(json.dumps({"user_id": name}).encode())
    return message + b"." + part(hmac.new(SECRET.encode(), message, hashlib.sha256).digest())


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Redis:
    def __init__(self, folder):
        self.port = free_port()
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL)
        until = time.monotonic() + SECONDS
        while True:
            with contextlib.suppress(OSError):
                self.wire = socket.create_connection(("127.0.0.1", self.port), SECONDS)
                break
            if time.monotonic() > until:
                sys.exit("redis-server does not start")
            time.sleep(0.05)
        self.answers = self.wire.makefile("rb")

    def ask(self, *words):
        words = [str(word).encode() for word in words]
        self.wire.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        line = self.answers.readline()
        if line[:1] == b"$":
            return self.answers.read(int(line[1:]) + 2)[:-2].decode()
        return line[1:].strip().decode()


class Socket:
    """A WebSocket by hand: 10,000 of a library's would measure the library."""

    def __init__(self, address, name):
        self.name = name
        self.wire = socket.create_connection(address, SECONDS)
        self.wire.sendall(
            b"GET /notify/ws?topic=everyone&authorization=" + token(name) + b" HTTP/1.1\r\nHost: x\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        self.held = b""

    def read(self, length):
        while len(self.held) < length:
            piece = self.wire.recv(4096)
            if not piece:
                sys.exit(f"{self.name} was closed")
            self.held += piece
        taken, self.held = self.held[:length], self.held[length:]
        return taken

    def greeted(self):
        while b"\r\n\r\n" not in self.held:
            piece = self.wire.recv(4096)
            assert piece, f"{self.name} was closed"
            self.held += piece
        head, self.held = self.held.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert json.loads(self.frame()) == {"kind": "connect", "userID": self.name}
        state = json.loads(self.frame())
        assert state == {"kind": "state", "state": {}}, state

    def frame(self):
        while True:
            first, length = self.read(2)
            if length == 126:
                length = int.from_bytes(self.read(2), "big")
            payload = self.read(length)
            if first == 0x81:
                return payload.decode()


def status(process, name):
    lines = pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def cpu_seconds(process):
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(count, binary, folder, redis):
    node = subprocess.Popen(
        [binary, "serve", "--preset", "redis-notify", "--notify-jwt-secret", SECRET, "--log-format", "json"],
        cwd=folder, stdout=subprocess.PIPE, stderr=(pathlib.Path(folder) / "log").open("wb"),
        env={"PATH": os.environ["PATH"], "PORT": "127.0.0.1:0", "PPROF_PORT": "127.0.0.1:0",
             "PUBSUB_REDIS_ADDR": f"127.0.0.1:{redis.port}"})
    try:
        host, port = json.loads(node.stdout.readline())["http"].split(":")
        empty = status(node, "VmRSS:")
        began, sockets = time.monotonic(), []
        for start in range(0, count, BATCH):
            batch = [Socket((host, int(port)), f"user-{n}") for n in range(start, min(start + BATCH, count))]
            for one in batch:
                one.greeted()
            sockets += batch
        print(f"{count} sockets, each a user, opened and greeted in {time.monotonic() - began:.1f} s")
        mine = redis.ask("CLIENT", "ID")
        clients = [line for line in redis.ask("CLIENT", "LIST").splitlines() if f"id={mine} " not in line]
        print(f"connections of the node to Redis (CLIENT LIST): {len(clients)}, on which it hears "
              f"{sum(subscribed(one) for one in clients)} channels; "
              f"two for each socket would be {2 * count}")
        print(f"memory of the node: {status(node, 'VmRSS:') // 1024} MiB, "
              f"{(status(node, 'VmRSS:') - empty) * 1024 // count} bytes a socket")
        cpu = cpu_seconds(node)
        began = time.monotonic()
        redis.ask("PUBLISH", "notify_topic:everyone", "to all")
        for one in sockets:
            assert one.frame() == "to all"
        print(f"one PUBLISH to all of them: read by the last after {time.monotonic() - began:.2f} s, "
              f"{(cpu_seconds(node) - cpu) * 1e6 / count:.1f} us of the node's processor time each")
        for one in sockets[:: max(1, count // SAMPLE)]:
            redis.ask("PUBLISH", f"notify:{one.name}", f"to {one.name}")
            assert one.frame() == f"to {one.name}"
        print("every message came, and only where it belongs")
    except AssertionError:
        print((pathlib.Path(folder) / "log").read_text()[-2000:], file=sys.stderr)
        raise
    finally:
        node.terminate()
        node.wait(SECONDS * 3)


def subscribed(client):
    named = dict(pair.split("=", 1) for pair in client.split())
    return int(named.get("sub", 0)) + int(named.get("psub", 0)) + int(named.get("ssub", 0))


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    root = pathlib.Path(__file__).resolve().parent.parent
    binary = sys.argv[2] if len(sys.argv) > 2 else str(root / "target/release/postrider")
    if shutil.which("redis-server") is None:
        sys.exit("NOT RUN notify_sockets: needs redis-server")
    folder = tempfile.mkdtemp(prefix="postrider-bench-")
    redis = Redis(folder)
    try:
        measure(count, binary, folder, redis)
    finally:
        redis.process.kill()
        redis.process.wait()
        shutil.rmtree(folder)


main()

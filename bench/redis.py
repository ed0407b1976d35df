#!/usr/bin/env python3
"""What several nodes over one Redis cost: how long a notification takes from one node to another, and what Redis does.

Starts redis-server (append-only file, fsync once a second) and three nodes of the release binary on loopback, and prints

  * latency: published on node A by HTTP, received on node B by WebSocket, p50 and p99, stored and transient; beside it,
    in the same run and by turns, PUBLISH to SUBSCRIBE of the same Redis with nothing between;
  * fan-out: the commands that Redis counts (INFO commandstats) for one broadcast to all sessions of all nodes, with few
    and with many sessions, and what MONITOR shows of one;
  * connections: how many each node holds to Redis, with few and with many sessions.

Nothing but Python's standard library and the redis-server command.

  bench/redis.py                       2,000 rounds of latency; 100 and 1,000 sessions on each node
  bench/redis.py --rounds 500 --sessions 300
"""

import argparse, collections, json, os, select, shutil, signal, socket, subprocess, sys, tempfile, time

from memory import KEY, SECRET, open_session

NODES = 3
WARM = 100


class Redis:
    """One server, and a connection to it."""

    def __init__(self, directory):
        self.port = free_port()
        options = ["--port", self.port, "--bind", "127.0.0.1", "--dir", directory, "--save", "", "--appendonly", "yes"]
        self.process = subprocess.Popen(["redis-server", *map(str, options)], stdout=subprocess.DEVNULL)
        until = time.monotonic() + 10
        while True:
            try:
                self.own = self.connect()
                if self.ask(self.own, "PING") == b"PONG":
                    return
            except OSError:
                pass
            if time.monotonic() > until:
                sys.exit("redis-server did not start")
            time.sleep(0.02)

    def connect(self):
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock, sock.makefile("rb")

    @staticmethod
    def send(connection, *words):
        words = [word.encode() if isinstance(word, str) else word for word in words]
        parts = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        connection[0].sendall(b"*%d\r\n" % len(words) + parts)

    @staticmethod
    def read(connection):
        line = connection[1].readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return None if rest == b"-1" else connection[1].read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [Redis.read(connection) for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest

    def ask(self, connection, *words):
        self.send(connection, *words)
        return self.read(connection)

    def commands(self):
        """How often each was run so far, those inside of functions too."""
        lines = self.ask(self.own, "INFO", "commandstats").decode().splitlines()
        found = (line.removeprefix("cmdstat_").split(":calls=") for line in lines if line.startswith("cmdstat_"))
        return collections.Counter({name: int(rest.split(",")[0]) for name, rest in found if name != "info"})

    def clients(self):
        return self.ask(self.own, "CLIENT", "LIST").decode().count("id=")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def start(binary, directory, redis, number):
    settings = {
        "http.listen": "127.0.0.1:0",
        "ops.listen": "127.0.0.1:0",
        "data_dir": f"{directory}/node-{number}",
        "engine.type": "redis",
        "engine.redis.url": f"redis://127.0.0.1:{redis.port}",
        "auth.jwt.hmac_secret": SECRET.decode(),
        "auth.api_keys": json.dumps([{"name": "bench", "key": KEY, "scopes": ["publish", "broadcast"]}]),
    }
    command = [binary, "serve", "--log-format", "json"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    node = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    said = node.stdout.readline()
    if not said:
        sys.exit(f"node {number} did not start")
    host, port = json.loads(said)["http"].rsplit(":", 1)
    return node, (host, int(port))


def kept(address):
    sock = socket.create_connection(address, timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def post(sock, body):
    body = json.dumps(body).encode()
    head = "POST /v1/notifications HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    sock.sendall(f"{head}Authorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


def until_said(sockets, words):
    """Reads until each socket has said its word; when each did."""
    heard, at = {sock: b"" for sock in sockets}, {}
    while len(at) < len(sockets):
        ready, _, _ = select.select([sock for sock in sockets if sock not in at], [], [], 30)
        if not ready:
            sys.exit(f"nothing came for 30 s; lacking: {[words[sock] for sock in sockets if sock not in at]}")
        now = time.perf_counter()
        for sock in ready:
            piece = sock.recv(1 << 16)
            if not piece:
                sys.exit(f"closed: {heard[sock][-300:]!r}")
            heard[sock] += piece
            if words[sock] in heard[sock]:
                at[sock] = now
    return at


def percentiles(seconds):
    ordered = sorted(seconds)
    p50, p99 = (ordered[int(len(ordered) * part)] * 1e3 for part in (0.5, 0.99))
    return f"p50 {p50:7.2f} ms   p99 {p99:7.2f} ms"


def latency(redis, nodes, rounds):
    (a, b) = nodes[0][1], nodes[1][1]
    publisher, subscriber = kept(a), open_session(b, None, "ada", "none")
    speaks, listens = redis.connect(), redis.connect()
    redis.ask(listens, "SUBSCRIBE", "bare")
    took = collections.defaultdict(list)
    for nth in range(-WARM, rounds):
        for durability in ("stored", "transient"):
            word = f"{durability}-{nth}-x"
            began = time.perf_counter()
            post(publisher, {"users": ["ada"], "data": word, "durability": durability})
            words = {publisher: b'"accepted":true', subscriber: word.encode()}
            at = until_said([publisher, subscriber], words)
            if nth >= 0:
                took[f"{durability}, A to B"].append(at[subscriber] - began)
                took[f"{durability}, until 202"].append(at[publisher] - began)
        began = time.perf_counter()
        redis.send(speaks, "PUBLISH", "bare", f"bare-{nth}-x")
        redis.read(listens)
        if nth >= 0:
            took["bare Redis Pub/Sub"].append(time.perf_counter() - began)
        redis.read(speaks)
    print(f"latency, {rounds} rounds, one after the other")
    for name, seconds in took.items():
        print(f"  {name:22} {percentiles(seconds)}")
    for sock in (publisher, subscriber, speaks[0], listens[0]):
        sock.close()


def broadcast(redis, publisher, sessions, word, monitor=None):
    before = redis.commands()
    post(publisher, {"data": word})
    until_all(publisher, sessions, word.encode())
    cost = redis.commands() - before
    if monitor:
        redis.send(redis.own, "ECHO", word)
        redis.read(redis.own)
    return cost


def until_all(publisher, sessions, word):
    waits = select.epoll()
    by_number = {sock.fileno(): sock for sock in [publisher, *sessions]}
    heard = dict.fromkeys(by_number, b"")
    for number in by_number:
        waits.register(number, select.EPOLLIN)
    while by_number:
        ready = waits.poll(30)
        if not ready:
            sys.exit(f"{len(by_number)} sessions lack a broadcast")
        for number, _ in ready:
            if number not in by_number:
                continue
            heard[number] += by_number[number].recv(1 << 16)
            if (b'"accepted":true' if by_number[number] is publisher else word) in heard[number]:
                waits.unregister(number)
                del by_number[number]
    waits.close()


def fan_out(redis, nodes, per_node):
    publisher, sessions = kept(nodes[0][1]), []
    few = max(per_node // 10, 1)
    for count in (few, per_node):
        sessions = grown(nodes, sessions, count)
        costs = [broadcast(redis, publisher, sessions, f"to-all-{count}-{nth}-x") for nth in range(10)]
        least = min(costs, key=lambda cost: sum(cost.values()))
        told = ", ".join(f"{name} {calls}" for name, calls in sorted(least.items()) if calls > 0)
        print(f"a broadcast to {len(sessions)} sessions of {NODES} nodes: {sum(least.values())} commands ({told})")
        connections = redis.clients() - 1
        print(f"  connections to Redis: {connections}, {connections / NODES:.1f} a node")
    monitored(redis, publisher, sessions)


def grown(nodes, sessions, per_node):
    have = len(sessions) // NODES
    for number, (_, address) in enumerate(nodes):
        sessions += [open_session(address, None, f"user-{number}-{nth}", "none") for nth in range(have, per_node)]
    return sessions


def monitored(redis, publisher, sessions):
    """What MONITOR shows from before a broadcast until everybody has it."""
    monitor = redis.connect()
    redis.ask(monitor, "MONITOR")
    broadcast(redis, publisher, sessions, "to-all-monitored-x", monitor)
    seen = collections.Counter()
    while True:
        line = redis.read(monitor).decode(errors="replace")
        command = line.split("] ", 1)[1].split(" ")
        name = command[0].strip('"').lower()
        if name == "echo":
            break
        if name != "info":
            of_function = " lua]" in line.split('"')[0]
            seen[("  " if of_function else "") + " ".join(word.strip('"').lower() for word in command[: 2 if name == "fcall" else 1])] += 1
    print("MONITOR of one: " + ", ".join(f"{name.strip()}{' (inside)' if name[0] == ' ' else ''} {n}" for name, n in sorted(seen.items())))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=os.path.join(os.path.dirname(__file__), "../target/release/postrider"))
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--sessions", type=int, default=1000, help="on each node")
    options = parser.parse_args()
    if not shutil.which("redis-server"):
        sys.exit("NOT RUN: needs redis-server")
    directory = tempfile.mkdtemp(prefix="postrider-redis-")
    redis = Redis(directory)
    nodes = []
    try:
        nodes += [start(options.binary, directory, redis, number) for number in range(NODES)]
        latency(redis, nodes, options.rounds)
        fan_out(redis, nodes, options.sessions)
    finally:
        for node, _ in nodes:
            node.send_signal(signal.SIGKILL)
            node.wait()
        redis.process.kill()
        redis.process.wait()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()

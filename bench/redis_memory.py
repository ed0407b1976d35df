#!/usr/bin/env python3
"""What Redis keeps in memory: a stored notification, a user who is known, a user who has read.

Starts a private redis-server (Debian's, on a free loopback port, without persistence) and the release binary with
`engine.type: redis`, and prints the growth of `used_memory` per notification and per user. Python's standard library only.

  bench/redis_memory.py                       100,000 of each
  bench/redis_memory.py --count 20000 --bin target/debug/postrider
"""

import argparse, importlib.util, itertools, json, os, shutil, signal, socket, subprocess, sys, tempfile, time

KEY = "bench-key-0123456789"
SECRET = "0123456789abcdef0123456789abcdef"
SCOPES = ["publish", "broadcast", "manage", "read"]


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def start_redis(directory):
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", directory, "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(["redis-server", *options, "--loglevel", "warning"])
    for _ in range(200):
        try:
            return server, socket.create_connection(("127.0.0.1", port)), port
        except OSError:
            time.sleep(0.05)
    sys.exit("redis-server did not start")


def ask(sock, *words):
    """One command, one answer; bulk strings and integers are enough here."""
    sock.sendall(f"*{len(words)}\r\n".encode() + b"".join(f"${len(w)}\r\n{w}\r\n".encode() for w in words))
    data = b""
    while b"\r\n" not in data:
        data += sock.recv(1 << 16)
    if data[:1] != b"$":
        return data[1:].split(b"\r\n")[0].decode()
    head, _, rest = data.partition(b"\r\n")
    while len(rest) < int(head[1:]) + 2:
        rest += sock.recv(1 << 16)
    return rest[: int(head[1:])].decode()


def used(sock):
    ask(sock, "MEMORY", "PURGE")
    lines = ask(sock, "INFO", "memory").splitlines()
    return next(int(line.split(":")[1]) for line in lines if line.startswith("used_memory:"))


def start_node(binary, port):
    settings = {
        "http.listen": "127.0.0.1:0",
        "ops.listen": "127.0.0.1:0",
        "engine.type": "redis",
        "engine.redis.url": f"redis://127.0.0.1:{port}",
        "log.level": "warn",
        "auth.jwt.hmac_secret": SECRET,
        "auth.api_keys": json.dumps([{"name": "bench", "key": KEY, "scopes": SCOPES}]),
    }
    command = [binary, "serve", "--log-format", "json"]
    command += itertools.chain.from_iterable(("--set", f"{key}={value}") for key, value in settings.items())
    node = subprocess.Popen(command, stdout=subprocess.PIPE)
    line = node.stdout.readline()
    if not line:
        sys.exit("the node did not start")
    host, http_port = json.loads(line)["http"].rsplit(":", 1)
    return node, (host, int(http_port))


def post(address, path, body, kind, bearer=KEY):
    sock = socket.create_connection(address, timeout=600)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\nAuthorization: Bearer {bearer}\r\n"
    sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = b"".join(iter(lambda: sock.recv(1 << 20), b""))
    if not answer.startswith(b"HTTP/1.1 20"):
        sys.exit(f"{path}: {answer[:300]!r}")
    return answer


def publish(address, lines):
    for some in chunks(lines, 5_000):
        body = "\n".join(json.dumps(one) for one in some).encode()
        answer = post(address, "/v1/notifications", body, "application/x-ndjson")
        if (taken := answer.count(b'"accepted":true')) != len(some):
            sys.exit(f"only {taken} of {len(some)} accepted: {answer[-300:]!r}")


def chunks(lines, size):
    lines = iter(lines)
    while some := list(itertools.islice(lines, size)):
        yield some


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bin", default="target/release/postrider")
    options.add_argument("--count", type=int, default=100_000)
    options.add_argument("--data", type=int, default=128, help="bytes of data")
    given = options.parse_args()
    memory = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location("memory", os.path.join(os.path.dirname(__file__), "memory.py")))
    spec.loader.exec_module(memory)
    directory = tempfile.mkdtemp(prefix="postrider-redis-memory-")
    redis, sock, port = start_redis(directory)
    node, address = start_node(given.bin, port)
    count, data = given.count, {"text": "x" * (given.data - 11)}
    try:
        publish(address, [{"users": ["warm"], "data": data}] * 100)
        steps = [used(sock)]

        def step(what, each):
            time.sleep(3)
            steps.append(used(sock))
            grew = steps[-1] - steps[-2]
            print(f"{what}: {grew / each:,.0f} bytes each ({grew / 1e6:,.1f} MB for {each:,})", flush=True)

        started = time.monotonic()
        publish(address, ({"users": [f"user-{n % (count // 10)}"], "data": data} for n in range(count)))
        print(f"{count / (time.monotonic() - started):,.0f} notifications a second over one stream")
        step(f"a notification to one user, {given.data} bytes of data", count)
        publish(address, ({"users": [f"user-{n * 10 + k}" for k in range(10)], "data": data} for n in range(count // 100)))
        step("a notification to ten users", count // 100)
        publish(address, ({"data": data} for _ in range(count // 100)))
        step("a broadcast", count // 100)
        known = "\n".join(json.dumps({"id": f"known-{n}", "topics": ["news", "sport", "local"]}) for n in range(count))
        post(address, "/v1/users/import", known.encode(), "application/x-ndjson")
        step("a known user with three topics, idle", count)
        readers = [f"reader-{n}" for n in range(count // 20)]
        publish(address, ({"users": [user], "data": data, "id": f"once-{user}"} for user in readers))
        used_before = used(sock)
        for user in readers:
            body = json.dumps({"ids": [f"once-{user}"]}).encode()
            post(address, "/v1/inbox/ack", body, "application/json", memory.token(user))
        time.sleep(1)
        grew = used(sock) - used_before
        print(f"a user's first acknowledgement: {grew / len(readers):,.0f} bytes each")
    finally:
        node.send_signal(signal.SIGTERM)
        node.wait(60)
        redis.send_signal(signal.SIGTERM)
        redis.wait(30)
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()

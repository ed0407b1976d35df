#!/usr/bin/env python3
"""What a session costs in memory: at rest, with entries that nobody acknowledged, and with TLS.

Starts the release binary on a loopback port with a data directory of its own, opens WebSocket sessions (one user and
token each), and prints the process's bytes per session (resident set of /proc/PID/smaps_rollup, less that before).
Nothing but Python's standard library; TLS needs the `openssl` command to make a certificate.

  bench/memory.py                      10,000 sessions at rest
  bench/memory.py --pending 100        each of them explicit, with 100 entries that were sent and not acknowledged
  bench/memory.py --unread 100         each with 100 entries that its client does not read
  bench/memory.py --tls                through TLS
"""

import argparse, base64, hashlib, hmac, http.client, itertools, json, os, resource, selectors, shutil, signal, socket, ssl, subprocess, sys, tempfile, time

SECRET = b"0123456789abcdef0123456789abcdef"
KEY = "bench-key-0123456789"
QUIET_S = 3
REQUEST = 10_000
WARM = 300_000


def token(user):
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    claims = {"sub": user, "exp": int(time.time()) + 3600}
    body = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    return (body + b"." + part(hmac.new(SECRET, body, hashlib.sha256).digest())).decode()


def resident(pid):
    with open(f"/proc/{pid}/smaps_rollup") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss:"))


def start(binary, directory, tls, more):
    settings = {
        "http.listen": "127.0.0.1:0",
        "ops.listen": "127.0.0.1:0",
        "data_dir": directory + "/data",
        "log.level": "warn",
        "auth.jwt.hmac_secret": SECRET.decode(),
        "auth.api_keys": json.dumps([{"name": "bench", "key": KEY, "scopes": ["publish", "broadcast"]}]),
    }
    if tls:
        make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        names = ["-keyout", directory + "/key.pem", "-out", directory + "/cert.pem"]
        subprocess.run(make.split() + names, check=True, stderr=subprocess.DEVNULL)
        settings |= {"http.tls.cert": directory + "/cert.pem", "http.tls.key": directory + "/key.pem"}
    command = [binary, "serve", "--log-format", "json"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    for setting in more:
        command += ["--set", setting]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    ready = json.loads(server.stdout.readline())
    host, port = ready["http"].rsplit(":", 1)
    return server, (host, int(port))


def connect(address, context):
    sock = socket.create_connection(address, timeout=30)
    return context.wrap_socket(sock, server_hostname="localhost") if context else sock


def open_session(address, context, user, ack):
    sock = connect(address, context)
    sock.sendall(
        f"GET /v1/inbox/ws?ack={ack} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Authorization: Bearer {token(user)}\r\n\r\n".encode()
    )
    answer = b""
    while b'"hello"' not in answer:
        more = sock.recv(4096)
        if not more or (b"\r\n\r\n" in answer and not answer.startswith(b"HTTP/1.1 101")):
            sys.exit(f"no session: {answer[:300]!r}")
        answer += more
    return sock


def publish(address, context, users, entries):
    """One request for every 10,000 entries: a request's answers are read after it is sent."""
    filler = "x" * 180
    lines = (json.dumps({"users": [user], "data": {"n": n, "filler": filler}}) for n in range(entries) for user in users)
    accepted = 0
    while some := list(itertools.islice(lines, REQUEST)):
        accepted += publish_some(address, context, "\n".join(some).encode())
    if accepted != entries * len(users):
        sys.exit(f"only {accepted} accepted")


def publish_some(address, context, body):
    sock = connect(address, context)
    head = "POST /v1/notifications HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\n"
    sock.sendall(f"{head}Authorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    sock.settimeout(120)
    response = http.client.HTTPResponse(sock)
    response.begin()
    return sum(1 for line in response if b'"accepted":true' in line)


def take(sockets, seconds_of_quiet):
    """Reads all that comes until nothing has come for a while; says how many notifications that were."""
    notifications = 0
    with selectors.DefaultSelector() as ready:
        for sock in sockets:
            sock.setblocking(False)
            ready.register(sock, selectors.EVENT_READ)
        while found := ready.select(seconds_of_quiet):
            for key, _ in found:
                try:
                    while data := key.fileobj.recv(1 << 16):
                        notifications += data.count(b'"type":"notification"')
                except (BlockingIOError, ssl.SSLWantReadError):
                    pass
    return notifications


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bin", default="target/release/postrider")
    options.add_argument("--sessions", type=int, default=10_000)
    options.add_argument("--pending", type=int, default=0)
    options.add_argument("--unread", type=int, default=0)
    options.add_argument("--tls", action="store_true")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = options.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    directory = tempfile.mkdtemp(prefix="postrider-memory-")
    server, address = start(given.bin, directory, given.tls, given.set)
    try:
        context = None
        if given.tls:
            context = ssl.create_default_context(cafile=directory + "/cert.pem")
            context.check_hostname = False
        entries = given.pending or given.unread
        users = [f"user-{n}" for n in range(given.sessions)]
        ack = "explicit" if given.pending else "auto"
        if entries:
            # So that the store's own memory is there before, and what is counted is the sessions'.
            publish(address, context, [f"other-{n}" for n in range(1000)], WARM // 1000)
            time.sleep(QUIET_S)
        before = resident(server.pid)
        sockets = [open_session(address, context, user, ack) for user in users]
        time.sleep(QUIET_S)
        opened = resident(server.pid)
        show = lambda bytes_: f"{bytes_ / given.sessions:,.0f} bytes a session ({bytes_ / 1e6:.1f} MB)"
        print(f"{given.sessions:,} sessions{' through TLS' if given.tls else ''}, at rest: {show(opened - before)}")
        if entries:
            publish(address, context, users, entries)
            if given.pending:
                came = take(sockets, QUIET_S)
                if came < entries * len(users):
                    sys.exit(f"only {came} of {entries * len(users)} came")
            time.sleep(QUIET_S)
            kind = "sent and not acknowledged" if given.pending else "that its client does not read"
            print(f"with {entries} entries each, {kind}: {show(resident(server.pid) - before)}")
        for sock in sockets:
            sock.close()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()

"""The raw dialect (`GET /notifications`) as plain clients meet it: curl, requests, httpx and Node's fetch.

Over HTTP/1.0 and 1.1, over HTTP/2 with TLS and in the clear: the same bytes, and what counts as taken where a client stops
reading.
"""

import bisect
import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time

import httpx
import requests

from lib.cases import case, equal, eventually, run, user
from lib.node import CERTIFICATE, KEY, WITH_TLS, Node, token

DIALECT = {"raw": {"path": "/notifications", "health": "/health"}, "ack": {"probe": "100ms", "flush": "100ms"}}
BODIES = ['{"order":7}', "plain, 漢字 📨", "data: no event\n\n", "[1,2]", "x" * 100_000, "end"]
TIMEOUT = 40
# Behind a client that reads nothing: pieces of so many bytes, so many of them.
PIECE, PIECES = 64 << 10, 96
# So much more may count as delivered than the client's kernel has: what the node's HTTP server holds.
AHEAD_KIB = 400

FETCH = """
const [address, credential, most] = process.argv.slice(1);
const answer = await fetch(address, { headers: { authorization: `Bearer ${credential}` } });
console.error(answer.status, answer.headers.get('content-type'), answer.headers.get('cache-control'));
let read = 0;
for await (const piece of answer.body) {
  process.stdout.write(piece);
  read += piece.length;
  if (read >= Number(most)) process.exit(0);
}
"""


class BackEnd:
    """A node, and who publishes to it."""

    def __init__(self, settings):
        self.node = Node(DIALECT | settings)

    def __enter__(self):
        self.node.__enter__()
        self.address = f"{self.node.url}/notifications"
        trust = ssl.create_default_context(cafile=str(CERTIFICATE)) if "tls" in self.node.settings["http"] else True
        headers = {"Authorization": f"Bearer {KEY}"}
        self.http = httpx.Client(base_url=self.node.url, headers=headers, timeout=TIMEOUT, verify=trust)
        return self

    def __exit__(self, *how):
        self.http.close()
        return self.node.__exit__(*how)

    def publish(self, who, body):
        """A text is kept as a JSON string, JSON as it is; its id."""
        data = body if body[0] in "{[" else json.dumps(body, ensure_ascii=False)
        sent = self.http.post(
            "/v1/notifications",
            content=f'{{"users":["{who}"],"data":{data}}}'.encode(),
            headers={"Content-Type": "application/json"},
        )
        equal(sent.status_code, 202, sent.text)
        return sent.json()["id"]

    def is_delivered(self, notification):
        return self.http.get(f"/v1/notifications/{notification}").json()["counts"]["delivered"] == 1

    def delivered(self, notification, what="delivered"):
        eventually(lambda: self.is_delivered(notification), what=what)

    def is_there(self, who):
        """Waits until the user has a session: a client may say nothing of a head that it has read."""
        eventually(lambda: self.http.get(f"/v1/users/{who}/presence").json()["sessions"], TIMEOUT, f"a session of {who}")


class Program:
    """A client in a process of its own, whose standard output is the body."""

    def __init__(self, *command, stops=False):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.got = bytearray()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        while piece := self.process.stdout.read1(1 << 16):
            self.got += piece

    def expect(self, body):
        wanted = body.encode()
        eventually(lambda: len(self.got) >= len(wanted), TIMEOUT, f"{len(wanted)} bytes")
        found, self.got[: len(wanted)] = bytes(self.got[: len(wanted)]), b""
        assert found == wanted, f"{found[:80]!r} instead of {wanted[:80]!r}"

    def end(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()


@contextlib.contextmanager
def program(*command):
    client = Program(*command)
    try:
        yield client
    finally:
        client.end()


def curl(node, who, *how):
    return program(
        "curl", "--silent", "--show-error", "--no-buffer", "--max-time", str(TIMEOUT), "--cacert", str(CERTIFICATE),
        *how, "--header", f"Authorization: Bearer {token(who)}", node.address,
    )


WAYS = [
    (["--http1.0"], {}),
    (["--http1.1"], {}),
    (["--http2-prior-knowledge"], {}),
    (["--http1.1"], WITH_TLS),
    (["--http2"], WITH_TLS),
]


@case
def curl_reads_bare_bodies():
    """curl by HTTP/1.0, 1.1 and 2, in the clear and over TLS: bodies as they come, each delivered; what waited comes first"""
    for how, settings in WAYS:
        with BackEnd(settings) as node:
            who = user("ada")
            sent = [node.publish(who, "waited")]
            with curl(node, who, *how) as client:
                client.expect("waited")
                for body in BODIES:
                    sent.append(node.publish(who, body))
                    client.expect(body)
                for one in sent:
                    node.delivered(one, f"{how}: delivered")


@case
def the_head_comes_at_once():
    """the head, over each version of HTTP, before there is any body"""
    for how, settings in WAYS:
        with BackEnd(settings) as node, curl(node, user("ada"), *how, "--dump-header", "-") as client:
            eventually(lambda: b"\r\n\r\n" in client.got, what=f"{how}: the head")
            head = bytes(client.got).decode().lower()
            assert re.match(r"http/\S+ 200", head), head
            assert "\r\ncontent-type: text/event-stream\r\n" in head and "\r\ncache-control: no-cache\r\n" in head, head
            equal("\r\ntransfer-encoding: chunked\r\n" in head, how == ["--http1.1"], f"{how}: chunked")


@case
def a_body_is_a_chunk():
    """curl --raw: by HTTP/1.1 each body is a chunk, and the stream ends with the last one"""
    with BackEnd({"raw": DIALECT["raw"] | {"max_time": "2s"}}) as node:
        who = user("ada")
        node.publish(who, "one")
        node.publish(who, "the second")
        with curl(node, who, "--http1.1", "--raw") as client:
            equal(client.process.wait(TIMEOUT), 0, "curl's exit status")
            client.expect("3\r\none\r\na\r\nthe second\r\n0\r\n\r\n")


@case
def a_request_is_found_in_the_log_by_its_trace_id():
    """the trace-id of who is let in is in the log, as its client gave it or as it was made, and the token is not"""
    with BackEnd({}) as node:
        credential = token(user("ada"))
        for given in ({"trace-id": "trace-of-ada-7"}, {}):
            headers = {"Authorization": f"Bearer {credential}"} | given
            with httpx.stream("GET", node.address, headers=headers, timeout=TIMEOUT) as answer:
                told = answer.headers["trace-id"]
            equal(told, given.get("trace-id", told), "trace-id")
            eventually(lambda told=told: told in node.node.log(), what="a line of the log")
        assert credential not in node.node.log(), "the token is in the log"


@case
def requests_and_httpx_read_bare_bodies():
    """requests with stream=True, and httpx: a body at a time"""
    with BackEnd({}) as node:
        for opened in (with_requests, with_httpx):
            who = user("ada")
            with opened(node.address, token(who)) as (status, headers, pieces):
                equal((status, headers["content-type"]), (200, "text/event-stream"), "head")
                for body in BODIES:
                    sent = node.publish(who, body)
                    got = b""
                    while len(got) < len(body.encode()):
                        got += next(pieces)
                    assert got == body.encode(), f"{got[:80]!r}"
                    node.delivered(sent)


@contextlib.contextmanager
def with_requests(address, credential):
    headers = {"Authorization": f"Bearer {credential}"}
    with requests.get(address, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        # A chunk at a time; of an answer without chunks it would give nothing before the end.
        yield answer.status_code, answer.headers, answer.iter_content(chunk_size=None)


@contextlib.contextmanager
def with_httpx(address, credential):
    headers = {"Authorization": f"Bearer {credential}"}
    with httpx.stream("GET", address, headers=headers, timeout=TIMEOUT) as answer:
        yield answer.status_code, answer.headers, answer.iter_raw()


@case
def fetch_reads_bare_bodies():
    """fetch of Node 18 and later"""
    with BackEnd({}) as node:
        who = user("ada")
        most = sum(len(body.encode()) for body in BODIES)
        with program("node", "--input-type=module", "--eval", FETCH, node.address, token(who), str(most)) as client:
            node.is_there(who)
            for body in BODIES:
                node.publish(who, body)
                client.expect(body)
            equal(client.process.wait(TIMEOUT), 0, "fetch's exit status")
            equal(client.process.stderr.read().split(), [b"200", b"text/event-stream", b"no-cache"], "head")


@case
def what_a_stopped_client_did_not_take_is_not_delivered():
    """a stopped curl: what counts as delivered is what its kernel took, and little more"""
    for how, settings in WAYS[1:]:
        with BackEnd(settings) as node:
            who = user("ada")
            with curl(node, who, *how) as client:
                node.is_there(who)
                node.publish(who, "first")
                client.expect("first")
                os.kill(client.process.pid, signal.SIGSTOP)
                sent = [node.publish(who, f"{nth:03}" + "x" * (PIECE - 3)) for nth in range(PIECES)]
                delivered = stands_still(lambda: bisect.bisect(sent, False, key=lambda one: not node.is_delivered(one)))
                taken = unread(client.process.pid)
                ahead = delivered * PIECE - taken >> 10
                by = " ".join(how) + (" with TLS" if settings else "")
                print(f"     {by}: {delivered * PIECE >> 10} KiB count as delivered, {taken >> 10} KiB wait in curl's kernel", flush=True)
                assert ahead <= AHEAD_KIB, f"{by}: {ahead} KiB more count as delivered than were taken"
                os.kill(client.process.pid, signal.SIGCONT)
                eventually(lambda: len(client.got) == PIECES * PIECE, TIMEOUT, "all of it")
                node.delivered(sent[-1])


def unread(pid):
    """Bytes that the kernel has acknowledged for a process and that it has not read yet."""
    table = subprocess.run(["ss", "--no-header", "--tcp", "--processes", "state", "established"], capture_output=True, text=True, check=True)
    return max(int(line.split()[0]) for line in table.stdout.splitlines() if f"pid={pid}," in line)


def stands_still(look, seconds=5):
    """What a count is that has not changed for so long."""
    last, since = look(), time.monotonic()
    while time.monotonic() - since < seconds:
        time.sleep(0.1)
        now = look()
        if now != last:
            last, since = now, time.monotonic()
    return last


if __name__ == "__main__":
    sys.exit(run())

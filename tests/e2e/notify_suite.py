"""The preset `redis-notify`, started and used as the service whose place it takes: by its flags and its variables, with
back-ends that PUBLISH and HSET over a bare socket, and with the WebSocket client of PyPI's websockets.
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
import threading
import time
import urllib.error
import urllib.request

import websockets
from websockets.sync.client import connect

from lib.cases import case, equal, eventually, run, user
from lib.node import binary, free_port

SECRET = "an-end-to-end-secret-of-enough-bytes"
COOKIE = "notify_session"
HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


def part(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def token(user_id, algorithm="HS256", secret=SECRET, **claims):
    """A token as the service's issuers make them: `user_id`, and nothing that has to be there."""
    head = part(json.dumps({"alg": algorithm, "typ": "JWT"}).encode())
    message = head + b"." + part(json.dumps({"user_id": user_id} | claims).encode())
    signature = hmac.new(secret.encode(), message, HASHES.get(algorithm, hashlib.sha256)).digest()
    return (message + b"." + part(signature)).decode()


class Redis:
    """A private Redis: its process, and the few commands that a back-end sends, over a bare socket."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="postrider-redis-")
        # Below the ports that the kernel gives to clients, so that it is still free for a second start.
        self.port = free_port()
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder, "--save", "",
             "--appendonly", "yes"],
            stdout=subprocess.DEVNULL)
        eventually(self.answers, 60, "a Redis")

    def answers(self):
        # While it reads its file it refuses.
        with contextlib.suppress(OSError, AssertionError):
            return self.ask("PING") == "PONG"
        return False

    def ask(self, *words):
        """One command on a connection of its own."""
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(one), one) for one in parts)
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as wire:
            wire.sendall(request)
            answer = wire.makefile("rb")
            line = answer.readline().rstrip(b"\r\n")
            if line[:1] == b"$":
                return answer.read(int(line[1:])).decode()
            assert line[:1] in (b"+", b":"), line
            return int(line[1:]) if line[:1] == b":" else line[1:].decode()

    def stop(self):
        self.process.kill()
        self.process.wait(10)

    def close(self):
        self.stop()
        shutil.rmtree(self.folder)


class Service:
    """`postrider serve --preset redis-notify` in a folder that has a public_html."""

    def __init__(self, redis, *more, **variables):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="postrider-notify-"))
        public = self.folder / "public_html"
        (public / "js").mkdir(parents=True)
        (public / "index.html").write_text("<!doctype html><p>notify")
        (public / "js" / "app.js").write_text("let answer = 42;\n")
        (public / ".htpasswd").write_text("hidden")
        (self.folder / "secret.txt").write_text("outside")
        self.log = self.folder / "log"
        command = [binary(), "serve", "--preset", "redis-notify", "--notify-jwt-secret", SECRET,
                   "--notify-session-cookie", COOKIE, "--log-format", "json", *more]
        environment = {"PATH": os.environ["PATH"], "PORT": "127.0.0.1:0", "PPROF_PORT": "127.0.0.1:0",
                       "PUBSUB_REDIS_ADDR": f"127.0.0.1:{redis.port}"} | variables
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=subprocess.PIPE,
                                            stderr=log)
        line = self.process.stdout.readline()
        assert line, f"it did not start: {self.log.read_text()[-2000:]}"
        ready = json.loads(line)
        self.http, self.ops = ready["http"], ready["ops"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        status = self.process.wait(30)
        self.process.stdout.close()
        shutil.rmtree(self.folder)
        equal(status, 0, "exit status after a drain")

    def get(self, path, method="GET", body=None, **headers):
        """Status, headers and body."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"http://{self.http}{path}", body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as answer:
            return answer.status, answer.headers, answer.read()


class Client:
    """A WebSocket that has been greeted."""

    def __init__(self, service, user_id, topic=None, query=None, **headers):
        self.opened = contextlib.ExitStack()
        query = query if query is not None else f"authorization={token(user_id)}"
        query += f"&topic={topic}" if topic else ""
        self.wire = self.opened.enter_context(
            connect(f"ws://{service.http}/notify/ws?{query}", additional_headers=headers, compression=None,
                    open_timeout=30, close_timeout=5, ping_interval=None))
        equal(self.next(), json.dumps({"kind": "connect", "userID": str(user_id)}, separators=(",", ":")), "first frame")
        state = json.loads(self.next())
        equal(state["kind"], "state", "second frame")
        equal(set(state), {"kind", "state"}, "second frame")
        self.state = state["state"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.opened.close()

    def next(self, seconds=30):
        return self.wire.recv(timeout=seconds)


def refused(service, query, **headers):
    """The frame that tells why, and the close code after it."""
    with connect(f"ws://{service.http}/notify/ws?{query}", additional_headers=headers, compression=None,
                 open_timeout=30, close_timeout=5) as wire:
        told = wire.recv(timeout=30)
        assert isinstance(told, str), "a text frame"
        try:
            wire.recv(timeout=30)
        except websockets.ConnectionClosed as closed:
            return json.loads(told), closed.rcvd.code
    raise AssertionError("it was not closed")


@case
def it_connects_gets_its_state_and_then_every_message_byte_for_byte(redis, service):
    name = user()
    redis.ask("HSET", f"notify:{name}:state", "unread", "3", "theme", "dark \u00fc\"")
    with Client(service, name) as client:
        equal(client.state, {"unread": "3", "theme": "dark \u00fc\""}, "state")
        for message in ['{"a": 1 }', "plain", ' "quoted" ', "", "line\nline\r\n", "\u00fc\u20ac\U0001F600\0",
                        "x" * 200_000, '{"kind":"state"}']:
            equal(redis.ask("PUBLISH", f"notify:{name}", message), 1, "subscribers")
            equal(client.next(), message, "message")
        redis.ask("PUBLISH", f"notify:{name}", b"\xff\xfe\x00")
        equal(client.next(), b"\xff\xfe\x00", "what is no text")
        redis.ask("HSET", f"notify:{name}:state", "unread", "4")
        redis.ask("PUBLISH", f"notify:{name}", "the state is told once")
        equal(client.next(), "the state is told once")


@case
def an_absent_state_is_an_empty_object(redis, service):
    with Client(service, user()) as client:
        equal(client.state, {}, "state")


@case
def order_is_kept_and_nobody_else_is_told(redis, service):
    ada, bob = user("ada"), user("bob")
    with Client(service, ada) as first, Client(service, ada) as second, Client(service, bob) as other:
        for n in range(300):
            redis.ask("PUBLISH", f"notify:{ada}", n)
        redis.ask("PUBLISH", f"notify:{bob}", "for bob")
        for client in [first, second]:
            equal([client.next() for _ in range(300)], [str(n) for n in range(300)])
        equal(other.next(), "for bob")


@case
def topics_come_by_commas_and_white_space(redis, service):
    with Client(service, user(), topic="news,sport%20chess+%09go") as client, Client(service, user()) as none:
        for topic in ["news", "sport", "chess", "go"]:
            equal(redis.ask("PUBLISH", f"notify_topic:{topic}", f"in {topic}"), 1, "subscribers")
            equal(client.next(), f"in {topic}")
        redis.ask("PUBLISH", "notify_topic:other", "not heard")
        equal(redis.ask("PUBLISH", "notify_topic:news", "last"), 1)
        equal(client.next(), "last")
        assert_silent(none)


def assert_silent(client):
    try:
        told = client.next(0.3)
    except TimeoutError:
        return
    raise AssertionError(f"{told!r} was not for it")


@case
def tokens_of_the_family_with_and_without_bearer_and_with_a_number(redis, service):
    for algorithm in HASHES:
        name = user()
        for before in ["", "Bearer%20", "bearer+"]:
            query = f"authorization={before}{token(name, algorithm)}"
            with Client(service, name, query=query):
                pass
    with Client(service, 12345678901234567, query=f"authorization={token(12345678901234567)}") as client:
        redis.ask("PUBLISH", "notify:12345678901234567", "a number")
        equal(client.next(), "a number")
    now = int(time.time())
    with Client(service, "timed", query=f"authorization={token('timed', exp=now + 60, nbf=now - 60)}"):
        pass


@case
def the_cookie_wins(redis, service):
    name, other = user(), user()
    good = f"other=1; {COOKIE}={token(name)}"
    with Client(service, name, query=f"authorization={token(other)}", Cookie=good):
        pass
    with Client(service, name, query="", Cookie=good):
        pass
    told, _ = refused(service, f"authorization={token(other)}", Cookie=f"{COOKIE}=broken")
    equal(told["code"], "unauthenticated")
    with Client(service, name, query=f"authorization={token(name)}", Cookie="another=broken"):
        pass


@case
def the_token_may_come_in_a_form(redis, service):
    name = user()
    form = f"authorization=Bearer+{token(name)}&topic=news"
    host, port = service.http.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as wire:
        wire.sendall((f"GET /notify/ws HTTP/1.1\r\nHost: {service.http}\r\nUpgrade: websocket\r\n"
                      "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                      "Content-Type: application/x-www-form-urlencoded\r\n"
                      f"Content-Length: {len(form)}\r\n\r\n{form}").encode())
        told = wire.makefile("rb")
        assert told.readline().startswith(b"HTTP/1.1 101 ")
        while told.readline().strip():
            pass
        first, length = told.read(2)
        equal(first, 0x81, "a text frame")
        equal(json.loads(told.read(length)), {"kind": "connect", "userID": name})


@case
def who_is_not_let_in_is_told_why_in_a_text_frame_and_closed(redis, service):
    now = int(time.time())
    for query, code in [
        ("", "token_missing"),
        ("authorization=", "token_missing"),
        ("authorization=nonsense", "token_malformed"),
        (f"authorization={token('a', secret='another-secret-of-enough-bytes-xx')}", "token_signature"),
        (f"authorization={token('a', algorithm='none')}", "token_signature"),
        (f"authorization={token('a', algorithm='RS256')}", "token_signature"),
        (f"authorization={token('a', exp=now - 1)}", "token_expired"),
        (f"authorization={token('a', nbf=now + 60)}", "token_expired"),
        (f"authorization={token(None)}", "token_claims"),
        (f"authorization={token('')}", "token_claims"),
        (f"authorization={token({'a': 1})}", "token_claims"),
    ]:
        told, closed = refused(service, query)
        equal((told["kind"], told["code"], told["meta"]["code"]), ("error", "unauthenticated", code), query[:40])
        equal(closed, 1008, "close code")
    told, closed = refused(service, f"authorization={token('a')}&topic=no%2Ftopic%21")
    equal((told["code"], closed), ("invalid_argument", 1008))


@case
def pages_of_any_origin_may_open_it_but_not_with_a_cookie(redis, service):
    name = user()
    with Client(service, name, Origin="https://elsewhere.example"):
        pass
    cookie = f"{COOKIE}={token(name)}"
    told, _ = refused(service, "", Cookie=cookie, Origin="https://elsewhere.example")
    equal((told["code"], told["meta"]["code"]), ("permission_denied", "origin"))
    with Client(service, name, query="", Cookie=cookie, Origin=f"http://{service.http}"):
        pass


@case
def origins_are_a_setting(redis, service):
    named = ["--set", 'notify.origins=["https://app.example"]']
    with Service(redis, *named) as strict:
        name = user()
        cookie = f"{COOKIE}={token(name)}"
        with Client(strict, name, Origin="https://app.example"):
            pass
        with Client(strict, name, query="", Cookie=cookie, Origin="https://app.example"):
            pass
        told, _ = refused(strict, f"authorization={token(name)}", Origin="https://elsewhere.example")
        equal(told["code"], "permission_denied")


@case
def what_is_no_websocket_is_told_so_over_http(redis, service):
    equal(service.get(f"/notify/ws?authorization={token('a')}")[0], 426, "status")


@case
def twirp_tells_whose_a_token_is(redis, service):
    path = "/twirp/notify.NotifyService/Auth"

    def call(authorization):
        body = json.dumps({"authorization": authorization}).encode()
        status, _, told = service.get(path, "POST", body, Content_Type="application/json")
        return status, json.loads(told)

    equal(call(token("ada")), (200, {"userID": "ada"}))
    equal(call(f"Bearer {token(77)}"), (200, {"userID": "77"}))
    for wrong in ["", "Bearer ", "nonsense", token("a", secret="another-secret-of-enough-bytes-xx")]:
        status, told = call(wrong)
        equal((status, told["code"]), (401, "unauthenticated"), wrong[:20])
        assert told["msg"], told
    more = json.dumps({"authorization": token("ada"), "client": {"version": 2}}).encode()
    status, _, told = service.get(path, "POST", more, Content_Type="application/json")
    equal((status, json.loads(told)), (200, {"userID": "ada"}), "fields that are not known are passed over")
    # Protobuf: field 1, a string, both ways.
    given = token("ada").encode()
    length = bytes([len(given) & 0x7F | 0x80, len(given) >> 7])
    status, headers, told = service.get(path, "POST", b"\x0a" + length + given, Content_Type="application/protobuf")
    equal((status, headers["Content-Type"], told), (200, "application/protobuf", b"\x0a\x03ada"))
    status, _, told = service.get("/twirp/notify.NotifyService/Other", "POST", b"{}", Content_Type="application/json")
    equal((status, json.loads(told)["code"]), (404, "bad_route"))


@case
def the_files_of_public_html_are_served_and_no_others(redis, service):
    status, headers, body = service.get("/")
    equal((status, body), (200, b"<!doctype html><p>notify"))
    equal(headers["Content-Type"], "text/html; charset=utf-8")
    status, headers, body = service.get("/js/app.js")
    equal((status, headers["Content-Type"]), (200, "text/javascript; charset=utf-8"))
    equal(service.get("/js/app.js", If_None_Match=headers["ETag"])[0], 304, "status")
    equal(service.get("/js/app.js", If_Modified_Since=headers["Last-Modified"])[0], 304, "status")
    for path in ["/.htpasswd", "/%2ehtpasswd", "/../secret.txt", "/%2e%2e/secret.txt", "/js/..%2f..%2fsecret.txt", "/js",
                 "/js/", "/none"]:
        status, _, body = service.get(path)
        assert (status, b"outside" in body, b"hidden" in body) == (404, False, False), (path, status)


@case
def the_operations_listener_answers(redis, service):
    for path in ["/health", "/metrics"]:
        with urllib.request.urlopen(f"http://{service.ops}{path}", timeout=30) as answer:
            equal(answer.status, 200, path)


@case
def a_line_about_the_process_comes_as_often_as_it_is_set(redis, service):
    with Service(redis, "--set", "log.process=1s") as quick:
        def lines():
            return [line for line in quick.log.read_text().splitlines() if "resident_mib" in line]
        eventually(lambda: len(lines()) >= 2, what="two lines")


@case
def who_is_silent_is_dropped_and_who_answers_pings_is_not(redis, service):
    # The preset's 108 s and 120 s, in small; more than a machine stands still that does other things too.
    quick = ["--set", "session.keep_alive=1s", "--set", "session.silence=8s"]
    with Service(redis, *quick) as impatient:
        name = user()
        host, port = impatient.http.split(":")
        with Client(impatient, name) as talking, socket.create_connection((host, int(port)), timeout=60) as silent:
            began = time.monotonic()
            silent.sendall((f"GET /notify/ws?authorization={token(name)} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())
            stop = threading.Event()

            def publish():
                while not stop.wait(0.2):
                    redis.ask("PUBLISH", f"notify:{name}", "busy")

            busy = threading.Thread(target=publish)
            busy.start()
            try:
                heard = bytearray()
                while piece := silent.recv(65536):
                    heard += piece
                took = time.monotonic() - began
                assert 7 <= took < 40, f"dropped after {took:.1f} s"
                assert heard.count(b"\x89\x08") >= 2, "pings, although something was sent all the time"
            finally:
                stop.set()
                busy.join()
            redis.ask("PUBLISH", f"notify:{name}", "still there")
            while talking.next() != "still there":
                pass


@case
def the_keep_alive_is_that_of_the_service(redis, service):
    shown = subprocess.run([binary(), "config", "show", "--json", "--preset", "redis-notify"], capture_output=True,
                           env={"PATH": os.environ["PATH"]}, check=True)
    shown = json.loads(shown.stdout)
    for key, value in {"session.keep_alive": "108s", "session.silence": "120s", "session.stall_timeout": "15s",
                       "http.listen": "0.0.0.0:3000", "auth.jwt.user_claim": "user_id",
                       "auth.jwt.require_exp": False, "http.static": "public_html"}.items():
        in_force = shown[key]
        assert in_force["from"] == "preset redis-notify", (key, in_force)
        if key.startswith("session."):
            equal(seconds(in_force["value"]), seconds(value), key)
        else:
            equal(in_force["value"], value, key)


def seconds(duration):
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    unit = duration.lstrip("0123456789")
    return int(duration[: -len(unit)]) * units[unit]


@case
def the_variables_of_the_service_count_and_wrong_ones_are_faults(redis, service):
    def shown(**variables):
        return subprocess.run([binary(), "config", "show", "--json", "--preset", "redis-notify"], capture_output=True,
                              env={"PATH": os.environ["PATH"]} | variables, text=True)

    told = json.loads(shown(PORT=":8123", PPROF_PORT=":8124", PUBSUB_REDIS_ADDR="cache").stdout)
    equal((told["http.listen"]["value"], told["http.listen"]["from"]), ("0.0.0.0:8123", "environment PORT"))
    equal(told["ops.listen"]["value"], "0.0.0.0:8124")
    equal(told["sources.notify.url"]["from"], "environment PUBSUB_REDIS_ADDR")
    equal(json.loads(shown(POSTRIDER_HTTP__LISTEN="127.0.0.1:9", PORT=":8123").stdout)["http.listen"]["value"],
          "127.0.0.1:9")
    wrong = shown(PORT="many")
    equal(wrong.returncode, 2, "exit status")
    assert "environment PORT" in wrong.stderr, wrong.stderr
    unknown = subprocess.run([binary(), "serve", "--preset", "redis-notfy"], capture_output=True, text=True)
    equal(unknown.returncode, 2, "exit status")
    assert "redis-notify" in unknown.stderr, unknown.stderr


@case
def a_redis_that_was_away_costs_what_came_meanwhile_and_no_connection_of_a_client(redis, service):
    name = user()
    with Client(service, name, topic="news") as client:
        redis.stop()
        redis.start()
        eventually(lambda: redis.ask("PUBLISH", f"notify:{name}", "back") == 1, 60, "a subscriber")
        equal(client.next(), "back")
        eventually(lambda: redis.ask("PUBLISH", "notify_topic:news", "news") == 1, 60, "a subscriber")
        equal(client.next(), "news")


@case
def redis_sees_a_handful_of_connections_however_many_sockets_there_are(redis, service):
    names = [user("crowd") for _ in range(300)]
    with contextlib.ExitStack() as crowd:
        clients = [crowd.enter_context(Client(service, name, topic="crowd")) for name in names]
        connections = len(redis.ask("CLIENT", "LIST").splitlines())
        print(f"     {len(clients)} sockets, {connections - 1} connections of the node to Redis", flush=True)
        assert connections - 1 <= 6, redis.ask("CLIENT", "LIST")
        redis.ask("PUBLISH", "notify_topic:crowd", "all of you")
        for name, client in zip(names, clients):
            equal(client.next(), "all of you")
            redis.ask("PUBLISH", f"notify:{name}", name)
            equal(client.next(), name)
    eventually(lambda: redis.ask("PUBLISH", f"notify:{names[0]}", "gone") == 0, 30, "the end of a subscription")


def main():
    if shutil.which("redis-server") is None:
        if os.environ.get("POSTRIDER_TEST_REDIS") == "required":
            sys.exit("redis-server is not installed")
        print("NOT RUN notify: needs redis-server")
        return 0
    redis = Redis()
    try:
        with Service(redis) as service:
            return run(redis, service)
    finally:
        redis.close()


sys.exit(main())

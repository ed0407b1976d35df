"""The HTTP interface as anyone with curl meets it. Standard library and curl only."""

import contextlib
import dataclasses
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

from lib.cases import case, equal, eventually, run, user
from lib.node import CERTIFICATE, KEY, PUBLISHER, READER, WITH_TLS, Node, binary, token
from lib.sse import Stream

REQUEST_SECONDS = "40"


@dataclasses.dataclass
class Answer:
    status: int
    headers: dict
    text: str
    seconds: float

    @property
    def json(self):
        return json.loads(self.text)


def curl(*arguments, body=None):
    """One request; an interim answer (100) is passed over."""
    command = ["curl", "--silent", "--show-error", "--max-time", REQUEST_SECONDS, "--dump-header", "/dev/stderr"]
    command += ["--write-out", "\n%{time_total}", *arguments]
    if body is not None:
        command += ["--data-binary", "@-"]
    done = subprocess.run(command, input=body, capture_output=True, text=True, check=False)
    equal(done.returncode, 0, f"curl's exit status ({done.stderr.strip()})")
    text, _, seconds = done.stdout.rpartition("\n")
    heads = [head for head in re.split(r"\r?\n\r?\n", done.stderr) if head.startswith("HTTP/")]
    first, *fields = heads[-1].splitlines()
    headers = {name.strip().lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    return Answer(int(first.split()[1]), headers, text, float(seconds))


def bearer(credential):
    return ["--header", f"Authorization: Bearer {credential}"]


def publish(node, notification, key=KEY, *more):
    text = notification if isinstance(notification, str) else json.dumps(notification)
    kind = ["--header", "Content-Type: application/json"]
    return curl(*bearer(key), *kind, *more, f"{node.url}/v1/notifications", body=text)


def published(node, **notification):
    """Publishes what has to be accepted; its id."""
    answer = publish(node, notification)
    equal(answer.status, 202, f"status ({answer.text})")
    equal(answer.json["accepted"], True, "accepted")
    return answer.json["id"]


def poll_url(node, **query):
    return f"{node.url}/v1/inbox?{urllib.parse.urlencode(query)}"


def poll(node, who, **query):
    answer = curl(*bearer(token(who)), poll_url(node, **({"wait": 0} | query)))
    equal(answer.status, 200, f"status ({answer.text})")
    equal(answer.headers.get("cache-control"), "no-store", "Cache-Control")
    assert {"notifications", "events", "cursor", "gap"} <= answer.json.keys(), answer.text
    return answer.json


def ids(entries):
    return [entry["id"] for entry in entries]


def post(node, path, who, body):
    answer = curl(*bearer(token(who)), "--header", "Content-Type: application/json", f"{node.url}{path}",
                  body=json.dumps(body))
    equal(answer.status, 200, f"status of {path} ({answer.text})")
    return answer.json


def counts(node, notification):
    answer = curl(*bearer(READER), f"{node.url}/v1/notifications/{notification}")
    equal(answer.status, 200, f"status ({answer.text})")
    return answer.json["counts"]


def in_state(node, notification, state):
    eventually(lambda: counts(node, notification)[state] == 1, what=f"{notification} {state}")


@contextlib.contextmanager
def stream(node, who, *more, **query):
    """`curl -N` on the SSE stream, ended when the case is done with it."""
    url = f"{node.url}/v1/inbox/stream?{urllib.parse.urlencode(query)}"
    credential = [] if "ticket" in query else bearer(token(who))
    command = ["curl", "--silent", "--show-error", "-N", *credential, *more, url]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        opened = Stream(process.stdout)
        opened.next(lambda block: block.retry is not None, "retry: at the start")
        yield opened
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def waiting_poll(node, who, seconds):
    """A long poll that is on its way before the body runs; gives a function that waits for its answer."""
    command = ["curl", "--silent", "--show-error", "-v", "--max-time", REQUEST_SECONDS, *bearer(token(who)),
               poll_url(node, wait=seconds)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    said = iter(process.stderr.readline, "")
    # The blank line after the request's head.
    assert any(line.strip() == ">" for line in said), "curl sent no request"
    rest = threading.Thread(target=lambda: list(said), daemon=True)
    rest.start()
    # The node has taken this one after the other.
    curl(*bearer(READER), f"{node.url}/v1/notifications/none")

    def answer():
        text = process.stdout.read()
        equal(process.wait(), 0, "curl's exit status")
        return json.loads(text)

    try:
        yield answer
    finally:
        process.kill()
        process.wait()


@case
def the_operations_port_tells_health_and_readiness(node):
    equal(curl(f"http://{node.ops}/health").status, 200, "/health")
    equal(curl(f"http://{node.ops}/ready").status, 200, "/ready")
    published(node, users=[user()], data=1)
    assert node.metric("postrider_notifications_accepted_total") >= 1


@case
def a_published_notification_is_polled_and_settled_by_the_next_cursor(node):
    who = user()
    sent = published(node, users=[who], subject="Order shipped", data={"order": 7})
    first = poll(node, who)
    equal(ids(first["notifications"]), [sent])
    entry = first["notifications"][0]
    equal((entry["subject"], entry["data"]), ("Order shipped", {"order": 7}))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", entry["time"]), entry["time"]
    equal(counts(node, sent)["pending"], 1, "pending before the next poll")
    equal(poll(node, who, cursor=first["cursor"])["notifications"], [], "after the cursor")
    in_state(node, sent, "delivered")
    equal(poll(node, who)["notifications"], [], "for a session without a cursor")


@case
def a_poll_waits_for_what_comes(node):
    who = user()
    with waiting_poll(node, who, 30) as answer:
        sent = published(node, users=[who], data="now")
        equal(ids(answer()["notifications"]), [sent])


@case
def a_poll_in_vain_ends_after_its_wait(node):
    answer = curl(*bearer(token(user())), poll_url(node, wait=1))
    equal(answer.status, 200)
    equal((answer.json["notifications"], answer.json["events"], answer.json["gap"]), ([], [], False))
    assert 0.9 <= answer.seconds < 15, f"{answer.seconds} s"


@case
def a_poll_gives_at_most_its_limit_in_order(node):
    who = user()
    sent = [published(node, users=[who], data=number) for number in range(5)]
    got, cursor = [], {}
    for _ in range(3):
        answer = poll(node, who, limit=2, **cursor)
        assert len(answer["notifications"]) <= 2
        got += ids(answer["notifications"])
        cursor = {"cursor": answer["cursor"]}
    equal(got, sent)


@case
def a_stream_brings_events_and_bare_ids_and_resumes(node):
    who = user()
    first = published(node, users=[who], data={"n": 1})
    with stream(node, who, ack="none") as events:
        block = events.event("notification")
        entry = json.loads(block.data)
        equal((entry["id"], entry["data"]), (first, {"n": 1}))
        equal(block.id, None, "an entry's block has no id of its own")
        cursor = events.cursor()
    second = published(node, users=[who], data={"n": 2})
    with stream(node, who, "--header", f"Last-Event-ID: {cursor}", ack="none") as events:
        equal(json.loads(events.event("notification").data)["id"], second, "after Last-Event-ID")
    with stream(node, who, cursor=cursor, ack="none") as events:
        equal(json.loads(events.event("notification").data)["id"], second, "after ?cursor=")


@case
def a_stream_settles_on_the_evidence_of_tcp(node):
    who = user()
    with stream(node, who) as events:
        sent = published(node, users=[who], data=1)
        events.event("notification")
        in_state(node, sent, "delivered")
    answer = curl(*bearer(READER), f"{node.url}/v1/notifications/{sent}/timeline?user={who}")
    equal(answer.status, 200)
    told = {event["event"]: event for event in answer.json["events"]}
    assert {"accepted", "delivered"} <= told.keys(), answer.text
    equal((told["delivered"]["evidence"], told["delivered"]["transport"]), ("tcp", "sse"))


@case
def an_explicit_session_settles_only_on_the_clients_word(node):
    who = user()
    sent = published(node, users=[who], data=1)
    answer = poll(node, who, ack="explicit")
    poll(node, who, ack="explicit", cursor=answer["cursor"])
    equal(counts(node, sent)["pending"], 1, "pending after a cursor")
    equal(post(node, "/v1/inbox/ack", who, {"ids": [sent]}), {"settled": 1})
    equal(counts(node, sent)["delivered"], 1, "delivered, at once")
    equal(post(node, "/v1/inbox/ack", who, {"ids": [sent, "never-sent"]}), {"settled": 0})
    equal(post(node, "/v1/inbox/read", who, {"ids": [sent]}), {"settled": 1})
    equal(counts(node, sent)["read"], 1, "read, at once")


@case
def a_cursor_can_be_acknowledged(node):
    who = user()
    sent = [published(node, users=[who], data=number) for number in range(3)]
    answer = poll(node, who, ack="explicit")
    equal(ids(answer["notifications"]), sent)
    equal(post(node, "/v1/inbox/ack", who, {"cursor": answer["cursor"]}), {"settled": 3})
    equal(poll(node, who)["notifications"], [])


@case
def read_on_one_device_is_told_to_the_other(node):
    who = user()
    with stream(node, who, ack="explicit") as other:
        sent = published(node, users=[who], data=1)
        other.event("notification")
        post(node, "/v1/inbox/read", who, {"ids": [sent]})
        equal(json.loads(other.event("read").data), {"ids": [sent]})


@case
def data_is_delivered_as_it_was_written(node):
    who = user()
    data = r'{"big":123456789012345678901234567890,"exact":1.10,"exp":1E+2,"esc":"\u00e9\/\ud83d\ude00 a  b","z":1,"a":[],"é":"ü\n"}'
    answer = publish(node, f'{{"users":["{who}"],"data":{data}}}')
    equal(answer.status, 202, answer.text)
    raw = curl(*bearer(token(who)), poll_url(node, wait=0, ack="none")).text
    assert data in raw, f"{data} is not in {raw}"
    with stream(node, who, ack="none") as events:
        block = events.event("notification")
        assert data in block.data, block.data


PROBLEMS = [
    # what, status, code, how
    ("no token", 401, "token_missing", lambda n: curl(f"{n.url}/v1/inbox?wait=0")),
    ("no token at all", 401, "token_malformed", lambda n: curl(*bearer("nonsense"), f"{n.url}/v1/inbox?wait=0")),
    ("another's signature", 401, "token_signature",
     lambda n: curl(*bearer(token("ada", secret="another-secret-of-enough-bytes-here")), f"{n.url}/v1/inbox?wait=0")),
    ("an old token", 401, "token_expired", lambda n: curl(*bearer(token("ada", -60)), f"{n.url}/v1/inbox?wait=0")),
    ("a token of nobody", 401, "token_claims",
     lambda n: curl(*bearer(token("ada", sub=None)), f"{n.url}/v1/inbox?wait=0")),
    ("a token without end", 401, "token_claims",
     lambda n: curl(*bearer(token("ada", exp=None)), f"{n.url}/v1/inbox?wait=0")),
    ("no key", 401, "key_missing", lambda n: curl(f"{n.url}/v1/notifications", body='{"users":["a"],"data":1}')),
    ("an unknown key", 401, "key_invalid", lambda n: publish(n, {"users": ["a"], "data": 1}, "unknown-key")),
    ("a key that may not publish", 403, "scope", lambda n: publish(n, {"users": ["a"], "data": 1}, READER)),
    ("a key that may not broadcast", 403, "scope", lambda n: publish(n, {"data": 1}, PUBLISHER)),
    ("no data", 400, "invalid_notification", lambda n: publish(n, {"users": ["a"]})),
    ("no JSON", 400, "invalid_notification", lambda n: publish(n, '{"users":["a"],"data":')),
    ("an unknown field", 400, "invalid_notification", lambda n: publish(n, {"users": ["a"], "data": 1, "dat": 2})),
    ("users and topics", 400, "invalid_notification",
     lambda n: publish(n, {"users": ["a"], "topics": ["t"], "data": 1})),
    ("nobody", 400, "empty_audience", lambda n: publish(n, {"users": [], "data": 1})),
    ("transient and collapsed", 400, "invalid_notification",
     lambda n: publish(n, {"users": ["a"], "data": 1, "durability": "transient", "collapse_key": "k"})),
    ("an unknown policy", 400, "invalid_notification",
     lambda n: publish(n, {"users": ["a"], "data": 1, "policy": "no-such-policy"})),
    ("a topic of other letters", 400, "invalid_notification",
     lambda n: publish(n, {"topics": ["no spaces"], "data": 1})),
    ("too much data", 413, "too_large", lambda n: publish(n, {"users": ["a"], "data": "x" * (256 * 1024 + 1)})),
    ("too many users", 413, "too_large",
     lambda n: publish(n, {"users": [f"u{number}" for number in range(10_001)], "data": 1})),
    ("too deep", 400, "invalid_notification",
     lambda n: publish(n, '{"users":["a"],"data":' + "[" * 70 + "]" * 70 + "}")),
    ("no cursor of ours", 400, "invalid_cursor",
     lambda n: curl(*bearer(token("ada")), poll_url(n, wait=0, cursor="not-a-cursor"))),
    ("an unknown notification", 404, "not_found", lambda n: curl(*bearer(READER), f"{n.url}/v1/notifications/none")),
    ("cancelling the unknown", 404, "not_found",
     lambda n: curl("--request", "DELETE", *bearer(KEY), f"{n.url}/v1/notifications/none")),
    ("an unknown path", 404, "not_found", lambda n: curl(*bearer(token("ada")), f"{n.url}/v1/no/such/path")),
]


@case
def errors_are_problem_details_with_their_codes(node):
    wrong = []
    for what, status, code, request in PROBLEMS:
        answer = request(node)
        kind = answer.headers.get("content-type", "").split(";")[0]
        if (answer.status, kind) != (status, "application/problem+json"):
            wrong.append(f"{what}: {answer.status} {kind} {answer.text[:200]}")
            continue
        problem = answer.json
        missing = {"type", "title", "status", "detail", "code"} - problem.keys()
        if missing or (problem["status"], problem["code"]) != (status, code):
            wrong.append(f"{what}: {answer.text[:200]} (expected {code}, missing {sorted(missing)})")
    assert not wrong, "\n       ".join(["", *wrong])


@case
def a_problem_points_to_the_place(node):
    answer = publish(node, {"users": ["a"], "data": 1, "surprise": True})
    equal(answer.json.get("pointer"), "/surprise", f"pointer in {answer.text}")


@case
def one_id_is_delivered_once(node):
    who, name = user(), user("order")
    first = publish(node, {"users": [who], "data": {"n": 1}, "id": name})
    again = publish(node, {"users": [who], "data": {"n": 1}, "id": name})
    equal((first.status, again.status, again.json), (202, 202, first.json))
    other = publish(node, {"users": [who], "data": {"n": 2}, "id": name})
    equal((other.status, other.json["code"]), (409, "id_conflict"))
    equal(ids(poll(node, who)["notifications"]), [name])


@case
def a_request_with_an_idempotency_key_is_done_once(node):
    who, key = user(), ["--header", f"Idempotency-Key: {user('request')}"]
    first = publish(node, {"users": [who], "data": 1}, KEY, *key)
    again = publish(node, {"users": [who], "data": 1}, KEY, *key)
    equal((first.status, again.status, again.json), (202, 202, first.json))
    equal(len(poll(node, who)["notifications"]), 1)


@case
def an_array_is_taken_item_by_item(node):
    who = user()
    answer = publish(node, [{"users": [who], "data": 1}, {"users": [who]}, {"users": [who], "data": 3}])
    equal(answer.status, 202, f"status ({answer.text})")
    equal([item["index"] for item in answer.json["accepted"]], [0, 2])
    equal([(item["index"], item["code"]) for item in answer.json["rejected"]], [(1, "invalid_notification")])
    equal(ids(poll(node, who)["notifications"]), [item["id"] for item in answer.json["accepted"]])


@case
def a_transient_notification_reaches_only_who_is_there(node):
    who = user()
    published(node, users=[who], data="missed", durability="transient")
    with stream(node, who) as events:
        published(node, users=[who], data="seen", durability="transient")
        equal(json.loads(events.event("notification").data)["data"], "seen")
    equal(poll(node, who)["notifications"], [])


@case
def a_cancelled_notification_is_withdrawn(node):
    who = user()
    with stream(node, who, ack="explicit") as events:
        sent = published(node, users=[who], data=1)
        events.event("notification")
        answer = curl("--request", "DELETE", *bearer(KEY), f"{node.url}/v1/notifications/{sent}")
        equal((answer.status, answer.json), (200, {"cancelled": 1}))
        equal(json.loads(events.event("withdrawn").data), {"id": sent, "reason": "cancelled"})
    equal(poll(node, who)["notifications"], [])
    equal(counts(node, sent)["cancelled"], 1)


@case
def everyone_is_everyone_less_the_excluded(_node):
    # A node of its own: a broadcast is retained for users yet unseen.
    with Node() as own:
        one, two, excluded = user(), user(), user()
        sent = published(own, data="to all", exclude_users=[excluded])
        equal(ids(poll(own, one)["notifications"]), [sent])
        equal(ids(poll(own, two)["notifications"]), [sent])
        equal(poll(own, excluded)["notifications"], [])
        answer = curl(*bearer(READER), f"{own.url}/v1/notifications/{sent}").json
        equal(answer["audience"]["kind"], "everyone")
        equal((answer["audience"]["count"], answer["counts"]["pending"]), (None, None))


@case
def the_history_pages_back_with_states(node):
    who = user()
    sent = [published(node, users=[who], data=number) for number in range(3)]
    post(node, "/v1/inbox/read", who, {"ids": [sent[1]]})

    def page(**query):
        url = f"{node.url}/v1/inbox/history?{urllib.parse.urlencode(query)}"
        answer = curl(*bearer(token(who)), url)
        equal(answer.status, 200, answer.text)
        return answer.json

    newest = page(limit=2)
    mine = [entry for entry in newest["notifications"] if entry["id"] in sent]
    equal(ids(mine), [sent[2], sent[1]], "newest first")
    equal([entry["state"] for entry in mine], ["pending", "read"])
    assert sent[0] in ids(page(limit=50, before=newest["cursor"])["notifications"])


@case
def a_ticket_opens_a_stream(node):
    who = user()
    sent = published(node, users=[who], data=1)
    answer = curl("--request", "POST", *bearer(token(who)), f"{node.url}/v1/tickets")
    equal((answer.status, answer.json["expires_in"]), (201, 30))
    with stream(node, who, ticket=answer.json["ticket"]) as events:
        equal(json.loads(events.event("notification").data)["id"], sent)
    made_up = curl(f"{node.url}/v1/inbox?wait=0&ticket=made-up")
    equal(made_up.status, 401)


@case
def what_was_accepted_survives_a_restart_and_a_kill(_node):
    with Node() as own:
        who = user()
        sent = [published(own, users=[who], data="before the drain")]
        equal(own.stop(), 0, "exit status after a drain")
        own.start()
        sent.append(published(own, users=[who], data="before the kill"))
        own.process.send_signal(signal.SIGKILL)
        own.process.wait()
        own.start()
        answer = poll(own, who)
        equal(ids(answer["notifications"]), sent)
        equal(poll(own, who, cursor=answer["cursor"])["notifications"], [])


@case
def a_drain_answers_polls_and_ends_streams(_node):
    with Node() as own:
        with waiting_poll(own, user(), 60) as answer, stream(own, user()) as events:
            own.terminate()
            equal(answer()["notifications"], [])
            ended = events.end()
            assert any(block.retry is not None for block in ended), f"no retry: before the end: {ended}"
        equal(own.ended(), 0, "exit status")


TRUSTING = ["--cacert", str(CERTIFICATE)]
# What curl is told, what it must have spoken, and the node it speaks to.
HTTP2_WAYS = [
    (["--http2", *TRUSTING], WITH_TLS),
    (["--http2-prior-knowledge"], {}),
]


def spoken(*arguments):
    """The version of HTTP that curl and the node agreed on."""
    command = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_version}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout


@case
def http_2_serves_the_api_and_the_inbox(_node):
    for way, settings in HTTP2_WAYS:
        with Node(settings) as own:
            who = user()
            equal(spoken(*way, f"{own.url}/none"), "2", f"version by {way[0]}")
            answer = publish(own, {"users": [who], "data": {"n": 1}}, KEY, *way)
            equal(answer.status, 202, f"status ({answer.text})")
            polled = curl(*way, *bearer(token(who)), poll_url(own, wait=0))
            equal(ids(polled.json["notifications"]), [answer.json["id"]])
            cursor = polled.json["cursor"]
            equal(curl(*way, *bearer(token(who)), poll_url(own, wait=0, cursor=cursor)).json["notifications"], [])
            look = [*way, *bearer(KEY), f"{own.url}/v1/notifications/{answer.json['id']}"]
            eventually(lambda look=look: curl(*look).json["counts"]["delivered"] == 1, what="delivered")
            refused = curl(*way, *bearer(token(who)), f"{own.url}/v1/inbox/ws")
            equal((refused.status, refused.json["code"]), (426, "upgrade_required"), "a WebSocket over HTTP/2")
            assert "upgrade" not in refused.headers, refused.headers


@case
def http_2_streams_events_and_resumes_them(_node):
    for way, settings in HTTP2_WAYS:
        with Node(settings) as own:
            who = user()

            def put(n, own=own, way=way, who=who):
                answer = publish(own, {"users": [who], "data": n}, KEY, *way)
                equal(answer.status, 202, f"status ({answer.text})")
                return answer.json["id"]

            with stream(own, who, *way) as events:
                first = put(1)
                equal(json.loads(events.event("notification").data)["id"], first)
                cursor = events.cursor()
            second = put(2)
            with stream(own, who, *way, "--header", f"Last-Event-ID: {cursor}") as events:
                equal(json.loads(events.event("notification").data)["id"], second, "after the cursor")
                events.quiet("notification")


@case
def a_drain_ends_streams_over_http_2(_node):
    for way, settings in HTTP2_WAYS:
        with Node(settings) as own:
            with stream(own, user(), *way) as events:
                own.terminate()
                ended = events.end()
                assert any(block.retry is not None for block in ended), f"no retry: before the end: {ended}"
            equal(own.ended(), 0, "exit status")


@case
def a_client_of_http_2_that_says_no_more_is_let_go(_node):
    with Node({"http": {"head_timeout": "2s"}}) as own:
        host, _, port = own.http.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as half:
            half.sendall(b"PRI * HTTP/2.0\r\n\r\nSM")
            begun = time.monotonic()
            while half.recv(4096):
                pass
            assert time.monotonic() - begun < 20, "half a preface held the connection"
        equal(spoken("--http2-prior-knowledge", f"{own.url}/none"), "2")


@case
def a_bad_configuration_is_named_and_ends_with_2(_node):
    with tempfile.TemporaryDirectory(prefix="postrider-e2e-") as folder:
        config = pathlib.Path(folder) / "wrong.yaml"
        config.write_text("http:\n  lisen: 127.0.0.1:0\ndata_dri: x\n")
        done = subprocess.run([binary(), "serve", "--config", str(config)], cwd=folder, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60, check=False)
        equal(done.returncode, 2, "exit status")
        said = done.stdout + done.stderr
        for word in ("wrong.yaml", "lisen", "http.listen", "data_dri", "data_dir"):
            assert word in said, f"{word!r} is not in: {said}"


@case
def nothing_secret_is_logged(_node):
    with Node({"log": {"level": "trace"}}) as own:
        who, payload = user(), "a-payload-that-nobody-logs"
        credential = token(who)
        published(own, users=[who], data=payload)
        # By HTTP/2, too: its library has a log of its own.
        curl("--http2-prior-knowledge", *bearer(credential), poll_url(own, wait=0))
        curl(*bearer(credential), poll_url(own, wait=0))
        ticket = curl("--request", "POST", *bearer(credential), f"{own.url}/v1/tickets").json["ticket"]
        curl(f"{own.url}/v1/inbox?wait=0&ticket={ticket}")
        publish(own, {"users": [who], "data": payload}, "a-wrong-key-of-someone")
        curl(*bearer("a-wrong-token-of-someone"), poll_url(own, wait=0))
        equal(own.stop(), 0)
        for secret in (KEY, credential, ticket, payload, "a-wrong-key-of-someone", "a-wrong-token-of-someone"):
            assert secret not in own.log(), f"{secret[:12]}… stands in the log"


if __name__ == "__main__":
    with Node() as shared:
        status = run(shared)
        if shared.stop() != 0:
            print("FAIL the shared node did not end with 0")
            status = 1
    sys.exit(status)

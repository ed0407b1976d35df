"""The clients that Python programs use: httpx for HTTP and SSE, websockets for WebSocket."""

import asyncio
import contextlib
import json
import socket
import sys
import threading
import time

import httpx
import websockets
from websockets.sync.client import connect

from lib.cases import case, equal, eventually, run, user
from lib.node import KEY, READER, Node, token
from lib.sse import Stream

TIMEOUT = 40


def client(node, credential):
    return httpx.Client(base_url=node.url, headers={"Authorization": f"Bearer {credential}"}, timeout=TIMEOUT)


def published(node, **notification):
    """Publishes what has to be accepted; its id."""
    with client(node, KEY) as back_end:
        answer = back_end.post("/v1/notifications", json=notification)
    equal(answer.status_code, 202, f"status ({answer.text})")
    return answer.json()["id"]


def counts(node, notification):
    with client(node, READER) as back_end:
        answer = back_end.get(f"/v1/notifications/{notification}")
    equal(answer.status_code, 200, answer.text)
    return answer.json()["counts"]


def in_state(node, notification, state, seconds=30):
    eventually(lambda: counts(node, notification)[state] == 1, seconds, f"{notification} {state}")


def poll(http, **query):
    answer = http.get("/v1/inbox", params={"wait": 0} | query)
    equal(answer.status_code, 200, answer.text)
    return answer.json()


def ids(entries):
    return [entry["id"] for entry in entries]


class Socket:
    """A WebSocket session whose frames can be waited for by type."""

    def __init__(self, node, credential, **query):
        address = f"ws://{node.http}/v1/inbox/ws?{httpx.QueryParams(query)}"
        opening = connect(address, additional_headers={"Authorization": f"Bearer {credential}"},
                          subprotocols=["postrider.v1"], open_timeout=30, close_timeout=5, ping_interval=None)
        self._opened = contextlib.ExitStack()
        self.wire = self._opened.enter_context(opening)
        self.id = self.next("hello")["session"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._opened.close()

    def send(self, **frame):
        self.wire.send(json.dumps(frame))

    def next(self, *kinds, seconds=30):
        """The next frame of one of these types; those before it are passed over."""
        deadline, seen = time.monotonic() + seconds, []
        while True:
            try:
                frame = json.loads(self.wire.recv(max(0.0, deadline - time.monotonic())))
            except TimeoutError:
                raise AssertionError(f"no {kinds} frame within {seconds} s; seen: {seen}") from None
            except websockets.ConnectionClosed as closed:
                raise AssertionError(f"closed ({closed}) before a {kinds} frame; seen: {seen}") from None
            if frame["type"] in kinds:
                return frame
            seen.append(frame)

    def quiet(self, kind, seconds=1.0):
        deadline = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError):
            while (left := deadline - time.monotonic()) > 0:
                frame = json.loads(self.wire.recv(left))
                assert frame["type"] != kind, f"unexpected {frame}"

    def closed(self, seconds=30):
        """Waits for the server's close: its code and its reason, which is JSON."""
        deadline = time.monotonic() + seconds
        try:
            while True:
                self.wire.recv(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise AssertionError(f"not closed within {seconds} s") from None
        except websockets.ConnectionClosed as closed:
            assert closed.rcvd is not None, "the connection broke without a close frame"
            return closed.rcvd.code, json.loads(closed.rcvd.reason)


@contextlib.contextmanager
def stream(node, credential, headers=None, **query):
    """The SSE stream through httpx."""
    with client(node, credential) as http:
        with http.stream("GET", "/v1/inbox/stream", params=query, headers=headers) as answer:
            equal(answer.status_code, 200)
            equal(answer.headers["content-type"].split(";")[0], "text/event-stream")
            try:
                yield Stream(answer.iter_lines())
            finally:
                # Closing alone would leave the reading thread, and so the connection, waiting.
                # Where the server ended it, it is closed already.
                with contextlib.suppress(OSError):
                    answer.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)


# Publishing


@case
def one_object_and_an_array(node):
    who = user()
    with client(node, KEY) as back_end:
        one = back_end.post("/v1/notifications", json={"users": [who], "data": 1})
        equal(one.status_code, 202, one.text)
        many = back_end.post("/v1/notifications", json=[{"users": [who], "data": number} for number in range(100)])
        equal((many.status_code, len(many.json()["accepted"]), many.json()["rejected"]), (202, 100, []))
    with client(node, token(who)) as http:
        got = poll(http, limit=1000)["notifications"]
    equal(ids(got), [one.json()["id"], *ids(many.json()["accepted"])])


@case
def ndjson_is_answered_line_by_line(node):
    who = user()
    lines = [json.dumps({"users": [who], "data": number}) for number in range(50)]
    lines[20] = '{"users": ["x"], "data": '
    lines[30] = '{"users": ["x"]}'

    def body():
        for line in lines:
            yield (line + "\n").encode()

    with client(node, KEY) as back_end:
        answer = back_end.post("/v1/notifications", content=body(), headers={"Content-Type": "application/x-ndjson"})
    assert answer.status_code in (200, 202), answer.text
    equal(answer.headers["content-type"].split(";")[0], "application/x-ndjson")
    told = [json.loads(line) for line in answer.text.splitlines() if line]
    equal(len(told), len(lines), "lines of the answer")
    equal([number for number, line in enumerate(told) if "code" in line], [20, 30], "the rejected lines")
    with client(node, token(who)) as http:
        got = ids(poll(http, limit=1000)["notifications"])
    equal(got, [line["id"] for line in told if "code" not in line], "what arrived")


@case
def ndjson_is_durable_while_the_request_goes_on(node):
    """What one line said arrives though the request has not ended."""
    who, more = user(), threading.Event()

    def body():
        yield (json.dumps({"users": [who], "data": "first"}) + "\n").encode()
        assert more.wait(20), "nobody let the request go on"
        yield (json.dumps({"users": [who], "data": "second"}) + "\n").encode()

    def send():
        with client(node, KEY) as back_end:
            answers.append(
                back_end.post("/v1/notifications", content=body(), headers={"Content-Type": "application/x-ndjson"})
            )

    answers = []
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        with client(node, token(who)) as http:
            first = poll(http, wait=20)
            equal([entry["data"] for entry in first["notifications"]], ["first"])
            more.set()
            second = poll(http, wait=20, cursor=first["cursor"])
            equal([entry["data"] for entry in second["notifications"]], ["second"])
    finally:
        more.set()
        sender.join(20)
    equal(len(answers[0].text.splitlines()), 2, "lines of the answer")


@case
def a_scheduled_notification_comes_when_it_is_due(node):
    who = user()
    due = time.time() + 2
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(due)) + f".{int(due % 1 * 1000):03}Z"
    sent = published(node, users=[who], data=1, deliver_at=stamp)
    with client(node, token(who)) as http:
        early = poll(http)["notifications"]
        # On a machine that stood still meanwhile it may be due already.
        assert not early or time.time() >= due - 0.01, f"{early} before it is due"
        got = poll(http, wait=20)["notifications"]
        equal(ids(got), [sent])
        assert time.time() >= due - 0.01, f"{due - time.time():.3f} s early"


@case
def what_is_not_fetched_in_time_expires(node):
    who = user()
    sent = published(node, users=[who], data=1, ttl=1)
    in_state(node, sent, "expired")
    with client(node, token(who)) as http:
        equal(poll(http)["notifications"], [])


@case
def a_newer_one_collapses_the_older(node):
    who, key = user(), user("key")
    with Socket(node, token(who), ack="explicit") as session:
        old = published(node, users=[who], data="old", collapse_key=key)
        equal(session.next("notification")["id"], old)
        new = published(node, users=[who], data="new", collapse_key=key)
        seen = [session.next("notification", "withdrawn") for _ in range(2)]
        equal({frame["type"]: frame["id"] for frame in seen}, {"notification": new, "withdrawn": old})
        equal([frame["reason"] for frame in seen if frame["type"] == "withdrawn"], ["collapsed"])
    with client(node, token(who)) as http:
        equal(ids(poll(http)["notifications"]), [new])


# Receiving by httpx


@case
def polls_and_acks_alternate_on_one_connection(node):
    who, opened = user(), []

    class Counting(httpx.HTTPTransport):
        def handle_request(self, request):
            answer = super().handle_request(request)
            opened.append(answer.extensions["network_stream"].get_extra_info("client_addr"))
            return answer

    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
    with httpx.Client(base_url=node.url, headers={"Authorization": f"Bearer {token(who)}"}, timeout=TIMEOUT,
                      transport=Counting(limits=limits)) as http:
        cursor = {}
        for number in range(20):
            sent = published(node, users=[who], data=number)
            answer = poll(http, wait=10, ack="explicit", **cursor)
            equal(ids(answer["notifications"]), [sent])
            cursor = {"cursor": answer["cursor"]}
            equal(http.post("/v1/inbox/ack", json={"ids": [sent]}).json(), {"settled": 1})
    equal(len(opened), 40, "requests")
    equal(len(set(opened)), 1, "connections")


@case
def a_poll_in_vain_leaves_its_connection_usable(node):
    who = user()
    with client(node, token(who)) as http:
        for _ in range(2):
            equal(poll(http, wait=1)["notifications"], [])
        sent = published(node, users=[who], data=1)
        equal(ids(poll(http, wait=10)["notifications"]), [sent])


@case
def a_stream_is_read_and_resumed(node):
    who = user()
    sent = [published(node, users=[who], data=number) for number in range(3)]
    with stream(node, token(who), ack="none") as events:
        equal([json.loads(events.event("notification").data)["id"] for _ in sent], sent)
        cursor = events.cursor()
    late = published(node, users=[who], data="late")
    with stream(node, token(who), {"Last-Event-ID": cursor}, ack="none") as events:
        equal(json.loads(events.event("notification").data)["id"], late)


@case
def a_stream_ends_with_its_token(node):
    # Later than a machine that stands still takes to open the stream.
    until = int(time.time()) + 7
    with stream(node, token(user(), exp=until)) as events:
        events.end()
        assert time.time() >= until - 0.01, "it ended before the token did"


@case
def many_sessions_at_once_each_get_their_own(node):
    who = [user() for _ in range(200)]
    common = "common to many"

    async def session(http, name):
        first = await http.get("/v1/inbox", params={"wait": 30}, headers={"Authorization": f"Bearer {token(name)}"})
        return first.json()

    async def everyone():
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=node.url, timeout=TIMEOUT, limits=limits) as http:
            sessions = [asyncio.create_task(session(http, name)) for name in who]
            answer = await http.post("/v1/notifications", json={"users": who, "data": common},
                                     headers={"Authorization": f"Bearer {KEY}"})
            equal(answer.status_code, 202, answer.text)
            return answer.json()["id"], await asyncio.gather(*sessions)

    sent, answers = asyncio.run(everyone())
    equal([ids(answer["notifications"]) for answer in answers], [[sent]] * len(who))


# Receiving by WebSocket


@case
def a_socket_greets_delivers_and_tells_its_cursor(node):
    who = user()
    sent = published(node, users=[who], subject="s", data={"n": 1})
    with Socket(node, token(who)) as session:
        equal(session.wire.subprotocol, "postrider.v1")
        entry = session.next("notification")
        equal((entry["id"], entry["subject"], entry["data"]), (sent, "s", {"n": 1}))
        assert session.next("cursor")["cursor"]
        # The library answers the ping that rides with the entry.
        in_state(node, sent, "delivered")


@case
def a_socket_needs_no_subprotocol(node):
    who = user()
    sent = published(node, users=[who], data=1)
    with connect(f"ws://{node.http}/v1/inbox/ws", additional_headers={"Authorization": f"Bearer {token(who)}"}) as wire:
        equal(wire.subprotocol, None)
        frames = [json.loads(wire.recv(10)) for _ in range(2)]
        equal([frame["type"] for frame in frames], ["hello", "notification"])
        equal(frames[1]["id"], sent)


@case
def a_socket_resumes_by_cursor(node):
    who = user()
    with Socket(node, token(who), ack="none") as session:
        first = published(node, users=[who], data=1)
        equal(session.next("notification")["id"], first)
        cursor = session.next("cursor")["cursor"]
    second = published(node, users=[who], data=2)
    with Socket(node, token(who), ack="none", cursor=cursor) as session:
        equal(session.next("notification")["id"], second)


@case
def one_cursor_serves_every_transport(node):
    who = user()
    sent = [published(node, users=[who], data=number) for number in range(4)]
    with client(node, token(who)) as http:
        answer = poll(http, limit=1, ack="none")
        equal(ids(answer["notifications"]), sent[:1])
    with Socket(node, token(who), ack="none", cursor=answer["cursor"]) as session:
        equal([session.next("notification")["id"] for _ in range(3)], sent[1:])
        cursor = session.next("cursor")["cursor"]
    late = published(node, users=[who], data="late")
    with stream(node, token(who), ack="none", cursor=cursor) as events:
        equal(json.loads(events.event("notification").data)["id"], late)
        cursor = events.cursor()
    with client(node, token(who)) as http:
        equal(poll(http, ack="none", cursor=cursor)["notifications"], [])


@case
def acks_and_reads_go_over_the_socket(node):
    who = user()
    sent = [published(node, users=[who], data=number) for number in range(3)]
    with Socket(node, token(who), ack="explicit") as one, Socket(node, token(who), ack="explicit") as other:
        for device in (one, other):
            equal([device.next("notification")["id"] for _ in sent], sent)
        one.send(type="ack", ids=[sent[0]])
        in_state(node, sent[0], "delivered")
        one.send(type="read", ids=[sent[1]])
        equal(other.next("read")["ids"], [sent[1]])
        in_state(node, sent[1], "read")
        equal(counts(node, sent[2])["pending"], 1)
        one.send(type="ack", cursor=one.next("cursor")["cursor"])
        in_state(node, sent[2], "delivered")


@case
def the_first_device_takes_it_from_the_others(node):
    who = user()
    with Socket(node, token(who), ack="explicit") as one, stream(node, token(who), ack="explicit") as other:
        sent = published(node, users=[who], data=1, devices="first")
        equal(one.next("notification")["id"], sent)
        equal(json.loads(other.event("notification").data)["id"], sent)
        one.send(type="ack", ids=[sent], ref=1)
        equal(one.next("settled")["settled"], 1, "it was the first")
        equal(json.loads(other.event("withdrawn").data), {"id": sent, "reason": "taken"})
        with client(node, token(who)) as http:
            equal(http.post("/v1/inbox/ack", json={"ids": [sent]}).json(), {"settled": 0}, "another was the first")
        last = published(node, users=[who], data=2)
        equal(one.next("notification", "withdrawn")["id"], last, "the taker is not told")
        equal(counts(node, sent)["delivered"], 1)


@case
def what_is_not_acknowledged_is_sent_again(_node):
    with Node({"delivery": {"ack_timeout": "500ms", "max_attempts": 2}}) as own:
        who = user()
        with Socket(own, token(who), ack="explicit") as one, stream(own, token(who), ack="explicit") as other:
            sent = published(own, users=[who], data=1)
            first, second = one.next("notification"), one.next("notification")
            equal((first["id"], first.get("attempt"), second["id"]), (sent, None, sent))
            assert second["attempt"] >= 2, second
            equal(one.next("error"), {"type": "error", "code": "delivery_stalled", "ids": [sent]})
            first, second = (json.loads(other.event("notification").data) for _ in range(2))
            equal((first["id"], first.get("attempt"), second["id"]), (sent, None, sent))
            assert second["attempt"] >= 2, second
            equal(json.loads(other.event("delivery_stalled").data), {"ids": [sent]})
            equal(counts(own, sent)["pending"], 1, "pending for others")
        with Socket(own, token(who), ack="explicit") as session:
            entry = session.next("notification")
            equal(entry["id"], sent, "for a new session")
            assert entry["attempt"] >= 2, entry
            session.send(type="ack", ids=[sent], ref=1)
            equal(session.next("settled")["settled"], 1)
        equal(counts(own, sent)["delivered"], 1)


@case
def a_session_topic_is_heard_while_it_is_asked_for(node):
    who, topic = user(), "open/" + user("news")
    with Socket(node, token(who), topics=topic) as session:
        sent = published(node, topics=[topic], data="to the topic")
        entry = session.next("notification")
        equal((entry["id"], entry["topic"]), (sent, topic))
    with Socket(node, token(user())) as session:
        published(node, topics=[topic], data="again")
        session.quiet("notification")


@case
def a_session_ends_with_its_token(node):
    with Socket(node, token(user(), 2)) as session:
        code, reason = session.closed()
        equal((code, reason["code"]), (4001, "token_expired"))
        assert isinstance(reason["retry_ms"], int), reason


@case
def a_fresh_token_keeps_the_session(node):
    who = user()
    with Socket(node, token(who, 2)) as session:
        session.send(type="token", token=token(who, 60))
        session.quiet("error", 3.5)
        sent = published(node, users=[who], data="after the first token's end")
        equal(session.next("notification")["id"], sent)


@case
def another_users_token_does_not_take_the_session_over(node):
    with Socket(node, token(user())) as session:
        session.send(type="token", token=token(user()))
        code, reason = session.closed()
        equal((code, reason["code"]), (4500, "token_invalid"))


@case
def what_is_no_frame_ends_the_session(node):
    with Socket(node, token(user())) as session:
        session.wire.send("this is not JSON")
        code, reason = session.closed()
        equal((code, reason["code"]), (4501, "protocol"))


@case
def a_socket_without_a_good_token_is_refused(node):
    """Before the upgrade with 401, or after it with 4500: both are seen by their clients."""
    for headers in ({}, {"Authorization": "Bearer nonsense"}):
        try:
            with connect(f"ws://{node.http}/v1/inbox/ws", additional_headers=headers) as wire:
                wire.recv(10)
        except websockets.InvalidStatus as refused:
            equal(refused.response.status_code, 401)
        except websockets.ConnectionClosed as closed:
            equal(closed.rcvd.code, 4500)
        else:
            raise AssertionError("it was let in")


@case
def a_drain_closes_sockets_with_when_to_come_back(_node):
    with Node() as own:
        with Socket(own, token(user())) as session:
            own.terminate()
            code, reason = session.closed()
            equal((code, reason["code"]), (4000, "drain"))
            assert 0 <= reason["retry_ms"] <= 1000, f"{reason} is not within drain.spread"
        equal(own.ended(), 0, "exit status")


@case
def a_socket_goes_on_after_a_kill_from_its_cursor(_node):
    with Node() as own:
        who = user()
        with Socket(own, token(who), ack="none") as session:
            first = published(own, users=[who], data=1)
            equal(session.next("notification")["id"], first)
            cursor = session.next("cursor")["cursor"]
            second = published(own, users=[who], data=2)
            own.kill()
        own.start()
        with Socket(own, token(who), ack="none", cursor=cursor) as session:
            frame = session.next("notification", "gap")
            equal((frame["type"], frame.get("id")), ("notification", second))


@case
def hundreds_of_sockets_share_a_broadcast(_node):
    async def listen(address, name, ready):
        headers = {"Authorization": f"Bearer {token(name)}"}
        async with websockets.connect(address, additional_headers=headers, open_timeout=30) as wire:
            equal(json.loads(await wire.recv())["type"], "hello")
            ready.release()
            while (frame := json.loads(await wire.recv()))["type"] != "notification":
                pass
            return frame["id"]

    async def everyone(own, number):
        ready = asyncio.Semaphore(0)
        address = f"ws://{own.http}/v1/inbox/ws"
        async with asyncio.timeout(50):
            sessions = [asyncio.create_task(listen(address, f"many-{each}", ready)) for each in range(number)]
            for _ in sessions:
                await ready.acquire()
            async with httpx.AsyncClient(base_url=own.url, headers={"Authorization": f"Bearer {KEY}"}) as http:
                answer = await http.post("/v1/notifications", json={"data": "to all"})
            return answer.json()["id"], await asyncio.gather(*sessions)

    with Node() as own:
        sent, got = asyncio.run(everyone(own, 300))
        equal(set(got), {sent})


if __name__ == "__main__":
    with Node() as shared:
        status = run(shared)
        if shared.stop() != 0:
            print("FAIL the shared node did not end with 0")
            status = 1
    sys.exit(status)

"""Twirp's client for Python (the package `twirp`), with types by protoc: protobuf on the wire."""

import atexit
import importlib.resources
import json
import logging
import pathlib
import shutil
import sys
import tempfile

import httpx
from grpc_tools import protoc
from twirp.client import TwirpClient
from twirp.context import Context
from twirp.errors import Errors
from twirp.exceptions import TwirpServerException

from lib.cases import case, equal, run, user
from lib.node import KEY, PUBLISHER, READER, Node, token

PROTO = pathlib.Path(__file__).parents[2] / "proto"
SERVICE = "/twirp/postrider.v1.NotificationService/"


def types():
    """What protoc makes of the `.proto`."""
    folder = tempfile.mkdtemp(prefix="postrider-twirp-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    own = importlib.resources.files("grpc_tools") / "_proto"
    places = [f"--proto_path={PROTO}", f"--proto_path={own}", f"--python_out={folder}"]
    status = protoc.main(["protoc", *places, "postrider/v1/notifications.proto"])
    equal(status, 0, "protoc")
    sys.path.insert(0, folder)
    return importlib.import_module("postrider.v1.notifications_pb2")


v1 = types()
# The client's package turns on everybody's.
logging.getLogger("httpx").setLevel(logging.WARNING)


def call(node, credential, method, request, headers=()):
    """The answer, in the type that the `.proto` names."""
    context = Context()
    context.set_header("Authorization", f"Bearer {credential}")
    for name, value in headers:
        context.set_header(name, value)
    descriptor = v1.DESCRIPTOR.services_by_name["NotificationService"].methods_by_name[method]
    answer = getattr(v1, descriptor.output_type.name)
    client = TwirpClient(node.url, timeout=20)
    return client._make_request(url=SERVICE + method, ctx=context, request=request, response_obj=answer)


def refused(node, credential, method, request, headers=()):
    """Why it was not answered."""
    try:
        answer = call(node, credential, method, request, headers)
    except TwirpServerException as refusal:
        return refusal
    raise AssertionError(f"{method} was answered: {answer}")


def to(*users, **more):
    return v1.PublishRequest(users=v1.Users(ids=users), **{"data_json": "1"} | more)


@case
def from_publish_to_read(node):
    """published, looked up, acknowledged, read: all by protobuf"""
    ada, bob = user("ada"), user("bob")
    data = '{"z":9007199254740993,"a":[1.0]}'
    request = to(ada, bob, data_json=data, subject="Order shipped")
    request.ttl.FromSeconds(3600)
    sent = call(node, KEY, "Publish", request).id
    shown = call(node, READER, "Get", v1.GetRequest(id=sent))
    equal((shown.audience.count, shown.counts.pending, shown.subject), (2, 2, "Order shipped"))
    equal(shown.audience.kind, v1.GetResponse.Audience.KIND_USERS)
    inbox = httpx.get(f"{node.url}/v1/inbox", params={"ack": "none"}, headers={"Authorization": f"Bearer {token(ada)}"})
    assert f'"data":{data}' in inbox.text, inbox.text
    ids = v1.Ids(ids=[sent, "unknown"])
    equal(call(node, token(ada), "Ack", v1.AckRequest(ids=ids)).settled, 1)
    equal(call(node, token(ada), "Ack", v1.AckRequest(cursor=inbox.json()["cursor"])).settled, 0)
    equal(call(node, token(bob), "Read", v1.ReadRequest(ids=ids)).settled, 1)
    counts = call(node, READER, "Get", v1.GetRequest(id=sent)).counts
    equal((counts.pending, counts.delivered, counts.read), (0, 1, 1))


@case
def a_batch_with_bad_items(node):
    """a bad notification of a batch is told in its place"""
    answer = call(node, KEY, "PublishBatch", v1.PublishBatchRequest(notifications=[
        to(user()), v1.PublishRequest(data_json="1"), to(user(), data_json="{"), to(user(), ""), to(user()),
    ]))
    equal([one.index for one in answer.accepted], [0, 4])
    told = [(one.index, one.code, one.pointer) for one in answer.rejected]
    equal(told, [(1, "invalid_notification", ""), (2, "invalid_notification", "/data_json"),
                 (3, "invalid_notification", "/users/ids/1")])


@case
def values_for_data(node):
    """a google.protobuf.Value is JSON by the time it arrives"""
    ada = user("ada")
    request = v1.PublishRequest(users=v1.Users(ids=[ada]))
    request.data.struct_value.update({"b": [1, 0.5, None, True], "a": "é"})
    call(node, KEY, "Publish", request)
    inbox = httpx.get(f"{node.url}/v1/inbox", headers={"Authorization": f"Bearer {token(ada)}"})
    assert '"data":{"a":"é","b":[1,0.5,null,true]}' in inbox.text, inbox.text


@case
def twice(node):
    """an id and an Idempotency-Key hold, and are conflicts with other content"""
    ada, sent = user("ada"), user("id")
    equal(call(node, KEY, "Publish", to(ada, id=sent)).id, sent)
    equal(call(node, KEY, "Publish", to(ada, id=sent)).id, sent)
    refusal = refused(node, KEY, "Publish", to(ada, id=sent, data_json="2"))
    equal((refusal.code, refusal.meta), (Errors.AlreadyExists, {"code": "id_conflict", "pointer": "/id"}))
    key = [("Idempotency-Key", user("key"))]
    first = call(node, KEY, "Publish", to(ada), key).id
    equal(call(node, KEY, "Publish", to(ada), key).id, first)
    equal(refused(node, KEY, "Publish", to(ada, data_json="2"), key).code, Errors.AlreadyExists)


@case
def refusals(node):
    """every refusal is Twirp's, with the code of the HTTP API"""
    ada = user("ada")
    everyone = v1.PublishRequest(everyone=v1.Everyone(), data_json="1")
    for credential, method, request, code, problem in [
        ("wrong", "Publish", to(ada), Errors.Unauthenticated, "key_invalid"),
        (READER, "Publish", to(ada), Errors.PermissionDenied, "scope"),
        (PUBLISHER, "Publish", everyone, Errors.PermissionDenied, "scope"),
        (KEY, "Publish", to(), Errors.InvalidArgument, "empty_audience"),
        (KEY, "Publish", v1.PublishRequest(data_json="1"), Errors.InvalidArgument, "invalid_notification"),
        (KEY, "Publish", to(ada, data_json=json.dumps("x" * 300_000)), Errors.InvalidArgument, "too_large"),
        (KEY, "Get", v1.GetRequest(id="unknown"), Errors.NotFound, "not_found"),
        (KEY, "Cancel", v1.CancelRequest(id="unknown"), Errors.NotFound, "not_found"),
        (KEY, "Ack", v1.AckRequest(ids=v1.Ids()), Errors.Unauthenticated, "token_malformed"),
        (token(ada), "Ack", v1.AckRequest(cursor="x"), Errors.InvalidArgument, "invalid_cursor"),
    ]:
        refusal = refused(node, credential, method, request)
        equal((refusal.code, refusal.meta["code"]), (code, problem), f"{method} {problem}")


@case
def state_and_presence(node):
    """a state map is set, merged and emptied; a user is there while a session is"""
    ada = user("ada")
    equal(call(node, KEY, "GetState", v1.GetStateRequest(user=ada)).version, 0)
    call(node, KEY, "PatchState", v1.PatchStateRequest(user=ada, set={"a": "1", "b": "2"}))
    answer = call(node, KEY, "PatchState", v1.PatchStateRequest(user=ada, set={"b": "3"}, remove=["a"]))
    equal(dict(answer.state), {"b": "3"})
    equal(dict(call(node, KEY, "GetState", v1.GetStateRequest(user=ada)).state), {"b": "3"})
    refusal = refused(node, KEY, "PatchState", v1.PatchStateRequest(user=ada, set={"a": "1"}, remove=["a"]))
    equal((refusal.code, refusal.meta["code"]), (Errors.InvalidArgument, "invalid_request"))
    assert not call(node, READER, "Presence", v1.PresenceRequest(user=ada)).online
    stream = httpx.stream("GET", f"{node.url}/v1/inbox/stream", headers={"Authorization": f"Bearer {token(ada)}"})
    with stream as answer:
        lines = answer.iter_lines()
        next(lines)
        presence = call(node, READER, "Presence", v1.PresenceRequest(user=ada))
        equal((presence.online, [one.transport for one in presence.sessions]), (True, ["sse"]))


@case
def cancelled(node):
    """what is taken back is no longer pending"""
    sent = call(node, PUBLISHER, "Publish", to(user(), user())).id
    equal(call(node, PUBLISHER, "Cancel", v1.CancelRequest(id=sent)).cancelled, 2)
    equal(call(node, READER, "Get", v1.GetRequest(id=sent)).counts.cancelled, 2)


if __name__ == "__main__":
    with Node() as shared:
        status = run(shared)
        if shared.stop() != 0:
            print("FAIL the shared node did not end with 0")
            status = 1
    sys.exit(status)

"""What Schemathesis cannot know from the description: credentials, a real cursor, and what is not worth waiting for."""

import json
import urllib.request

import schemathesis
from schemathesis.generation import GenerationMode

from lib.node import KEY, token

USER = "ada"
OF_KEYS = ["Publish", "Follow up", "Dead letters", "Users", "Topics", "State and presence"]
OF_USERS = ["Receive", "Acknowledge"]
CURSORS = ("cursor", "before")
NDJSON = "application/x-ndjson"
CSV = "text/csv"
# An empty poll is not worth more than that.
MOST_WAIT_SECONDS = 1

_cursors = {}


class Bearer:
    def set(self, case, credential, context):
        case.headers["Authorization"] = f"Bearer {credential}"


@schemathesis.auth(refresh_interval=None).apply_to(tag=OF_KEYS)
class Key(Bearer):
    def get(self, case, context):
        return KEY


@schemathesis.auth(refresh_interval=None).apply_to(tag=OF_USERS)
class User(Bearer):
    def get(self, case, context):
        return token(USER)


def _is_positive(case):
    return case.meta is None or case.meta.generation.mode is GenerationMode.POSITIVE


def _cursor(case):
    """One that the node made; which texts are cursors only it knows."""
    base = case.operation.base_url
    if base not in _cursors:
        asked = urllib.request.Request(f"{base}/v1/inbox?wait=0&ack=none")
        asked.add_header("Authorization", f"Bearer {token(USER)}")
        with urllib.request.urlopen(asked, timeout=10) as answer:
            _cursors[base] = json.load(answer)["cursor"]
    return _cursors[base]


@schemathesis.hook
def filter_case(context, case):
    """Of an array, of lines and of a table each item is refused by itself, and the request is not."""
    is_array = isinstance(case.body, list) and case.operation.definition.raw["operationId"] == "publish"
    if case.operation.path == "/v1/users/{id}" and case.path_parameters.get("id") == "import":
        # A path of its own, which has more methods.
        return False
    return _is_positive(case) or not (is_array or case.media_type in (NDJSON, CSV))


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.operation.definition.raw["operationId"] == "poll":
        wait = case.query.get("wait", 30)
        if isinstance(wait, int) and MOST_WAIT_SECONDS < wait <= 120:
            case.query["wait"] = MOST_WAIT_SECONDS
    if not _is_positive(case):
        return
    bodies = [body for body in (case.body if isinstance(case.body, list) else [case.body]) if isinstance(body, dict)]
    for body in bodies:
        # Time begins with 1970, which a format does not tell.
        if str(body.get("deliver_at", "1970")) < "1970":
            body["deliver_at"] = "1970" + body["deliver_at"][4:]
    for given in (case.query, *bodies):
        for name in CURSORS:
            if given.get(name):
                given[name] = _cursor(case)
    if case.headers.get("Last-Event-ID"):
        case.headers["Last-Event-ID"] = _cursor(case)


@schemathesis.serializer(NDJSON)
def lines(context, value):
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.deserializer(NDJSON)
def as_text(context, response):
    """Links lead on from the answer to one; lines stay text."""
    return response.text

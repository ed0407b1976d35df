"""Runs a private `postrider serve` and mints what its clients need.

Everything a node makes lies in its own folder; it is ended by its process id.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import queue
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

SECRET = "an-end-to-end-secret-of-enough-bytes"
KEY = "key-of-the-back-end-with-all-scopes"
READER = "key-that-may-only-read"
PUBLISHER = "key-that-may-only-publish-to-users"

# Made for these tests, for localhost, and trusted by nobody else.
CERTIFICATE = pathlib.Path(__file__).parent / "certificate.pem"
WITH_TLS = {"http": {"tls": {"cert": str(CERTIFICATE), "key": str(CERTIFICATE.with_suffix(".key.pem"))}}}

READY_SECONDS = 60
END_SECONDS = 30

SETTINGS = {
    "http": {"listen": "127.0.0.1:0"},
    "ops": {"listen": "127.0.0.1:0"},
    "auth": {
        # No leeway: expiry is tested to the second.
        "jwt": {"hmac_secret": SECRET, "leeway": "0s"},
        "api_keys": [
            {"name": "all", "key": KEY, "scopes": ["publish", "broadcast", "manage", "read"]},
            {"name": "reader", "key": READER, "scopes": ["read"]},
            {"name": "publisher", "key": PUBLISHER, "scopes": ["publish"]},
        ],
    },
    "topics": {"open": ["open/*"]},
    "drain": {"timeout": "10s", "spread": "1s"},
}


def merged(base, changes):
    """`base` with `changes` laid over it, key by key."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


class Node:
    """One node. Its data and its address stay when it is stopped and started again."""

    def __init__(self, settings=None, program=None):
        self.program = program or binary()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="postrider-e2e-"))
        self.settings = merged(SETTINGS, settings or {})
        self.settings["data_dir"] = str(self.folder / "data")
        self.process = None
        self.http = self.ops = None

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        if self.process and self.process.poll() is None:
            self.kill()
        if kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            print(f"     the node's log ends:\n{self.log_end()}")

    def start(self):
        config = self.folder / "node.yaml"
        # JSON is YAML.
        config.write_text(json.dumps(self.settings, indent=2))
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [self.program, "serve", "--config", str(config), "--log-format", "json"],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
            )
        ready = self._ready()
        self.http, self.ops = ready["http"], ready["ops"]
        # The next start comes back to the same address.
        self.settings = merged(self.settings, {"http": {"listen": self.http}})
        return self

    def _ready(self):
        lines = queue.Queue()

        def read(pipe):
            for line in pipe:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, args=(self.process.stdout,), daemon=True).start()
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no ready line within {READY_SECONDS} s; log: {self.log_end()}") from None
            assert line is not None, f"the node ended before it was ready; log: {self.log_end()}"
            said = json.loads(line)
            if said.get("event") == "ready":
                return said

    @property
    def url(self):
        if "tls" in self.settings["http"]:
            # The name that is in the certificate.
            return f"https://localhost:{self.http.rpartition(':')[2]}"
        return f"http://{self.http}"

    def terminate(self):
        """Tells the node to drain; does not wait."""
        self.process.send_signal(signal.SIGTERM)

    def ended(self):
        """The exit status of a node that was told to end."""
        try:
            return self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the node did not end within {END_SECONDS} s of SIGTERM") from None

    def stop(self):
        self.terminate()
        return self.ended()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def log(self):
        return (self.folder / "log").read_text(errors="replace")

    def log_end(self, lines=15):
        return "\n".join("       " + line for line in self.log().splitlines()[-lines:])

    def metric(self, name):
        """The sum of a metric's samples; `name` may hold labels. None where it is not told."""
        with urllib.request.urlopen(f"http://{self.ops}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)]
        return sum(values) if values else None


def binary():
    path = os.environ.get("POSTRIDER_BIN")
    assert path, "POSTRIDER_BIN must name the binary: run `cargo xtask test --only …`"
    return path


def free_port():
    """A port that nobody listens on, below those that the kernel gives to clients."""
    for _ in range(200):
        port = random.randint(4000, 9900)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port between 4000 and 9900")


def token(user, seconds=3600, secret=SECRET, **claims):
    """A user's token. `sub` may be taken away with `sub=None`."""
    now = int(time.time())
    body = {"sub": user, "iat": now, "exp": now + seconds} | claims
    body = {name: value for name, value in body.items() if value is not None}
    parts = [_encoded({"alg": "HS256", "typ": "JWT"}), _encoded(body)]
    signature = hmac.new(secret.encode(), ".".join(parts).encode(), hashlib.sha256).digest()
    return ".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=").decode()])


def _encoded(value):
    text = json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()

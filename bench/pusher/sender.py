"""Sends numbered requests to a queue that it makes, by boto3: sender.py ENDPOINT NAME CLIENTS; prints the queue's address, then does what it is told.

`send FIRST COUNT one|all` sends as fast as the queue takes them, ten in a call, over four threads; `empty SECONDS` says `yes` once the queue is.
"""

import concurrent.futures
import json
import sys
import threading
import time

import boto3

PAYLOAD = "0123456789abcdef" * 6
THREADS = 4
OWN = threading.local()


def client():
    if not hasattr(OWN, "sqs"):
        OWN.sqs = boto3.session.Session().client("sqs", endpoint_url=sys.argv[1])
    return OWN.sqs


def body(n, who, clients):
    users = {"users": [f"u{n % clients}"]} if who == "one" else {}
    # In this order and without spaces, as the listeners look for it.
    return json.dumps(users | {"data": {"n": n, "t": time.time_ns() // 1000, "text": PAYLOAD}}, separators=(",", ":"))


def send(url, numbers, who, clients):
    entries = [{"Id": str(n), "MessageBody": body(n, who, clients)} for n in numbers]
    failed = client().send_message_batch(QueueUrl=url, Entries=entries).get("Failed")
    if failed:
        raise RuntimeError(failed)


def is_empty(url, seconds):
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        counts = client().get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        if all(int(counts[name]) == 0 for name in names):
            return True
        time.sleep(0.1)
    return False


def main(name, clients):
    url = client().create_queue(QueueName=name)["QueueUrl"]
    print(url, flush=True)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for line in sys.stdin:
            match line.split():
                case ["send", first, count, who]:
                    first, end = int(first), int(first) + int(count)
                    parts = [range(at, min(at + 10, end)) for at in range(first, end, 10)]
                    list(pool.map(lambda part: send(url, part, who, clients), parts))
                    print("sent", flush=True)
                case ["empty", seconds]:
                    print("yes" if is_empty(url, int(seconds)) else "no", flush=True)


if __name__ == "__main__":
    main(sys.argv[2], int(sys.argv[3]))

#!/usr/bin/env python3
"""What permessage-deflate would cost: frames of notifications of several sizes, compressed once each without a context
taken over (so that all sessions could share the bytes), by zlib. Prints bytes and microseconds a notification.
"""

import json, random, time, zlib

WORDS = (
    "order shipped from warehouse to customer with tracking number and expected delivery date your invoice payment "
    "received thank you for reading this message please confirm address before Monday"
).split()
FRAMES = 2000


def frame(n, words):
    text = " ".join(random.choice(WORDS) for _ in range(words))
    entry = {
        "type": "notification",
        "id": f"0193f3a4-{n & 0xFFFF:04x}-7abc-8def-{random.getrandbits(48):012x}",
        "time": f"2026-11-21T10:00:00.{n % 1000:03d}Z",
        "subject": "Order shipped",
        "expires_at": "2026-12-21T10:00:00.000Z",
        "data": {"order": n, "text": text},
    }
    return json.dumps(entry, separators=(",", ":")).encode()


def main():
    random.seed(1)
    print("| frame | level | compressed | µs a notification |\n| ---: | ---: | ---: | ---: |")
    for words in (3, 12, 60, 600):
        frames = [frame(n, words) for n in range(FRAMES)]
        mean = sum(map(len, frames)) / FRAMES
        for level in (1, 6):
            began, size = time.process_time(), 0
            for bytes_ in frames:
                deflate = zlib.compressobj(level, zlib.DEFLATED, -15)
                size += len(deflate.compress(bytes_) + deflate.flush(zlib.Z_SYNC_FLUSH)) - 4
            took = (time.process_time() - began) / FRAMES * 1e6
            print(f"| {mean:,.0f} B | {level} | {size / FRAMES:,.0f} B, {size / FRAMES / mean:.0%} | {took:.0f} |")


if __name__ == "__main__":
    main()

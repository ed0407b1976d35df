"""A straight asyncio server that takes requests from SQS and pushes them to its own clients: what Postrider's sessions are measured against.

aioboto3 for SQS (several receivers, ten messages a receive, deleted in batches), aiohttp for WebSocket, SSE and long poll, uvloop, one process. A
message is encoded once, whoever gets it. It keeps nothing: who is not connected does not get it, and nobody is asked whether he has it.
Usage: straight_sessions.py ENDPOINT QUEUE_URL RECEIVERS; prints `ready PORT`.
"""

import asyncio
import collections
import json
import sys

import aioboto3
import uvloop
from aiohttp import WSMsgType, web
from botocore.config import Config

POOL = Config(max_pool_connections=128, retries={"max_attempts": 1})


class Clients:
    """Who is connected: by user, the ways to him."""

    def __init__(self):
        self.by_user = collections.defaultdict(set)

    def add(self, user, way):
        self.by_user[user].add(way)

    def remove(self, user, way):
        ways = self.by_user[user]
        ways.discard(way)
        if not ways:
            del self.by_user[user]

    async def push(self, request):
        text = json.dumps(request["data"], separators=(",", ":"))
        users = request.get("users")
        excluded = set(request.get("exclude_users") or ())
        message = Message(text)
        for user in set(users) if users else list(self.by_user):
            if user in excluded:
                continue
            for way in list(self.by_user.get(user, ())):
                await way.push(message)


class Message:
    """A message in the form of each transport."""

    def __init__(self, text):
        self.text = text
        self.sse = f"data: {text}\n\n".encode()


class Socket:
    def __init__(self, socket):
        self.socket = socket

    async def push(self, message):
        if not self.socket.closed:
            await self.socket.send_str(message.text)


class Stream:
    def __init__(self, response):
        self.response = response

    async def push(self, message):
        await self.response.write(message.sse)


class Polled:
    """What waits for a client that polls."""

    def __init__(self):
        self.waiting = []
        self.bell = asyncio.Event()

    async def push(self, message):
        self.waiting.append(message.text)
        self.bell.set()

    async def take(self):
        try:
            await asyncio.wait_for(self.bell.wait(), 30)
        except TimeoutError:
            pass
        taken, self.waiting = self.waiting, []
        self.bell.clear()
        return taken


class Pages:
    def __init__(self, clients):
        self.clients = clients
        self.polled = {}

    async def websocket(self, request):
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        user, way = request.query["user"], Socket(socket)
        self.clients.add(user, way)
        try:
            async for said in socket:
                if said.type == WSMsgType.ERROR:
                    break
        finally:
            self.clients.remove(user, way)
        return socket

    async def sse(self, request):
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
        await response.prepare(request)
        await response.write(b": hello\n\n")
        user, way = request.query["user"], Stream(response)
        self.clients.add(user, way)
        try:
            while request.transport is not None and not request.transport.is_closing():
                await asyncio.sleep(15)
                await response.write(b": keep-alive\n\n")
        finally:
            self.clients.remove(user, way)
        return response

    async def poll(self, request):
        user = request.query["user"]
        way = self.polled.get(user)
        if way is None:
            way = self.polled[user] = Polled()
            self.clients.add(user, way)
        taken = await way.take()
        return web.Response(body=f"[{','.join(taken)}]".encode(), content_type="application/json")


async def receiver(sqs, queue, clients):
    while True:
        answer = await sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=20)
        messages = answer.get("Messages", [])
        if not messages:
            continue
        for message in messages:
            await clients.push(json.loads(message["Body"]))
        entries = [{"Id": str(n), "ReceiptHandle": one["ReceiptHandle"]} for n, one in enumerate(messages)]
        await sqs.delete_message_batch(QueueUrl=queue, Entries=entries)


async def main(endpoint, queue, receivers):
    clients = Clients()
    pages = Pages(clients)
    app = web.Application()
    app.add_routes(
        [web.get("/ws", pages.websocket), web.get("/sse", pages.sse), web.get("/poll", pages.poll)]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with aioboto3.Session().client("sqs", endpoint_url=endpoint, config=POOL) as sqs:
        print("ready", runner.addresses[0][1], flush=True)
        await asyncio.gather(*(receiver(sqs, queue, clients) for _ in range(receivers)))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))

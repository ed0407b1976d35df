"""Members of topics: users join, leave and come back at random while clients over three transports come and go.

Whatever happens, each device gets what was published while its user was a member, all of it, nothing else, and what was
published to one topic in its order.
"""

import asyncio
import collections
import contextlib
import json
import os
import random
import sys

import httpx
import websockets

from lib.cases import case, run
from lib.node import KEY, Node, token

USERS = [f"user-{n}" for n in range(6)]
TOPICS = ["news", "sport/eu", "a+b@c"]
STEPS = 140
LIFE_SECONDS = 2
ARRIVE_SECONDS = 40
AWAY = (OSError, EOFError, httpx.HTTPError, websockets.WebSocketException, asyncio.TimeoutError, StopAsyncIteration)


class Device:
    """A client that keeps its cursor over one session after another."""

    def __init__(self, node, user):
        self.node = node
        self.user = user
        self.headers = {"Authorization": f"Bearer {token(user)}"}
        self.cursor = ""
        self.seen = []
        self.gaps = 0

    async def live(self):
        async with httpx.AsyncClient(timeout=20, headers=self.headers) as http:
            while True:
                with contextlib.suppress(*AWAY):
                    async with asyncio.timeout(random.uniform(0.2, LIFE_SECONDS)):
                        await self.session(http)
                await asyncio.sleep(random.uniform(0, 0.3))


class Polling(Device):
    async def session(self, http):
        while True:
            answer = await http.get(f"{self.node.url}/v1/inbox", params={"wait": 1, "cursor": self.cursor})
            if answer.status_code != 200:
                return
            page = answer.json()
            self.gaps += page["gap"]
            self.seen += [entry["id"] for entry in page["notifications"]]
            self.cursor = page["cursor"]


class Streaming(Device):
    async def session(self, http):
        address = f"{self.node.url}/v1/inbox/stream"
        async with http.stream("GET", address, params={"cursor": self.cursor}) as answer:
            event = None
            async for line in answer.aiter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    event = value
                    self.gaps += value == "gap"
                elif field == "data" and event == "notification":
                    self.seen.append(json.loads(value)["id"])
                elif field == "id":
                    self.cursor = value


class Socket(Device):
    async def session(self, _):
        address = f"ws://{self.node.http}/v1/inbox/ws?{httpx.QueryParams(cursor=self.cursor)}"
        async with websockets.connect(address, additional_headers=self.headers) as socket:
            async for frame in socket:
                frame = json.loads(frame)
                self.gaps += frame["type"] == "gap"
                if frame["type"] == "notification":
                    self.seen.append(frame["id"])
                elif frame["type"] == "cursor":
                    self.cursor = frame["cursor"]


class BackEnd:
    """Says who is a member, publishes, and knows what each user has to get."""

    def __init__(self, node, seed):
        self.node = node
        self.random = random.Random(seed)
        self.members = collections.defaultdict(set)
        self.topics_of = {}
        self.expected = {user: [] for user in USERS}

    async def ask(self, method, path, **body):
        """Until it is answered: all that it asks for can be asked twice."""
        async with httpx.AsyncClient(base_url=self.node.url, headers={"Authorization": f"Bearer {KEY}"}) as http:
            while True:
                with contextlib.suppress(*AWAY):
                    answer = await http.request(method, path, **body)
                    if answer.status_code != 503:
                        assert answer.is_success, answer.text
                        return
                await asyncio.sleep(0.05)

    async def step(self, number):
        choice = self.random.random()
        if choice < 0.35:
            user, topic = self.random.choice(USERS), self.random.choice(TOPICS)
            joins = self.random.random() < 0.55
            path = f"/v1/topics/{topic.replace('/', '%2F')}/members/{user}"
            await self.ask("PUT" if joins else "DELETE", path)
            (self.members[topic].add if joins else self.members[topic].discard)(user)
        elif choice < 0.4:
            user, topics = self.random.choice(USERS), self.random.sample(TOPICS, self.random.randint(0, 3))
            await self.ask("PUT", f"/v1/users/{user}", json={"topics": topics})
            for topic in TOPICS:
                (self.members[topic].add if topic in topics else self.members[topic].discard)(user)
        else:
            await self.publish(f"n-{number}")

    async def publish(self, name):
        topics = self.random.sample(TOPICS, self.random.choice([1, 1, 1, 2]))
        excluded = self.random.sample(USERS, self.random.randint(0, 2))
        body = {"id": name, "topics": topics, "exclude_users": excluded, "data": name}
        await self.ask("POST", "/v1/notifications", json=body)
        self.topics_of[name] = topics
        for user in set().union(*(self.members[topic] for topic in topics)) - set(excluded):
            self.expected[user].append(name)


async def lived_through(seed, kills):
    with Node() as node:
        back_end = BackEnd(node, seed)
        devices = [kind(node, user) for user in USERS for kind in (Polling, Streaming, Socket)]
        clients = [asyncio.create_task(device.live()) for device in devices]
        try:
            # Who connects for the first time gets what is pending; from then on all go by their cursors.
            while not all(device.cursor for device in devices):
                await asyncio.sleep(0.05)
            dies_at = back_end.random.sample(range(STEPS), kills)
            for number in range(STEPS):
                if number in dies_at:
                    node.kill()
                    node.start()
                await back_end.step(number)
            async with asyncio.timeout(ARRIVE_SECONDS):
                while any(set(back_end.expected[device.user]) - set(device.seen) for device in devices):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pass
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
    for device in devices:
        judge(device, back_end)


def judge(device, back_end):
    expected = back_end.expected[device.user]
    first = list(dict.fromkeys(device.seen))
    who = f"{type(device).__name__} of {device.user}"
    missing, others = set(expected) - set(first), set(first) - set(expected)
    assert not missing, f"{who} lacks {sorted(missing)}"
    assert not others, f"{who} was shown {sorted(others)}, which was published outside its stays"
    assert not device.gaps, f"{who} was told {device.gaps} gaps"
    for topic in TOPICS:
        alone = [name for name in first if back_end.topics_of[name] == [topic]]
        assert alone == [name for name in expected if name in alone], f"{who} has {topic} out of order: {alone}"


@case
def everyone_gets_what_was_published_during_a_stay():
    asyncio.run(lived_through(seed=int(os.environ.get("POSTRIDER_SEED", "1")), kills=0))


@case
def and_so_it_is_when_the_node_is_killed():
    asyncio.run(lived_through(seed=int(os.environ.get("POSTRIDER_SEED", "2")), kills=4))


if __name__ == "__main__":
    sys.exit(run())

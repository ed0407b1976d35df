"""A straight pusher in asyncio, as one would write it: what Postrider is measured against.

Takes requests from SQS, looks users up in DynamoDB, posts to an API Gateway: aioboto3, one event loop, ten messages a receive handled concurrently,
several receivers, one pool of connections per service. Usage: straight.py ENDPOINT RECEIVERS
"""

import asyncio
import json
import sys

import aioboto3
from botocore.config import Config

POOL = Config(max_pool_connections=128, retries={"max_attempts": 1})
TABLE = "connections"


async def push(apigw, connection, data, room):
    async with room:
        await apigw.post_to_connection(ConnectionId=connection, Data=data)


async def connections_of(dynamodb, user):
    answer = await dynamodb.query(
        TableName=TABLE,
        KeyConditionExpression="user_id = :user",
        ExpressionAttributeValues={":user": {"S": user}},
    )
    return [item["connection_id"]["S"] for item in answer["Items"]]


async def everyone(dynamodb):
    pages = dynamodb.get_paginator("scan").paginate(TableName=TABLE)
    return [item["connection_id"]["S"] async for page in pages for item in page["Items"]]


async def handle(message, dynamodb, apigw, room):
    request = json.loads(message["Body"])
    data = json.dumps(request["data"], separators=(",", ":")).encode()
    users = set(request.get("users") or [])
    if users:
        found = await asyncio.gather(*(connections_of(dynamodb, user) for user in users))
        connections = [connection for one in found for connection in one]
    else:
        connections = await everyone(dynamodb)
    await asyncio.gather(*(push(apigw, connection, data, room) for connection in connections))


async def receiver(sqs, queue, dynamodb, apigw, room):
    while True:
        answer = await sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=20)
        messages = answer.get("Messages", [])
        if not messages:
            continue
        await asyncio.gather(*(handle(message, dynamodb, apigw, room) for message in messages))
        entries = [{"Id": str(n), "ReceiptHandle": one["ReceiptHandle"]} for n, one in enumerate(messages)]
        await sqs.delete_message_batch(QueueUrl=queue, Entries=entries)


async def main(endpoint, receivers):
    session = aioboto3.Session()
    at = {"endpoint_url": endpoint, "config": POOL}
    async with (
        session.client("sqs", **at) as sqs,
        session.client("dynamodb", **at) as dynamodb,
        session.client("apigatewaymanagementapi", **at) as apigw,
    ):
        room = asyncio.Semaphore(128)
        queue = f"{endpoint}/000000000000/requests"
        await asyncio.gather(*(receiver(sqs, queue, dynamodb, apigw, room) for _ in range(receivers)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))

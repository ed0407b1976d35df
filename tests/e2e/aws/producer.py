"""boto3 on behalf of a test: a producer, and who looks afterwards.

Reads one JSON object a line and answers each by one: `{"ok": …}`, or `{"refused": {"code", "message"}}` where the service
said no. Who it is and where the service is comes from the SDK's own variables. Ends when there is nothing more to read.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

# How many batches are on their way at a time.
SENDERS = 4
# What SQS takes in one call.
BATCH_MAX = 10

_clients = {}


def client(service):
    if service not in _clients:
        patience = Config(connect_timeout=10, read_timeout=60, max_pool_connections=16)
        _clients[service] = boto3.client(service, config=patience)
    return _clients[service]


def call(request):
    answer = getattr(client(request["service"]), request["call"])(**request["arguments"])
    answer.pop("ResponseMetadata", None)
    return answer


def queue(request):
    attributes = {name: str(value) for name, value in request["attributes"].items()}
    return client("sqs").create_queue(QueueName=request["name"], Attributes=attributes)["QueueUrl"]


def arn_of(url):
    got = client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return got["Attributes"]["QueueArn"]


def queue_with_dlq(request):
    name, attributes = request["name"], dict(request["attributes"])
    fifo = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
    dead_name = name.removesuffix(".fifo") + "-dead" + (".fifo" if fifo else "")
    dead = queue({"name": dead_name, "attributes": fifo})
    redrive = {"deadLetterTargetArn": arn_of(dead), "maxReceiveCount": request["receives_max"]}
    attributes["RedrivePolicy"] = json.dumps(redrive)
    return [queue({"name": name, "attributes": attributes | fifo}), dead]


def in_sqs(attributes):
    return {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}


def send(request):
    sent = client("sqs").send_message(
        QueueUrl=request["queue"],
        MessageBody=request["body"],
        MessageAttributes=in_sqs(request["attributes"]),
    )
    return sent["MessageId"]


def send_fifo(request):
    sent = client("sqs").send_message(
        QueueUrl=request["queue"],
        MessageBody=request["body"],
        MessageGroupId=request["group"],
        MessageDeduplicationId=request["id"],
        MessageAttributes=in_sqs(request["attributes"]),
    )
    return sent["MessageId"]


def send_many(request):
    def entry(nth, message):
        entry = {"Id": str(nth), "MessageBody": message["body"]}
        entry["MessageAttributes"] = in_sqs(message.get("attributes", {}))
        if "group" in message:
            entry["MessageGroupId"] = message["group"]
            entry["MessageDeduplicationId"] = message["id"]
        return entry

    def send_batch(batch):
        entries = [entry(nth, message) for nth, message in enumerate(batch)]
        sent = client("sqs").send_message_batch(QueueUrl=request["queue"], Entries=entries)
        if sent.get("Failed"):
            raise RuntimeError(f"not taken: {sent['Failed']}")

    messages = request["messages"]
    batches = [messages[at : at + BATCH_MAX] for at in range(0, len(messages), BATCH_MAX)]
    # Of a FIFO queue the order counts.
    senders = 1 if any("group" in message for message in messages) else SENDERS
    client("sqs")
    with ThreadPoolExecutor(senders) as pool:
        list(pool.map(send_batch, batches))
    return len(messages)


def topic(request):
    return client("sns").create_topic(Name=request["name"])["TopicArn"]


def subscribe(request):
    subscribed = client("sns").subscribe(
        TopicArn=request["topic"],
        Protocol="sqs",
        Endpoint=arn_of(request["queue"]),
        Attributes={"RawMessageDelivery": "true" if request["raw"] else "false"},
        ReturnSubscriptionArn=True,
    )
    return subscribed["SubscriptionArn"]


def publish(request):
    return client("sns").publish(TopicArn=request["topic"], Message=request["message"])["MessageId"]


def connections_table(request):
    client("dynamodb").create_table(
        TableName=request["name"],
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": "user_id", "AttributeType": "S"},
            {"AttributeName": "connection_id", "AttributeType": "S"},
        ],
        KeySchema=[
            {"AttributeName": "user_id", "KeyType": "HASH"},
            {"AttributeName": "connection_id", "KeyType": "RANGE"},
        ],
    )
    client("dynamodb").get_waiter("table_exists").wait(TableName=request["name"])


def put_connections(request):
    table = boto3.resource("dynamodb").Table(request["table"])
    with table.batch_writer() as writer:
        for user, connection in request["rows"]:
            writer.put_item(Item={"user_id": user, "connection_id": connection})


def connections(request):
    pages = client("dynamodb").get_paginator("scan").paginate(TableName=request["table"], ConsistentRead=True)
    rows = (row for page in pages for row in page["Items"])
    return [[row["user_id"]["S"], row["connection_id"]["S"]] for row in rows]


def counts(request):
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    got = client("sqs").get_queue_attributes(QueueUrl=request["queue"], AttributeNames=names)["Attributes"]
    return [int(got[name]) for name in names]


def drain(request):
    found = []
    while True:
        got = client("sqs").receive_message(
            QueueUrl=request["queue"],
            MaxNumberOfMessages=BATCH_MAX,
            WaitTimeSeconds=0,
            MessageAttributeNames=["All"],
            AttributeNames=["All"],
        ).get("Messages", [])
        if not got:
            return found
        entries = [{"Id": str(nth), "ReceiptHandle": one["ReceiptHandle"]} for nth, one in enumerate(got)]
        client("sqs").delete_message_batch(QueueUrl=request["queue"], Entries=entries)
        for one in got:
            attributes = one.get("MessageAttributes", {})
            found.append(
                {
                    "id": one["MessageId"],
                    "body": one["Body"],
                    "attributes": {name: value.get("StringValue") for name, value in attributes.items()},
                    "receives": int(one["Attributes"]["ApproximateReceiveCount"]),
                }
            )


ACTIONS = {
    action.__name__: action
    for action in [
        call,
        connections,
        connections_table,
        counts,
        drain,
        publish,
        put_connections,
        queue,
        queue_with_dlq,
        send,
        send_fifo,
        send_many,
        subscribe,
        topic,
    ]
}


def main():
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": ACTIONS[request["do"]](request)}
        except ClientError as error:
            said = error.response["Error"]
            answer = {"refused": {"code": said.get("Code", ""), "message": said.get("Message", "")}}
        except (BotoCoreError, RuntimeError) as error:
            answer = {"refused": {"code": type(error).__name__, "message": str(error)}}
        print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    main()

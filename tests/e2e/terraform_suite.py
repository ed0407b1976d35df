"""The Terraform module: that Terraform itself reads it, and what it lets a task do. Nothing is applied here: that is done, to
an emulator, by the tests of AWS.

The AWS provider comes from a mirror on this machine, or, where there is none, from where Terraform finds it.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from lib.cases import case, equal, run

ROOT = pathlib.Path(__file__).parents[2]
MODULE = ROOT / "deploy/terraform"
# Where machines keep providers: the first two Terraform knows by itself, of the last it is a folder.
MIRRORS = (
    pathlib.Path.home() / ".terraform.d/plugins",
    pathlib.Path("/usr/local/share/terraform/plugins"),
    *pathlib.Path("/opt").glob("*/"),
)
PROVIDER = "registry.terraform.io/hashicorp/aws"


def mirror():
    return next((path for path in MIRRORS if (path / PROVIDER).is_dir()), None)


def terraform(*arguments, folder):
    config = pathlib.Path(folder, "terraform.rc")
    here = mirror()
    config.write_text(f'provider_installation {{\n  filesystem_mirror {{ path = "{here}" }}\n}}\n' if here else "")
    env = os.environ | {"TF_CLI_CONFIG_FILE": str(config), "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
    command = ["terraform", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@case
def the_module_is_valid():
    """terraform init, validate and fmt"""
    with tempfile.TemporaryDirectory(prefix="postrider-terraform-") as folder:
        for file in MODULE.glob("*.tf"):
            shutil.copy(file, folder)
        made = terraform("init", "-backend=false", "-input=false", "-no-color", folder=folder)
        equal(made.returncode, 0, made.stderr)
        told = json.loads(terraform("validate", "-json", folder=folder).stdout)
        equal((told["valid"], told["diagnostics"]), (True, []), "validate")
        equal(terraform("fmt", "-check", folder=folder).stdout, "", "files that fmt would change")


@case
def every_variable_says_what_it_is_for():
    """variables and outputs are described, here and in the README"""
    readme = (MODULE / "README.md").read_text()
    for file in ("variables.tf", "outputs.tf"):
        blocks = re.findall(r'^(?:variable|output) "(\w+)" \{\n(.*?)^\}', (MODULE / file).read_text(), re.M | re.S)
        assert blocks, file
        for name, body in blocks:
            assert re.search(r'description\s+= "\S', body), name
            assert f"`{name}`" in readme, f"{name} is not in the README"


# What an operation of the SDK needs. IAM has no actions of batches: a batch needs what one of it needs.
ACTIONS = {
    "batch_write_item": "dynamodb:BatchWriteItem",
    "change_message_visibility_batch": "sqs:ChangeMessageVisibility",
    "create_queue": "sqs:CreateQueue",
    "delete_message_batch": "sqs:DeleteMessage",
    "delete_queue": "sqs:DeleteQueue",
    "get_queue_attributes": "sqs:GetQueueAttributes",
    "get_queue_url": "sqs:GetQueueUrl",
    "post_to_connection": "execute-api:ManageConnections",
    "query": "dynamodb:Query",
    "receive_message": "sqs:ReceiveMessage",
    "scan": "dynamodb:Scan",
}
# Calls that the module's settings do not lead to: its queue has an address, and is neither made nor taken away.
OF_OTHER_SETTINGS = {"sqs:CreateQueue", "sqs:DeleteQueue", "sqs:GetQueueUrl"}
# Where the source and the channel of the preset speak to AWS.
SPEAKERS = ("crates/sources/src/sqs/aws.rs", "crates/channels/src/api_gateway")


def operations():
    """The operations of AWS that the code calls: a builder without arguments that is filled in and sent."""
    files = []
    for speaker in SPEAKERS:
        path = ROOT / speaker
        files += [path] if path.is_file() else path.rglob("*.rs")
    texts = [re.sub(r"\s+", "", file.read_text().partition("#[cfg(test)]")[0]) for file in files]
    assert texts, "no code"
    builder = r"\.([a-z]+(?:_[a-z]+)*)\(\)\.(?:queue_url|queue_name|table_name|connection_id|request_items)\("
    return {name for text in texts for name in re.findall(builder, text)}


def actions_of_tasks():
    text = (MODULE / "main.tf").read_text()
    policy = re.search(r'data "aws_iam_policy_document" "task" \{\n(.*?)^\}', text, re.M | re.S).group(1)
    assert '"*"' not in policy, "a resource is everything"
    return set(re.findall(r'"((?:sqs|dynamodb|execute-api):\w+)"', policy))


@case
def a_task_may_do_what_the_code_calls_and_no_more():
    """the policy of the tasks, beside the calls of the code"""
    found = operations()
    equal(found - ACTIONS.keys(), set(), "calls that nobody knows")
    equal(ACTIONS.keys() - found, set(), "calls that are no more")
    called = {ACTIONS[name] for name in found} - OF_OTHER_SETTINGS
    equal(actions_of_tasks(), called, "the policy's actions, beside those of the calls")


@case
def the_documents_name_the_same_actions():
    """the policy in the page for who comes from a pusher, and the actions in the page of sources"""
    page = (ROOT / "docs/migrate/from-apigw-pusher.md").read_text()
    policy = json.loads(re.search(r"```json\n(\{.*?\})\n```", page, re.S).group(1))
    told = {action for statement in policy["Statement"] for action in statement["Action"]}
    equal(told, actions_of_tasks(), "from-apigw-pusher.md")
    sources = (ROOT / "docs/sources.md").read_text()
    needs = re.search(r"The identity needs (.*?)\n\n", sources, re.S).group(1)
    of_sqs = {action for action in ACTIONS.values() if action.startswith("sqs:")}
    equal(set(re.findall(r"sqs:\w+", needs)), of_sqs, "sources.md")


if __name__ == "__main__":
    sys.exit(run())

//! The module of `deploy/terraform`, applied to moto: a node that is started as its service says, with the rights of its
//! tasks alone, pushes what boto3 sends through its topic and its queue.
//!
//! What moto cannot show: that Fargate starts the tasks (it keeps the service and runs none), that a second plan is empty (it
//! tells policies with other white space), and what API Gateway lets them do, for which a stand-in stands. Its IAM is not AWS': it knows a batch call as an action of its own, and no tables of
//! DynamoDB as resources; so the tasks' policy is widened by just that before it is enforced.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use postrider_harness::aws::{ApiGateway, Boto, Emulator, Module, Refusal, environment};
use postrider_harness::http::{Request, once};
use postrider_harness::machine::{Need, run};
use postrider_harness::node::{Node, NodeOptions};
use postrider_harness::wait::{until_true, within};
use serde_json::{Value, json};

const NAME: &str = "lab";

#[test]
fn a_node_with_the_rights_of_a_task_does_what_the_module_is_for() -> Result<()> {
    let name = "a_node_with_the_rights_of_a_task_does_what_the_module_is_for";
    run(name, &[Need::Moto, Need::Terraform], || {
        let emulator = Emulator::moto()?;
        let mut boto = Boto::start(&emulator.endpoint())?;
        let stage = ApiGateway::start()?;
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/terraform");
        let module = Module::new(&files, &emulator.endpoint(), &variables(&mut boto, &stage)?)?;
        module.apply()?;
        // moto tells a policy with other white space, and an ECS service without what it was not told: these it would set again.
        let changes = module.changes()?;
        let is_harmless =
            |line: &String| line.ends_with("updated in-place") || line.ends_with("read during apply");
        ensure!(changes.iter().all(is_harmless), "{changes:?}");

        let (queue, topic) = (module.output("queue_url")?, module.output("topic_arn")?);
        let table = module.output("table_name")?;
        let rows = [("ada", "a1="), ("bob", "b1="), ("eve", "gone=")];
        boto.put_connections(
            &table,
            &rows.map(|(user, connection)| (user.into(), connection.into())),
        )?;
        stage.connect(["a1=", "b1="]);

        let service = service(&mut boto)?;
        ensure!(
            service["command"] == json!(["serve", "--preset", "apigw-pusher"]),
            "{service}"
        );
        let rights = policy_of_tasks(&mut boto)?;
        let task = Somebody::new(&mut boto, "task", &rights)?;
        let everything = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
        let producer = Somebody::new(&mut boto, "producer", &policy(vec![everything]))?;
        stage.believe(&task.access_key, &task.secret_key);
        enforce(&emulator)?;
        let mut boto = Boto::of(&emulator.endpoint(), &producer.access_key, &producer.secret_key)?;
        refused_what_it_may_not(&emulator, &task, &queue)?;

        let node = task.node(&emulator, &service)?;
        boto.publish(&topic, r#"{"users":["ada","eve"],"data":"by the topic"}"#)?;
        boto.send(&queue, r#"{"exclude_users":["bob"],"data":"by the queue"}"#, &[])?;
        until_true("both are pushed and deleted", within(90), || {
            Ok(stage.received("a1=").len() == 2 && boto.counts(&queue)? == (0, 0))
        })?;
        ensure!(stage.received("b1=").is_empty());
        until_true(
            "the row of the connection that is gone to be deleted",
            within(90),
            || Ok(boto.connections(&table)?.len() == 2),
        )?;
        ensure!(stage.forbidden().is_empty(), "{:?}", stage.forbidden());
        let log = node.log();
        ensure!(!log.contains("AccessDenied"), "{log}");
        Ok(())
    })
}

/// moto has a VPC of its own.
fn variables(boto: &mut Boto, stage: &ApiGateway) -> Result<Value> {
    let vpcs = boto.call("ec2", "describe_vpcs", json!({}))?;
    let subnets = boto.call("ec2", "describe_subnets", json!({}))?;
    let subnets = subnets["Subnets"].as_array().context("no subnets")?;
    let ids: Vec<&Value> = subnets.iter().map(|one| &one["SubnetId"]).collect();
    Ok(json!({
        "name": NAME,
        "apigw_endpoint": stage.endpoint(),
        "apigw_execution_arn": "arn:aws:execute-api:eu-central-1:123456789012:abc",
        "apigw_stage": "prod",
        "image": "postrider:test",
        "vpc_id": vpcs["Vpcs"][0]["VpcId"],
        "subnet_ids": ids,
    }))
}

/// The container of the service's task.
fn service(boto: &mut Boto) -> Result<Value> {
    let found = boto.call(
        "ecs",
        "describe_services",
        json!({"cluster": NAME, "services": [NAME]}),
    )?;
    let service = &found["services"][0];
    ensure!(
        service["launchType"] == "FARGATE" && service["desiredCount"] == 2,
        "{service}"
    );
    let asked = json!({"taskDefinition": service["taskDefinition"]});
    let mut found = boto.call("ecs", "describe_task_definition", asked)?;
    Ok(found["taskDefinition"]["containerDefinitions"][0].take())
}

fn policy(statements: Vec<Value>) -> Value {
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// What the role of the tasks allows, in a form that moto can enforce.
fn policy_of_tasks(boto: &mut Boto) -> Result<Value> {
    let asked = json!({"RoleName": format!("{NAME}-task"), "PolicyName": "push"});
    let found = boto.call("iam", "get_role_policy", asked)?;
    let mut statements = found["PolicyDocument"]["Statement"]
        .as_array()
        .cloned()
        .context("no statements")?;
    for statement in &mut statements {
        let actions: Vec<String> = match &statement["Action"] {
            Value::String(one) => vec![one.clone()],
            many => serde_json::from_value(many.clone())?,
        };
        if actions.iter().any(|action| action.starts_with("dynamodb:")) {
            statement["Resource"] = json!("*");
        }
        let of_batches = actions.iter().filter(|action| action.starts_with("sqs:"));
        let of_batches: Vec<String> = of_batches.map(|action| format!("{action}Batch")).collect();
        statement["Action"] = json!([actions, of_batches].concat());
    }
    Ok(policy(statements))
}

/// Who may do what a policy says.
struct Somebody {
    access_key: String,
    secret_key: String,
}

impl Somebody {
    fn new(boto: &mut Boto, name: &str, policy: &Value) -> Result<Somebody> {
        boto.call("iam", "create_user", json!({"UserName": name}))?;
        let put = json!({"UserName": name, "PolicyName": "own", "PolicyDocument": policy.to_string()});
        boto.call("iam", "put_user_policy", put)?;
        let made = boto.call("iam", "create_access_key", json!({"UserName": name}))?;
        let text = |name: &str| made["AccessKey"][name].as_str().map(str::to_owned);
        Ok(Somebody {
            access_key: text("AccessKeyId").context("no key")?,
            secret_key: text("SecretAccessKey").context("no secret")?,
        })
    }

    /// A node as the service starts it, but for where it listens.
    fn node(&self, emulator: &Emulator, service: &Value) -> Result<Node> {
        let mut env = environment(&emulator.endpoint());
        env.push(("AWS_ACCESS_KEY_ID".into(), self.access_key.clone()));
        env.push(("AWS_SECRET_ACCESS_KEY".into(), self.secret_key.clone()));
        for one in service["environment"].as_array().context("no environment")? {
            let text = |name: &str| one[name].as_str().map(str::to_owned);
            env.push((
                text("name").context("no name")?,
                text("value").context("no value")?,
            ));
        }
        let command: Vec<String> = serde_json::from_value(service["command"].clone())?;
        Node::start_with(NodeOptions {
            env,
            args: command.into_iter().skip(1).collect(),
            ..NodeOptions::sets(&[("sources.requests.wait", "1s")])
        })
    }
}

/// From now on moto asks IAM.
fn enforce(emulator: &Emulator) -> Result<()> {
    let asked = Request::new("POST", "/moto-api/reset-auth").body("text/plain", "0");
    let answer = once(emulator.addr(), &asked)?;
    ensure!(answer.status() == 200, "{answer:?}");
    Ok(())
}

/// That moto does enforce: sending is not a task's business, and another queue is none either.
fn refused_what_it_may_not(emulator: &Emulator, task: &Somebody, queue: &str) -> Result<()> {
    let mut boto = Boto::of(&emulator.endpoint(), &task.access_key, &task.secret_key)?;
    let other = queue.replace("-requests", "-dead");
    for refused in [
        boto.send(queue, "{}", &[]).map(drop),
        boto.drain(&other).map(drop),
    ] {
        let error = refused.err().context("it was allowed")?;
        let refusal = error.downcast_ref::<Refusal>().context("another error")?;
        ensure!(
            refusal.message.contains("AccessDenied")
                || refusal.code.contains("AccessDenied")
                || refusal.code == "403",
            "{refusal}"
        );
    }
    Ok(())
}

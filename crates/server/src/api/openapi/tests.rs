//! The document against the router and against what clients rely on.

use super::*;
use std::collections::BTreeSet;

fn document() -> &'static Value {
    &DOCUMENT
}

fn operations() -> Vec<(&'static str, &'static str, &'static Value)> {
    let paths = document()["paths"].as_object().unwrap();
    let of_path = paths.iter().flat_map(|(path, item)| {
        let item = item.as_object().unwrap();
        item.iter()
            .filter(|(name, _)| *name != "servers")
            .map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    });
    of_path.collect()
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(path)) = members.get("$ref") {
                found.insert(path.clone());
            }
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_used() {
    let mut found = BTreeSet::new();
    references(document(), &mut found);
    for path in &found {
        assert!(
            document().pointer(path.strip_prefix('#').unwrap()).is_some(),
            "{path}"
        );
    }
    for kind in ["schemas", "responses"] {
        for name in document()["components"][kind].as_object().unwrap().keys() {
            // Shapes of the words of streams are for people.
            assert!(
                found.contains(&format!("#/components/{kind}/{name}")),
                "{kind}/{name} is not used"
            );
        }
    }
}

#[test]
fn an_operation_says_all_that_is_needed_to_call_it() {
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations() {
        let spot = format!("{method} {path}");
        assert!(
            ids.insert(operation["operationId"].as_str().unwrap()),
            "{spot}: its id is taken"
        );
        assert!(
            operation["summary"]
                .as_str()
                .is_some_and(|words| !words.is_empty()),
            "{spot}"
        );
        assert!(
            operation["responses"]
                .as_object()
                .unwrap()
                .keys()
                .any(|status| status < &"400".to_owned()),
            "{spot}"
        );
        let tag = &operation["tags"][0];
        assert!(
            document()["tags"]
                .as_array()
                .unwrap()
                .iter()
                .any(|known| known["name"] == *tag),
            "{spot}"
        );
        let named: BTreeSet<&str> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let in_path: BTreeSet<&str> = parameters
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        assert_eq!(named, in_path, "{spot}");
    }
    for (path, method, operation) in operations() {
        for answer in operation["responses"].as_object().unwrap().values() {
            for link in answer["links"]
                .as_object()
                .into_iter()
                .flat_map(|links| links.values())
            {
                let leads_to = link["operationId"].as_str().unwrap();
                assert!(ids.contains(leads_to), "{method} {path} leads to {leads_to}");
            }
        }
    }
}

#[test]
fn examples_are_what_the_schemas_say() {
    let mut checked = 0;
    for (path, method, operation) in operations() {
        let bodies = operation["responses"]
            .as_object()
            .unwrap()
            .values()
            .chain(operation.get("requestBody"));
        for body in bodies {
            let Some(contents) = body["content"].as_object() else {
                continue;
            };
            for (media_type, content) in contents {
                let mut schema = content["schema"].clone();
                schema["components"] = document()["components"].clone();
                for (name, example) in content["examples"].as_object().into_iter().flatten() {
                    let faults = faults(&schema, &example["value"]);
                    assert_eq!(faults, None, "{method} {path} {media_type} {name}");
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 20, "{checked}");
}

fn faults(schema: &Value, value: &Value) -> Option<String> {
    let mut compiler = boon::Compiler::new();
    let mut schemas = boon::Schemas::new();
    compiler
        .add_resource("mem:///schema.json", schema.clone())
        .unwrap();
    let index = compiler.compile("mem:///schema.json", &mut schemas).unwrap();
    schemas
        .validate(value, index)
        .err()
        .map(|error| error.to_string())
}

#[test]
fn a_notification_has_the_fields_that_are_read() {
    let schema = &document()["components"]["schemas"]["Notification"];
    let described: BTreeSet<&str> = schema["properties"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(described, BTreeSet::from(postrider_sources::http::FIELDS));
    assert_eq!(schema["required"], json!(["data"]));
    for (is_good, body) in [
        (true, json!({ "data": null })),
        (true, json!({ "data": 1, "users": ["ada"], "ttl": 90 })),
        (true, json!({ "data": 1, "durability": "transient" })),
        (false, json!({ "users": ["ada"] })),
        (false, json!({ "data": 1, "users": [] })),
        (
            false,
            json!({ "data": 1, "users": ["ada"], "topics": ["orders"] }),
        ),
        (
            false,
            json!({ "data": 1, "durability": "transient", "collapse_key": "a" }),
        ),
        (true, json!({ "data": 1, "users": ["ada"], "devices": "first" })),
        (
            false,
            json!({ "data": 1, "topics": ["orders"], "devices": "first" }),
        ),
        (false, json!({ "data": 1, "Users": ["ada"] })),
    ] {
        let mut schema = schema.clone();
        schema["components"] = document()["components"].clone();
        assert_eq!(faults(&schema, &body).is_none(), is_good, "{body}");
    }
}

#[test]
fn the_page_names_every_operation_and_nothing_ends_its_markup() {
    let page = page::Page::of(document());
    for (path, _, operation) in operations() {
        let id = operation["operationId"].as_str().unwrap();
        assert!(page.html.contains(&format!("id=\"{id}\"")), "{path}");
        assert!(page.html.contains(&format!("href=\"#{id}\"")), "{path}");
    }
    let ids: Vec<&str> = page
        .html
        .split(" id=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    let distinct: BTreeSet<&&str> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "an id stands twice: {ids:?}");
    for place in page
        .html
        .split("href=\"#")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
    {
        assert!(distinct.contains(&place), "#{place} leads nowhere");
    }
    let mut odd = document().clone();
    odd["info"]["description"] = json!("</style><script>alert(1)</script>");
    let page = page::Page::of(&odd);
    assert!(!page.html.contains("<script"), "the description is markup");
    assert!(
        page.policy
            .to_str()
            .unwrap()
            .starts_with("default-src 'none'; style-src 'sha256-")
    );
}

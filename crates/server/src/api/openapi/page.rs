//! The document as a page for people: operations by task, with parameters, examples and answers. It needs no script and
//! nothing from elsewhere.
//!
//! Invariant: all that comes from the document is escaped, and the policy lets nothing in but the page's own style.

mod command;
mod markup;
mod words;

use super::shapes::PROBLEM;
use axum::http::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use command::curl;
use markup::{anchor, broken, escaped, inline, prose, shown};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use words::{after_kind, credential_name, kind, who};

const STYLE: &str = include_str!("../../../assets/docs.css");
/// Shapes within shapes are shown so deep; below that they have names.
const DEPTH: usize = 4;

/// The page, and what a browser may do with it.
pub struct Page {
    pub html: String,
    pub policy: HeaderValue,
}

impl Page {
    /// Made from the document.
    pub fn of(document: &Value) -> Page {
        let hash = STANDARD.encode(Sha256::digest(STYLE));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        Page {
            html: Paper::new(document).page(),
            // Base64 and plain words.
            policy: HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'")),
        }
    }
}

/// What is written, and from what.
struct Paper<'a> {
    document: &'a Value,
    out: String,
}

/// Everything there is to a path and method.
struct Spot<'a> {
    path: &'a str,
    method: &'a str,
    operation: &'a Value,
    /// Where it is served, if not on the public listener.
    server: Option<&'a str>,
}

impl<'a> Paper<'a> {
    fn new(document: &'a Value) -> Paper<'a> {
        Paper {
            document,
            out: String::new(),
        }
    }

    fn push(&mut self, html: &str) {
        self.out.push_str(html);
    }

    fn page(mut self) -> String {
        let info = &self.document["info"];
        let version = escaped(text(&info["version"]));
        let about = prose(text(&info["description"]));
        self.push("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
        self.push("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
        // An empty icon, so that a browser does not ask for one that is not there.
        self.push("<link rel=\"icon\" href=\"data:,\">\n");
        self.push("<title>Postrider: the HTTP interface</title>\n<style>");
        self.push(STYLE);
        self.push("</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#main\">Skip to the operations</a>\n");
        self.contents();
        self.push("<main id=\"main\">\n<header>\n<h1>The HTTP interface</h1>\n");
        self.push(&format!(
            "<p class=\"facts\">Postrider {version} · <a href=\"/openapi.json\">openapi.json</a> (OpenAPI 3.1)</p>\n{about}</header>\n"
        ));
        self.credentials();
        for tag in list(&self.document["tags"]) {
            self.task(tag);
        }
        self.shapes();
        self.push("</main>\n</body>\n</html>\n");
        self.out
    }

    fn spots(&self, task: &str) -> Vec<Spot<'a>> {
        let paths = fields(&self.document["paths"]);
        let of_path = paths.flat_map(|(path, item)| {
            let server = item["servers"][0]["url"].as_str();
            fields(item)
                .filter(|(name, _)| *name != "servers")
                .map(move |(method, operation)| Spot {
                    path,
                    method,
                    operation,
                    server,
                })
        });
        of_path
            .filter(|spot| spot.operation["tags"][0] == *task)
            .collect()
    }

    fn contents(&mut self) {
        self.push("<nav aria-label=\"Operations by task\">\n<p class=\"name\">Postrider</p>\n<ul>\n");
        self.push("<li><a class=\"task\" href=\"#credentials\">Credentials</a></li>\n");
        for tag in list(&self.document["tags"]) {
            let name = text(&tag["name"]);
            let spots = self.spots(name);
            if spots.is_empty() {
                continue;
            }
            self.push(&format!(
                "<li><a class=\"task\" href=\"#{}\">{}</a>\n<ul>\n",
                anchor(name),
                escaped(name)
            ));
            for spot in spots {
                self.push(&format!(
                    "<li><a href=\"#{}\"><span class=\"m {}\">{}</span> {}</a></li>\n",
                    escaped(text(&spot.operation["operationId"])),
                    spot.method,
                    spot.method,
                    escaped(spot.path),
                ));
            }
            self.push("</ul></li>\n");
        }
        self.push("<li><a class=\"task\" href=\"#shapes\">Shapes</a></li>\n</ul>\n</nav>\n");
    }

    fn credentials(&mut self) {
        self.push("<section aria-labelledby=\"credentials\">\n<h2 id=\"credentials\">Credentials</h2>\n<dl class=\"creds\">\n");
        for (name, scheme) in fields(&self.document["components"]["securitySchemes"]) {
            let about = prose(text(&scheme["description"]));
            self.push(&format!("<dt>{}</dt><dd>{about}</dd>\n", credential_name(name)));
        }
        self.push("</dl>\n</section>\n");
    }

    fn task(&mut self, tag: &'a Value) {
        let name = text(&tag["name"]);
        let spots = self.spots(name);
        if spots.is_empty() {
            return;
        }
        let id = anchor(name);
        self.push(&format!(
            "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{}</h2>\n{}",
            escaped(name),
            prose(text(&tag["description"]))
        ));
        for spot in spots {
            self.operation(&spot);
        }
        self.push("</section>\n");
    }

    fn operation(&mut self, spot: &Spot<'a>) {
        let operation = spot.operation;
        // The id stands inside, so that following a link to it opens the details.
        self.push(&format!(
            "<details>\n<summary><span class=\"m {method}\">{method}</span> <code class=\"path\">{path}</code> <span class=\"sum\">{summary}</span></summary>\n<div class=\"op\" id=\"{id}\">\n",
            method = spot.method,
            path = broken(spot.path),
            summary = escaped(text(&operation["summary"])),
            id = escaped(text(&operation["operationId"])),
        ));
        self.push(&prose(text(&operation["description"])));
        let who = who(&operation["security"]);
        self.push(&format!("<p class=\"who\"><b>Who may:</b> {who}.</p>\n"));
        if let Some(server) = spot.server {
            self.push(&format!(
                "<p class=\"who\"><b>Where:</b> the operations listener, <code>{}</code>.</p>\n",
                escaped(server)
            ));
        }
        self.parameters(operation);
        self.body(operation);
        self.push(&format!(
            "<h3>Try it</h3>\n<pre tabindex=\"0\">{}</pre>\n",
            escaped(&curl(spot))
        ));
        self.answers(operation);
        self.push("</div>\n</details>\n");
    }

    fn parameters(&mut self, operation: &Value) {
        let parameters = list(&operation["parameters"]);
        if parameters.is_empty() {
            return;
        }
        self.push("<h3>Parameters</h3>\n<div class=\"wide\" tabindex=\"0\"><table>\n<thead><tr><th scope=\"col\">Name</th><th scope=\"col\">In</th><th scope=\"col\">What</th></tr></thead>\n<tbody>\n");
        for parameter in parameters {
            let needed = if parameter["required"] == true {
                " <b class=\"need\">required</b>"
            } else {
                ""
            };
            let about = parameter["description"].as_str().unwrap_or_default();
            self.push(&format!(
                "<tr><th scope=\"row\"><code>{}</code>{needed}</th><td>{}</td><td>{}{}</td></tr>\n",
                escaped(text(&parameter["name"])),
                escaped(text(&parameter["in"])),
                kind(&parameter["schema"]),
                after_kind(about, &parameter["schema"]),
            ));
        }
        self.push("</tbody>\n</table></div>\n");
    }

    fn body(&mut self, operation: &'a Value) {
        let Some(body) = operation.get("requestBody") else {
            return;
        };
        self.push("<h3>Body</h3>\n");
        self.contents_of(&body["content"]);
    }

    /// Bodies by media type, each with its shape and examples.
    fn contents_of(&mut self, contents: &'a Value) {
        for (media_type, content) in fields(contents) {
            self.push(&format!("<h4><code>{}</code></h4>\n", escaped(media_type)));
            self.shape(&content["schema"], 0);
            for (name, example) in fields(&content["examples"]) {
                self.push(&format!(
                    "<figure><figcaption>{}</figcaption><pre tabindex=\"0\">{}</pre></figure>\n",
                    escaped(name),
                    escaped(&shown(&example["value"])),
                ));
            }
        }
    }

    fn answers(&mut self, operation: &'a Value) {
        let document = self.document;
        let (mut refusals, mut links) = (String::new(), String::new());
        self.push("<h3>Answers</h3>\n");
        for (status, answer) in fields(&operation["responses"]) {
            let answer = resolved(document, answer);
            let problems = fields(&answer["content"][PROBLEM]["examples"]);
            let before = refusals.len();
            for (_, example) in problems {
                let problem = &example["value"];
                refusals += &format!(
                    "<tr><td>{status}</td><td><code>{}</code></td><td>{}</td></tr>\n",
                    escaped(text(&problem["code"])),
                    inline(text(&problem["detail"])),
                );
            }
            if refusals.len() > before {
                continue;
            }
            self.push(&format!(
                "<p class=\"answer\"><b class=\"status\">{status}</b> {}</p>\n",
                inline(text(&answer["description"]))
            ));
            self.contents_of(&answer["content"]);
            for (_, link) in fields(&answer["links"]) {
                links += &format!(
                    "<li><a href=\"#{}\">{}</a></li>\n",
                    escaped(text(&link["operationId"])),
                    escaped(text(&link["description"])),
                );
            }
        }
        if !links.is_empty() {
            self.push(&format!(
                "<p>From there:</p>\n<ul class=\"links\">\n{links}</ul>\n"
            ));
        }
        if !refusals.is_empty() {
            self.push("<div class=\"wide\" tabindex=\"0\"><table class=\"refusals\">\n<thead><tr><th scope=\"col\">Status</th><th scope=\"col\">Code</th><th scope=\"col\">For example</th></tr></thead>\n<tbody>\n");
            self.push(&refusals);
            self.push("</tbody>\n</table></div>\n");
        }
    }

    fn shapes(&mut self) {
        self.push("<section aria-labelledby=\"shapes\">\n<h2 id=\"shapes\">Shapes</h2>\n");
        let document = self.document;
        for (name, schema) in fields(&document["components"]["schemas"]) {
            self.push(&format!(
                "<article class=\"shape\" id=\"shape-{0}\">\n<h3>{0}</h3>\n",
                escaped(name)
            ));
            self.shape(schema, 0);
            self.push("</article>\n");
        }
        self.push("</section>\n");
    }

    /// A schema: its kind, its words, and what it is made of.
    fn shape(&mut self, schema: &'a Value, depth: usize) {
        if depth > DEPTH {
            return;
        }
        let about = schema["description"].as_str().unwrap_or_default();
        let members = fields(&schema["properties"]).count();
        if members == 0 || depth > 0 {
            self.push(&format!(
                "<p class=\"kind\">{}{}</p>\n",
                kind(schema),
                after_kind(about, schema)
            ));
        } else if !about.is_empty() {
            self.push(&prose(about));
        }
        if members > 0 {
            self.members(schema, depth);
        }
        for name in ["oneOf", "anyOf", "allOf"] {
            for part in list(&schema[name]) {
                if part.get("properties").is_some() {
                    self.shape(part, depth + 1);
                }
            }
        }
        if schema["items"].get("properties").is_some() {
            self.shape(&schema["items"], depth + 1);
        }
    }

    fn members(&mut self, schema: &'a Value, depth: usize) {
        let required = list(&schema["required"]);
        self.push("<dl class=\"members\">\n");
        for (name, member) in fields(&schema["properties"]) {
            let is_needed = required.iter().any(|needed| needed == name);
            let needed = if is_needed {
                " <b class=\"need\">required</b>"
            } else {
                ""
            };
            let about = member["description"].as_str().unwrap_or_default();
            self.push(&format!(
                "<dt><code>{}</code> {}{needed}</dt><dd>{}",
                escaped(name),
                kind(member),
                after_kind(about, member)
            ));
            if member.get("properties").is_some() && depth < DEPTH {
                self.members(member, depth + 1);
            }
            self.push("</dd>\n");
        }
        self.push("</dl>\n");
    }
}

fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    value["$ref"]
        .as_str()
        .and_then(|path| document.pointer(path.strip_prefix('#')?))
        .unwrap_or(value)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn fields(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let fields: Option<&Map<String, Value>> = value.as_object();
    fields
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), value))
}

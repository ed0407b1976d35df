//! What is written about one operation: everything that a client has to know to call it.
//!
//! Invariant: a code, its status and its words come from [`Problem`], a schema from the type that is read or written.

use crate::auth::Scope;
use postrider_transports::Problem;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

/// What people do with it. The page and the document are in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    Publish,
    Receive,
    Settle,
    Follow,
    DeadLetters,
    Users,
    Topics,
    State,
    Operate,
    Describe,
}

impl Task {
    pub const ALL: [Task; 10] = [
        Task::Publish,
        Task::Receive,
        Task::Settle,
        Task::Follow,
        Task::DeadLetters,
        Task::Users,
        Task::Topics,
        Task::State,
        Task::Operate,
        Task::Describe,
    ];

    /// Its name, as a tag.
    pub fn name(self) -> &'static str {
        self.words().0
    }

    /// What it is about.
    pub fn about(self) -> &'static str {
        self.words().1
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Task::Publish => (
                "Publish",
                "Hand notifications over. A 202 says that they are on disk.",
            ),
            Task::Receive => (
                "Receive",
                "An inbox over long polling, server-sent events or a WebSocket: the same entries, the same cursor.",
            ),
            Task::Settle => (
                "Acknowledge",
                "A client's word on what it got. It is on disk when it is answered.",
            ),
            Task::Follow => ("Follow up", "What became of a notification, and taking it back."),
            Task::DeadLetters => (
                "Dead letters",
                "What nothing could deliver: read, redrive or throw away.",
            ),
            Task::Users => ("Users", "Who is known by name, and what is known of them."),
            Task::Topics => ("Topics", "Who is a member of a topic."),
            Task::State => (
                "State and presence",
                "A user's own map of values, and who is connected.",
            ),
            Task::Operate => (
                "Operate",
                "Probes and metrics, on the operations listener (`ops.listen`) rather than on the public one.",
            ),
            Task::Describe => ("This description", "The interface, for programs and for people."),
        }
    }
}

/// What opens it.
#[derive(Debug, Clone, Copy)]
pub enum Credential {
    /// Anybody may.
    Nothing,
    /// An API key with a scope.
    Key(Scope),
    /// An API key with one of two scopes; a refusal names the first.
    EitherKey([Scope; 2]),
    /// Any API key; the operation judges further.
    AnyKey,
    /// A user token, in a header or in a cookie.
    User,
    /// The same, or a ticket.
    Session,
}

/// The schema of a type; it may put others among the components.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The schema of what is read or written as `T`.
pub fn of<T: JsonSchema>() -> SchemaOf {
    |generator| generator.subschema_for::<T>()
}

/// A body in one media type.
#[derive(Debug, Clone)]
pub struct Content {
    pub media_type: &'static str,
    pub schema: SchemaOf,
    /// By name.
    pub examples: Vec<(&'static str, Value)>,
}

/// An answer that is no problem.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub says: &'static str,
    pub content: Vec<Content>,
    /// Where a member of the answer leads: a name, the operation, its parameter, the place.
    pub links: Vec<(&'static str, &'static str, &'static str, &'static str)>,
}

/// Where a parameter stands.
#[derive(Debug, Clone)]
pub enum Parameters {
    /// In the path.
    Path(&'static str, &'static str, SchemaOf, Value),
    /// In a header.
    Header(&'static str, &'static str, SchemaOf),
    /// The fields of a type that the query is read as; some with an example.
    Query(SchemaOf),
}

/// One operation.
#[derive(Debug, Clone)]
pub struct Operation {
    method: &'static str,
    path: &'static str,
    pub(super) id: &'static str,
    pub(super) task: Task,
    pub(super) summary: &'static str,
    pub(super) about: &'static str,
    pub(super) credential: Credential,
    pub(super) parameters: Vec<Parameters>,
    pub(super) body: Vec<Content>,
    pub(super) body_is_optional: bool,
    pub(super) answers: Vec<Answer>,
    pub(super) problems: Vec<Problem>,
}

impl Operation {
    fn new(method: &'static str, path: &'static str, id: &'static str) -> Operation {
        Operation {
            method,
            path,
            id,
            task: Task::Describe,
            summary: "",
            about: "",
            credential: Credential::Nothing,
            parameters: Vec::new(),
            body: Vec::new(),
            body_is_optional: false,
            answers: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// `GET` of a path, under a name that programs may use.
    pub fn get(path: &'static str, id: &'static str) -> Operation {
        Operation::new("get", path, id)
    }

    /// `POST`
    pub fn post(path: &'static str, id: &'static str) -> Operation {
        Operation::new("post", path, id)
    }

    /// `PUT`
    pub fn put(path: &'static str, id: &'static str) -> Operation {
        Operation::new("put", path, id)
    }

    /// `PATCH`
    pub fn patch(path: &'static str, id: &'static str) -> Operation {
        Operation::new("patch", path, id)
    }

    /// `DELETE`
    pub fn delete(path: &'static str, id: &'static str) -> Operation {
        Operation::new("delete", path, id)
    }

    /// The same of one thing that has a path of its own, and no name in it.
    pub fn of_one(mut self, path: &'static str, id: &'static str) -> Operation {
        (self.path, self.id) = (path, id);
        self.parameters
            .retain(|parameter| !matches!(parameter, Parameters::Path(..)));
        self
    }

    /// In lower case, as the document has it.
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// With its parameters in braces, as axum and the document both have it.
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// What it is for: the task, a line, and more.
    pub fn says(mut self, task: Task, summary: &'static str, about: &'static str) -> Operation {
        (self.task, self.summary, self.about) = (task, summary, about);
        self
    }

    /// Who may.
    pub fn for_whom(mut self, credential: Credential) -> Operation {
        self.credential = credential;
        self
    }

    /// A parameter of the path.
    pub fn path_parameter<T: JsonSchema>(
        mut self,
        name: &'static str,
        about: &'static str,
        example: &str,
    ) -> Operation {
        self.parameters
            .push(Parameters::Path(name, about, of::<T>(), json!(example)));
        self
    }

    /// A header.
    pub fn header<T: JsonSchema>(mut self, name: &'static str, about: &'static str) -> Operation {
        self.parameters.push(Parameters::Header(name, about, of::<T>()));
        self
    }

    /// The parameters that a type is read from.
    pub fn query<T: JsonSchema>(mut self) -> Operation {
        self.parameters.push(Parameters::Query(of::<T>()));
        self
    }

    /// A body that it takes; several are alternatives.
    pub fn takes<T: JsonSchema>(
        mut self,
        media_type: &'static str,
        examples: Vec<(&'static str, Value)>,
    ) -> Operation {
        self.body.push(Content {
            media_type,
            schema: of::<T>(),
            examples,
        });
        self
    }

    /// The same as with an empty body without one.
    pub fn body_may_be_missing(mut self) -> Operation {
        self.body_is_optional = true;
        self
    }

    /// The answer where all is well.
    pub fn answers(mut self, status: u16, says: &'static str) -> Operation {
        self.answers.push(Answer {
            status,
            says,
            content: Vec::new(),
            links: Vec::new(),
        });
        self
    }

    /// What the last named answer holds; several are alternatives.
    pub fn holding<T: JsonSchema>(
        mut self,
        media_type: &'static str,
        examples: Vec<(&'static str, Value)>,
    ) -> Operation {
        if let Some(answer) = self.answers.last_mut() {
            answer.content.push(Content {
                media_type,
                schema: of::<T>(),
                examples,
            });
        }
        self
    }

    /// Where a member of the last named answer leads.
    pub fn linking(
        mut self,
        name: &'static str,
        operation: &'static str,
        parameter: &'static str,
        place: &'static str,
    ) -> Operation {
        if let Some(answer) = self.answers.last_mut() {
            answer.links.push((name, operation, parameter, place));
        }
        self
    }

    /// Answers where something is wrong with what was sent.
    pub fn refuses(mut self, problems: impl IntoIterator<Item = Problem>) -> Operation {
        self.problems.extend(problems);
        self
    }
}

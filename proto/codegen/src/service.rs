//! A service as a trait, and the function that calls its methods by their names.

use crate::names::snake;
use prost_build::Service;
use std::fmt::Write as _;

/// Appends a line.
macro_rules! push {
    ($code:expr, $($form:tt)*) => {
        // Writing to a String cannot fail.
        writeln!($code, $($form)*).unwrap_or_default()
    };
}

/// Appends them.
pub fn push(service: &Service, code: &mut String) {
    let name = &service.name;
    let mut methods = String::new();
    let mut arms = String::new();
    for method in &service.methods {
        let (given, call) = (&method.proto_name, &method.name);
        let (request, response) = (&method.input_type, &method.output_type);
        for line in &method.comments.leading {
            push_comment(&mut methods, line);
        }
        push!(
            methods,
            "fn {call}(&self, caller: Self::Caller, request: {request}) -> impl Future<Output = Result<{response}, Problem>> + Send;"
        );
        push!(
            arms,
            "\"{given}\" => call.serve(|headers| service.admit(\"{given}\", headers), |caller, request| service.{call}(caller, request)).await,"
        );
    }
    let constant = snake(name).to_ascii_uppercase();
    push!(code, "use crate::api::twirp::{{Admitted, Call, Problem, Reply}};");
    push!(code, "use axum::http::HeaderMap;");
    push!(code, "/// The name of the service in its path.");
    push!(
        code,
        "pub const {constant}: &str = \"{}.{}\";",
        service.package,
        service.proto_name
    );
    for line in &service.comments.leading {
        push_comment(code, line);
    }
    push!(
        code,
        "pub trait {name}: Send + Sync {{
            /// Who calls, once let in.
            type Caller: Send;
            /// Lets the caller of a method in, before anything of the body is read.
            fn admit(&self, method: &'static str, headers: &HeaderMap) -> Result<Admitted<Self::Caller>, Problem>;
            {methods}
        }}"
    );
    push!(
        code,
        "/// Answers a call of the service.
        pub async fn {}<S: {name}>(service: &S, call: Call) -> Reply {{
            match call.method() {{
                {arms}
                _ => call.no_method(),
            }}
        }}",
        snake(name)
    );
}

fn push_comment(code: &mut String, line: &str) {
    push!(code, "///{line}");
}

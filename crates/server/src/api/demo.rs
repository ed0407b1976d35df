//! The sample page of `postrider demo`.

use super::Api;
use axum::extract::State;
use axum::response::Html;
use serde_json::Value;
use std::sync::Arc;

const PAGE: &str = include_str!("../../assets/demo.html");
/// Where the page takes its keys from.
const PLACE: &str = "__DEMO_JSON__";

/// The page with the demo's keys in it.
#[derive(Debug, Clone)]
pub struct DemoPage(String);

impl DemoPage {
    /// Puts the demo's key and tokens in. `<` is escaped, so that nothing ends the script.
    pub fn new(demo: &Value) -> DemoPage {
        DemoPage(PAGE.replace(PLACE, &demo.to_string().replace('<', "\\u003c")))
    }
}

/// Serves the page.
pub async fn page(State(api): State<Arc<Api>>) -> Html<String> {
    Html(api.demo.as_ref().map(|page| page.0.clone()).unwrap_or_default())
}

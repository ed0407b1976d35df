//! What the notify dialect has beside its WebSocket: the Twirp service that tells whose a token is, and the way of a
//! request for the WebSocket that comes on a connection of the API.

use super::body::{Most, read_whole};
use super::twirp::notify::{AuthRequest, AuthResponse, NOTIFY_SERVICE, NotifyService, notify_service};
use super::twirp::{Admitted, Call, Unknown, service};
use super::{Api, Refusal};
use crate::bridge;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::any;
use postrider_transports::{Credentials, Gate as _, Problem, bare_token};
use std::sync::Arc;

/// Bytes of a message with a token; the longest token that is read has 16 KiB.
const MESSAGE_BYTES: usize = 20 << 10;
/// Bytes of a form that comes with a request for the WebSocket, as the hub takes them.
const FORM_BYTES: usize = 8 << 10;

/// The routes of a node that serves the dialect at this path.
pub fn routes(path: &str) -> Router<Arc<Api>> {
    // One service for all that call it would do as well; it holds nothing but the API.
    service(NOTIFY_SERVICE, async |api: Arc<Api>, call: Call| {
        notify_service(&Tokens { api }, call).await
    })
    .route(path, any(open))
}

/// A request for the WebSocket: its form, which may hold the token, is carried with it.
async fn open(State(api): State<Arc<Api>>, request: Request) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let form = read_whole(&api, &head.headers, body, Most::bytes(FORM_BYTES)).await?;
    bridge::carry_with(api, Request::from_parts(head, Body::empty()), form).await
}

/// `notify.NotifyService`
struct Tokens {
    api: Arc<Api>,
}

impl NotifyService for Tokens {
    type Caller = ();

    fn admit(&self, _method: &'static str, _headers: &HeaderMap) -> Result<Admitted<()>, Problem> {
        // Whoever has a token may ask whose it is.
        Ok(Admitted {
            caller: (),
            most: Most::bytes(MESSAGE_BYTES),
            counts: false,
            // As the service did whose clients ask here.
            unknown: Unknown::PassedOver,
        })
    }

    async fn auth(&self, _caller: (), request: AuthRequest) -> Result<AuthResponse, Problem> {
        let token = bare_token(&request.authorization);
        if token.is_empty() {
            return Err(Problem {
                detail: "No user token was given. Send it as the field `authorization`.".into(),
                ..Problem::token_missing()
            });
        }
        let authorization = format!("Bearer {token}");
        let credentials = Credentials {
            authorization: Some(&authorization),
            ..Credentials::default()
        };
        let identity = self.api.auth.identify(&credentials, crate::now())?;
        Ok(AuthResponse {
            user_id: identity.user.to_string(),
        })
    }
}

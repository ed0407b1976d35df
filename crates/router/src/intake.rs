//! The rules of the publish interface, in one place: a draft is admitted whole or refused with one fault.

use crate::limits::COLLAPSE_KEY_BYTES;
use crate::{Draft, Fault, FaultCode, Limits, audience, digest};
use postrider_model::{
    Audience, Devices, Durability, Notification, NotificationId, Publication, RequestKey, Timestamp,
};
use std::sync::Arc;

/// The only policy there is until policies can be configured.
const POLICY_DEFAULT: &str = "default";

/// Who publishes, as the API key or another source says.
#[derive(Debug, Clone, Copy)]
pub struct Publisher<'a> {
    /// The name of the key or source.
    pub name: &'a str,
    /// Whether it may reach everyone.
    pub may_broadcast: bool,
}

/// What intake needs from outside for one draft.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// When it came.
    pub now: Timestamp,
    /// The id it gets where the publisher gave none: a UUID of version 7, or a derived one.
    pub fresh: uuid::Uuid,
    /// The id derived from an `Idempotency-Key`, which goes before `fresh`.
    pub derived: Option<NotificationId>,
    /// The whole request it is part of.
    pub request: Option<RequestKey>,
}

/// Checks a draft against all rules and works out its feeds.
pub fn admit(
    draft: Draft,
    publisher: &Publisher<'_>,
    limits: &Limits,
    arrival: Arrival,
) -> Result<Publication, Fault> {
    let audience = audience::audience(&draft, publisher, limits)?;
    let exclude = audience::excluded(&draft, limits)?;
    check_data(&draft, limits)?;
    check_text("subject", draft.subject.as_deref(), 0, limits.subject.as_usize())?;
    check_text(
        "collapse_key",
        draft.collapse_key.as_deref(),
        1,
        COLLAPSE_KEY_BYTES,
    )?;
    check_durability(&draft)?;
    check_devices(draft.devices, &audience)?;
    check_times(&draft)?;
    if let Some(policy) = draft.policy.as_deref().filter(|policy| *policy != POLICY_DEFAULT) {
        let detail = format!(
            "there is no policy `{}`; there is `{POLICY_DEFAULT}`",
            shortened(policy)
        );
        return Err(Fault::invalid("/policy", detail));
    }
    let id = match &draft.id {
        Some(text) => NotificationId::new(text).map_err(|e| Fault::invalid("/id", e.to_string()))?,
        None => arrival.derived.unwrap_or_else(|| digest::id_of(arrival.fresh)),
    };
    let deliverable = draft.deliver_at.filter(|at| *at > arrival.now);
    let notification = Notification {
        id,
        time: arrival.now,
        subject: draft.subject,
        data: draft.data,
        audience,
        exclude,
        durability: draft.durability,
        expires_at: draft.ttl.map(|ttl| deliverable.unwrap_or(arrival.now).plus(ttl)),
        deliver_at: deliverable,
        collapse_key: draft.collapse_key,
        policy: draft.policy,
        devices: draft.devices,
        publisher: publisher.name.to_owned(),
    };
    Ok(Publication {
        feeds: notification.feeds(),
        content: digest::content(&notification, draft.ttl, draft.deliver_at),
        notification: Arc::new(notification),
        request: arrival.request,
    })
}

fn check_data(draft: &Draft, limits: &Limits) -> Result<(), Fault> {
    let most = limits.data.as_usize();
    if draft.data.len() <= most {
        return Ok(());
    }
    let detail = format!(
        "`data` has {} bytes; at most {most} are allowed",
        draft.data.len()
    );
    Err(Fault::at(FaultCode::TooLarge, "/data", detail))
}

fn check_text(field: &str, text: Option<&str>, least: usize, most: usize) -> Result<(), Fault> {
    let pointer = || format!("/{field}");
    match text.map(str::len) {
        Some(n) if n < least => Err(Fault::invalid(pointer(), format!("`{field}` is empty"))),
        Some(n) if n > most => {
            let detail = format!("`{field}` has {n} bytes; at most {most} are allowed");
            Err(Fault::at(FaultCode::TooLarge, pointer(), detail))
        }
        _ => Ok(()),
    }
}

fn check_durability(draft: &Draft) -> Result<(), Fault> {
    if draft.durability == Durability::Stored {
        return Ok(());
    }
    let refused = [
        ("policy", draft.policy.is_some()),
        ("deliver_at", draft.deliver_at.is_some()),
        ("collapse_key", draft.collapse_key.is_some()),
        ("devices", draft.devices == Devices::First),
    ];
    match refused.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(Fault::invalid(
            format!("/{field}"),
            format!("a transient notification is not kept, so it cannot have `{field}`"),
        )),
        None => Ok(()),
    }
}

/// The first device takes it by an acknowledgement, and session topics know none.
fn check_devices(devices: Devices, audience: &Audience) -> Result<(), Fault> {
    if devices == Devices::First && matches!(audience, Audience::Topics(_)) {
        let detail = "`first` is for users and for everyone: what goes to a topic is not acknowledged";
        return Err(Fault::invalid("/devices", detail));
    }
    Ok(())
}

fn check_times(draft: &Draft) -> Result<(), Fault> {
    if draft.ttl.is_some_and(|ttl| ttl.0 == 0) {
        let detail = "`ttl` must be more than zero; for now or never, use `\"durability\": \"transient\"`";
        return Err(Fault::invalid("/ttl", detail));
    }
    if draft.deliver_at.is_some_and(|at| at > Timestamp::MAX) {
        return Err(Fault::invalid(
            "/deliver_at",
            "`deliver_at` lies beyond the year 9999",
        ));
    }
    Ok(())
}

/// At most 40 characters of what the publisher wrote, for a detail.
fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
#[path = "intake_tests.rs"]
mod tests;

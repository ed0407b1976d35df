//! Names in Rust of what `.proto` files name, by prost's rules.

/// `UserState` and `userID` as `user_state` and `user_id`.
pub fn snake(name: &str) -> String {
    let mut out = String::new();
    let mut after_small = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && after_small {
            out.push('_');
        }
        after_small = !c.is_ascii_uppercase();
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// `data_json` as `DataJson`.
pub fn camel(name: &str) -> String {
    let capital = |part: &str| part[..1].to_ascii_uppercase() + &part[1..];
    name.split('_')
        .filter(|part| !part.is_empty())
        .map(capital)
        .collect()
}

/// The path of a type, from within its package: `.postrider.v1.GetResponse.Audience` as `get_response::Audience`.
pub fn path(full: &str, package: &str) -> String {
    let within = full
        .trim_start_matches('.')
        .strip_prefix(package)
        .map(|rest| rest.trim_start_matches('.'))
        .unwrap_or(full);
    let mut parts: Vec<&str> = within.split('.').collect();
    let last = parts.pop().unwrap_or_default();
    let outer: String = parts.iter().map(|part| snake(part) + "::").collect();
    outer + last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_prosts() {
        assert_eq!(snake("NotificationService"), "notification_service");
        assert_eq!(snake("userID"), "user_id");
        assert_eq!(snake("data_json"), "data_json");
        assert_eq!(camel("data_json"), "DataJson");
        assert_eq!(
            path(".postrider.v1.GetResponse.Audience", "postrider.v1"),
            "get_response::Audience"
        );
    }
}

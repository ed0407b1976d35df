//! Layers of configuration from any bytes.

use super::layers::{Given, load_with};
use super::{files, key, properties, show};
use std::path::Path;

/// The endings of the files that are read.
const ENDINGS: [&str; 4] = ["yaml", "json", "toml", "properties"];

/// The first byte chooses the file's format; the rest is the file, then, each after a byte `00`, a variable of the
/// environment or an argument of `--set`. What is taken is named by known keys and is the same when it is read
/// again; what is not is told on one line each.
pub fn config(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    let ending = ENDINGS[usize::from(choice % 4)];
    let mut parts = rest.split(|byte| *byte == 0);
    let Some(Ok(file)) = parts.next().map(str::from_utf8) else {
        return;
    };
    // Nothing of this machine is read: it would not be there on the next.
    if rest.windows(5).any(|word| word == b"file:") {
        return;
    }
    let mut given = Given {
        files: vec![Path::new("fuzz").with_extension(ending)],
        ..Given::default()
    };
    for part in parts.filter_map(|part| str::from_utf8(part).ok()) {
        match part
            .strip_prefix("POSTRIDER_")
            .and_then(|rest| rest.split_once('='))
        {
            Some((name, value)) => given.env.push((format!("POSTRIDER_{name}").into(), value.into())),
            None => given.sets.push(part.to_owned()),
        }
    }
    let load = || load_with(&given, |_| files::content(ending, file));
    match (load(), load()) {
        (Err(faults), Err(again)) => {
            assert_eq!(faults, again);
            assert!(!faults.is_empty());
            for fault in faults {
                let line = fault.to_string();
                assert!(!line.contains(['\n', '\r']), "{line:?}");
            }
        }
        (Ok(loaded), Ok(again)) => {
            assert_eq!(loaded.origins, again.origins);
            assert!(loaded.origins.keys().all(|name| key::find(name).is_some()));
            assert_eq!(show::show(&loaded), show::show(&again));
        }
        (one, _) => panic!("once {one:?}, once not"),
    }
    if ending == "properties" {
        assert_properties(file);
    }
}

/// What was read, written with every character of doubt escaped, reads the same.
fn assert_properties(text: &str) {
    let Ok(read) = properties::parse(text) else { return };
    let escaped = |text: &str| {
        let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
        units.collect::<String>()
    };
    let lines = read
        .iter()
        .map(|property| format!("{}={}\n", escaped(&property.key), escaped(&property.value)));
    let again = properties::parse(&lines.collect::<String>()).expect("escapes are read");
    assert_eq!(again.len(), read.len());
    for (one, other) in read.iter().zip(&again) {
        assert_eq!((&one.key, &one.value), (&other.key, &other.value));
    }
}

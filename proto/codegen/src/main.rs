//! Makes the Rust code of the Twirp services from `proto/`, without `protoc`: what `cargo xtask proto` runs.
//!
//! Invariant: the same files give the same bytes; a test compares them with what is checked in. It knows nothing of
//! how the server serves: what it writes beside prost's types are calls into `crate::api::twirp`.

mod form;
mod names;
mod service;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use prost_types::FileDescriptorSet;

/// The files, from `proto/`.
const FILES: [&str; 2] = ["notify/notify.proto", "postrider/v1/notifications.proto"];
/// Where the code goes, from the root.
const GENERATED: &str = "crates/server/src/api/twirp/generated";

fn main() -> Result<()> {
    let root = root();
    for (name, code) in generate(&root.join("proto"))? {
        let path = root.join(GENERATED).join(name);
        std::fs::write(&path, code).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The code of each package, by the name of its file.
fn generate(protos: &Path) -> Result<Vec<(String, String)>> {
    let files = protox::compile(FILES, [protos]).context("reading proto/")?;
    let mut config = prost_build::Config::new();
    config
        .btree_map(["."])
        .service_generator(Box::new(Generator::new(&files)?));
    let requests: Vec<_> = (files.file.into_iter())
        .map(|file| {
            let module = prost_build::Module::from_protobuf_package_name(file.package());
            (module, file)
        })
        .collect();
    let modules = config.generate(requests).context("making code")?;
    let mut code: Vec<_> = modules
        .into_iter()
        .map(|(module, code)| (module.to_file_name_or("_"), code))
        // Those come with prost.
        .filter(|(name, _)| !name.starts_with("google."))
        .collect();
    code.sort();
    ensure!(code.len() == FILES.len(), "one package a file");
    Ok(code)
}

/// Adds to prost's types of a package their JSON, what they weigh, and its services.
struct Generator {
    /// What is added to each package, by its name.
    forms: std::collections::BTreeMap<String, String>,
}

impl Generator {
    fn new(files: &FileDescriptorSet) -> Result<Generator> {
        let own = files
            .file
            .iter()
            .filter(|file| !file.package().starts_with("google."));
        let forms = own.map(|file| Ok((file.package().to_owned(), form::package(file)?)));
        let forms = forms.collect::<Result<_>>()?;
        Ok(Generator { forms })
    }
}

impl prost_build::ServiceGenerator for Generator {
    fn generate(&mut self, service: prost_build::Service, code: &mut String) {
        service::push(&service, code);
    }

    fn finalize_package(&mut self, package: &str, code: &mut String) {
        code.push_str(self.forms.get(package).map_or("", String::as_str));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_checked_in_is_what_the_files_say() {
        let root = root();
        for (name, code) in generate(&root.join("proto")).unwrap() {
            let path = root.join(GENERATED).join(&name);
            let kept = std::fs::read_to_string(&path).unwrap();
            assert!(
                kept == code,
                "{name} is not what proto/ says: run `cargo xtask proto`"
            );
        }
    }

    #[test]
    fn what_the_json_could_not_hold_is_refused() {
        let of = |field: &str| {
            let folder = tempfile::tempdir().unwrap();
            for file in FILES {
                let path = folder.path().join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                let text = format!(
                    "syntax = \"proto3\"; package {};\nimport \"google/protobuf/struct.proto\";\nmessage M {{ {field} }}",
                    file.split('/').next().unwrap()
                );
                std::fs::write(path, text).unwrap();
            }
            generate(folder.path())
                .map(drop)
                .map_err(|error| format!("{error:#}"))
        };
        assert_eq!(of("string name = 1;"), Ok(()));
        for field in [
            "repeated int32 numbers = 1;",
            "double size = 1;",
            "google.protobuf.Value any = 1;",
        ] {
            assert!(of(field).unwrap_err().contains("JSON"), "{field}");
        }
    }
}

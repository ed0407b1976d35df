//! Pythons of one version: of the machine, or of pyenv.

use std::path::PathBuf;

/// Where one such as `2.7` may be, the machine's own first.
pub fn candidates(version: &str) -> Vec<PathBuf> {
    let program = format!("python{version}");
    let mut found = vec![PathBuf::from(&program)];
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pyenv"));
    let root = std::env::var_os("PYENV_ROOT").map(PathBuf::from).or_else(home);
    let Some(versions) = root.and_then(|root| std::fs::read_dir(root.join("versions")).ok()) else {
        return found;
    };
    let of_version = versions.flatten().filter(|folder| {
        let name = folder.file_name();
        let rest = name.to_string_lossy().strip_prefix(version).map(str::to_owned);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    found.extend(of_version.map(|folder| folder.path().join("bin").join(&program)));
    found
}

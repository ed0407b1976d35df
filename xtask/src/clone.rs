//! What a reader has after cloning the project, near enough: a copy of its tree in a private folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::ports::PortMap;
use crate::processes::Mark;

/// A private folder that goes with its owner.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Result<Self> {
        let name = format!("postrider-docs-{}", Mark::new().value());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Folder(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("xtask: {} stays: {error}", self.0.display());
        }
    }
}

/// Everything but what tools made, with the ports replaced in configuration files.
pub fn copy_tree(from: &Path, to: &Path, ports: &mut PortMap) -> Result<()> {
    const MADE: &[&str] = &[
        "target",
        ".git",
        "node_modules",
        ".venv",
        "__pycache__",
        "postrider-data",
    ];
    const SETTINGS: &[&str] = &["yaml", "yml", "toml", "properties", "env"];

    std::fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("listing {}", from.display()))? {
        let entry = entry.with_context(|| format!("listing {}", from.display()))?;
        let (name, source) = (entry.file_name(), entry.path());
        let target = to.join(&name);
        if MADE.iter().any(|made| name == *made) {
            continue;
        }
        let kind = entry
            .file_type()
            .with_context(|| format!("looking at {}", source.display()))?;
        let extension = source
            .extension()
            .and_then(|extension| extension.to_str())
            .unwrap_or_default();
        if kind.is_dir() {
            copy_tree(&source, &target, ports)?;
        } else if SETTINGS.contains(&extension) {
            let text =
                std::fs::read_to_string(&source).with_context(|| format!("reading {}", source.display()))?;
            let text = ports.rewrite(&text);
            std::fs::write(&target, text).with_context(|| format!("writing {}", target.display()))?;
        } else if kind.is_file() {
            std::fs::copy(&source, &target).with_context(|| format!("copying {}", source.display()))?;
        }
    }
    Ok(())
}

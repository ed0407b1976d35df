//! A module of Terraform, applied to an emulator.
//!
//! Invariant: what Terraform writes lies in a folder that ends with the [`Module`]; nothing is fetched from anywhere, since
//! the provider comes from a mirror on this machine; the module's own files are not touched.
//!
//! It takes nothing away again: the emulator forgets.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{ACCESS_KEY, REGION, SECRET_KEY, environment};

/// Where Terraform itself looks for providers, and where machines keep what is added to them: a folder of the latter.
const MIRROR: &str = "/usr/local/share/terraform/plugins";
const ADDED: &str = "/opt";
const PROVIDER: &str = "registry.terraform.io/hashicorp/aws";

/// What to say where there is no provider.
pub fn missing() -> Option<&'static str> {
    mirror()
        .is_none()
        .then_some("a mirror of Terraform's AWS provider")
}

fn mirror() -> Option<PathBuf> {
    let added = std::fs::read_dir(ADDED).into_iter().flatten().flatten();
    let mut mirrors = std::iter::once(PathBuf::from(MIRROR)).chain(added.map(|folder| folder.path()));
    mirrors.find(|folder| folder.join(PROVIDER).is_dir())
}

/// A module with its variables.
pub struct Module {
    folder: tempfile::TempDir,
    endpoint: String,
}

impl Module {
    /// Of these files, for an emulator; nothing is made yet.
    pub fn new(files: &Path, endpoint: &str, variables: &Value) -> Result<Module> {
        let folder = tempfile::Builder::new()
            .prefix("postrider-terraform-")
            .tempdir()?;
        for file in std::fs::read_dir(files)? {
            let path = file?.path();
            if path.extension().is_some_and(|end| end == "tf") {
                std::fs::copy(&path, folder.path().join(path.file_name().context("a name")?))?;
            }
        }
        let mirror = mirror().context("no mirror")?;
        let settings = format!(
            "provider_installation {{\n  filesystem_mirror {{ path = {:?} }}\n}}\n",
            mirror.display().to_string()
        );
        std::fs::write(folder.path().join("terraform.rc"), settings)?;
        let provider = format!(
            "provider \"aws\" {{\n  region = {REGION:?}\n  access_key = {ACCESS_KEY:?}\n  secret_key = {SECRET_KEY:?}\n  \
             skip_credentials_validation = true\n  skip_metadata_api_check = true\n}}\n"
        );
        std::fs::write(folder.path().join("provider.tf"), provider)?;
        std::fs::write(folder.path().join("terraform.tfvars.json"), variables.to_string())?;
        let module = Module {
            folder,
            endpoint: endpoint.to_owned(),
        };
        module.must(&["init", "-backend=false", "-input=false", "-no-color"])?;
        Ok(module)
    }

    /// Makes all of it. Half a minute for each of SQS' resources that wait for another: the provider looks so long
    /// whether SQS says the same from all its servers.
    pub fn apply(&self) -> Result<()> {
        self.must(&["apply", "-auto-approve", "-input=false", "-no-color"])?;
        Ok(())
    }

    /// What it would still do, each by its resource: `aws_sqs_queue.requests will be updated in-place`.
    pub fn changes(&self) -> Result<Vec<String>> {
        let plan = self.must(&["plan", "-input=false", "-no-color"])?;
        let said = String::from_utf8_lossy(&plan.stdout).into_owned();
        let lines = said.lines().filter_map(|line| line.strip_prefix("  # "));
        let of_resources = lines.filter(|line| line.contains(" will be ") || line.contains(" must be "));
        Ok(of_resources.map(str::to_owned).collect())
    }

    /// The value of an output.
    pub fn output(&self, name: &str) -> Result<String> {
        let said = self.must(&["output", "-json", name])?;
        Ok(serde_json::from_slice(&said.stdout)?)
    }

    fn must(&self, arguments: &[&str]) -> Result<Output> {
        let output = self.run(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "terraform {arguments:?}: {said}");
        Ok(output)
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new("terraform");
        command.args(arguments).current_dir(self.folder.path());
        command.envs(environment(&self.endpoint));
        command.env("TF_CLI_CONFIG_FILE", self.folder.path().join("terraform.rc"));
        command
            .env("TF_IN_AUTOMATION", "1")
            .env("CHECKPOINT_DISABLE", "1");
        command.output().context("run terraform")
    }
}

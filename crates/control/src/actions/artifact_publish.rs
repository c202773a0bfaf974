//! `artifact.publish`: keeps files of the run, and puts them where others look for them.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use pitcrew_exec::publish::{self, Target};
use serde::Deserialize;
use serde_json::{Value, json};

use super::pytest::OneOrMany;
use super::{Action, Call, Job, Plan, WrongInput, block_on, object, read, write_outputs};
use crate::clock;

pub struct ArtifactPublish;

#[derive(Deserialize)]
struct With {
    files: OneOrMany,
    to: Option<String>,
}

impl Action for ArtifactPublish {
    fn name(&self) -> &'static str {
        "artifact.publish"
    }

    fn schema(&self) -> Value {
        object(
            &["files"],
            json!({
                "files": {
                    "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
                    "description": "Files, directories or patterns with `*` and `**`, relative to the workspace root."
                },
                "to": {
                    "type": "string",
                    "description": "A directory, or `s3://bucket/prefix` (`?endpoint=…` for other S3-compatible stores, credentials from the `AWS_*` variables). The run's page shows the files in any case."
                }
            }),
        )
    }

    fn on_workers(&self) -> bool {
        false
    }

    fn plan(&self, call: &Call<'_>) -> Result<Plan, String> {
        Ok(Plan::Process { with: call.with.clone(), facts: Value::Null, secret: Value::Null, inherit: "AWS_" })
    }

    fn execute(&self, job: Job) -> anyhow::Result<ExitCode> {
        let With { files, to } = read(&job.with)?;
        let files = files.into_vec();
        let root = std::env::current_dir().context("cannot find the working directory")?;
        let kept = publish_to(&root, &files, Target::Directory(job.artifacts.clone()), &mut |_| ())?;
        println!("kept {} files with the run", kept.len());
        let mut outputs = json!({ "kept": kept });
        if let Some(to) = to.filter(|to| !to.is_empty()) {
            let target: Target =
                to.parse().map_err(|error| WrongInput(format!("cannot publish to `{to}`: {error}")))?;
            let published = publish_to(&root, &files, absolute(target, &root), &mut |line| println!("{line}"))?;
            outputs["published"] = json!(published);
        }
        write_outputs(&outputs)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A relative directory is one of the run's.
fn absolute(target: Target, root: &Path) -> Target {
    match target {
        Target::Directory(dir) if dir.is_relative() => Target::Directory(root.join(dir)),
        target => target,
    }
}

fn publish_to(
    root: &Path,
    files: &[String],
    target: Target,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Vec<publish::Published>> {
    let env = std::env::vars().collect();
    block_on(async { Ok(publish::publish(root, files, &target, &env, clock::now(), progress).await?) })
}

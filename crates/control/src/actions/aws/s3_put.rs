//! `s3.put`: a file of the run to an object of S3, in parts, many at once; an attempt that follows a broken one sends
//! only what is missing.

use std::process::ExitCode;

use pitcrew_exec::aws::Aws;
use pitcrew_exec::aws::s3::{self, Place};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::{Action, Call, Job, Plan, WrongInput, block_on, read, write_outputs};
use super::{Common, plan, schema, told};

pub struct S3Put;

#[derive(Deserialize)]
struct With {
    file: String,
    to: String,
    content_type: Option<String>,
    #[serde(flatten)]
    common: Common,
}

impl Action for S3Put {
    fn name(&self) -> &'static str {
        "s3.put"
    }

    fn schema(&self) -> Value {
        schema(
            &["file", "to"],
            json!({
                "file": { "type": "string", "description": "A file, relative to the workspace root." },
                "to": { "type": "string", "description": "`s3://bucket/key`; with a `/` at its end, the file's name is added." },
                "content_type": { "type": "string", "description": "Default: by the file's name." }
            }),
        )
    }

    fn on_workers(&self) -> bool {
        false
    }

    fn plan(&self, call: &Call<'_>) -> Result<Plan, String> {
        Ok(plan(call))
    }

    fn execute(&self, job: Job) -> anyhow::Result<ExitCode> {
        let with: With = read(&job.with)?;
        let file = std::env::current_dir()?.join(&with.file);
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let to = if with.to.ends_with('/') { format!("{}{name}", with.to) } else { with.to.clone() };
        let (bucket, key) = Place::parse(&to).map_err(|why| WrongInput(format!("`to`: `{to}` {why}")))?;
        if !file.is_file() {
            return Err(WrongInput(format!("there is no file `{}` in the workspace", with.file)).into());
        }
        let aws = Aws::from_env().map_err(told)?;
        let region = with.common.region(&aws, "")?;
        let place = Place { bucket, key, region, role: with.common.role().map(str::to_owned) };
        // Among the records, so that the next attempt finds it.
        std::fs::create_dir_all(&job.records)?;
        let hash: String = Sha256::digest(place.url()).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let state = job.records.join(format!("{}.{hash}.upload", Job::record_name()));
        let kind = with.content_type.unwrap_or_else(|| pitcrew_exec::publish::content_type(&name).to_owned());
        block_on(async {
            let put =
                s3::put(&aws, &file, &place, &kind, &state, &mut |line| println!("{line}")).await.map_err(told)?;
            println!("put {} ({} bytes, SHA-256 {})", put.url, put.bytes, put.sha256);
            write_outputs(&json!(put))?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

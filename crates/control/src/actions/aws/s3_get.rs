//! `s3.get`: an object of S3 to a file of the run, in parts, many at once; an attempt that follows a broken one fetches
//! only what is missing.

use std::path::{Component, Path};
use std::process::ExitCode;

use pitcrew_exec::aws::Aws;
use pitcrew_exec::aws::s3::{self, Place};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{Action, Call, Job, Plan, WrongInput, block_on, read, write_outputs};
use super::{Common, plan, schema, told};

pub struct S3Get;

#[derive(Deserialize)]
struct With {
    from: String,
    file: Option<String>,
    #[serde(flatten)]
    common: Common,
}

impl Action for S3Get {
    fn name(&self) -> &'static str {
        "s3.get"
    }

    fn schema(&self) -> Value {
        schema(
            &["from"],
            json!({
                "from": { "type": "string", "description": "`s3://bucket/key`." },
                "file": { "type": "string", "description": "Where to put it, relative to the workspace root; what is there is replaced. Default: the last part of the key." }
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
        let (bucket, key) =
            Place::parse(&with.from).map_err(|why| WrongInput(format!("`from`: `{}` {why}", with.from)))?;
        let last = || key.rsplit('/').next().unwrap_or_default().to_owned();
        let file = with.file.filter(|file| !file.is_empty()).unwrap_or_else(last);
        let inside = Path::new(&file).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if file.is_empty() || !inside {
            return Err(WrongInput(format!("`file`: `{file}` does not lie in the workspace")).into());
        }
        let target = std::env::current_dir()?.join(&file);
        let aws = Aws::from_env().map_err(told)?;
        let region = with.common.region(&aws, "")?;
        let place = Place { bucket, key, region, role: with.common.role().map(str::to_owned) };
        block_on(async {
            let got = s3::get(&aws, &place, &target, &mut |line| println!("{line}")).await.map_err(told)?;
            println!("got {file} ({} bytes, SHA-256 {})", got.bytes, got.sha256);
            write_outputs(&json!({ "file": file, "bytes": got.bytes, "sha256": got.sha256, "etag": got.etag }))?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

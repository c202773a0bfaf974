//! `lambda.invoke`: calls a function of AWS Lambda. A function that fails fails the task, with its own error.

use std::process::ExitCode;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pitcrew_exec::aws::{Aws, Call as AwsCall, Service, encode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{Action, Call, Job, Plan, block_on, read, write_outputs};
use super::{Common, plan, schema, told};

pub struct LambdaInvoke;

#[derive(Deserialize)]
struct With {
    function: String,
    #[serde(default)]
    payload: Value,
    qualifier: Option<String>,
    #[serde(default)]
    mode: Mode,
    #[serde(default = "longest")]
    timeout: u64,
    #[serde(flatten)]
    common: Common,
}

#[derive(Default, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Wait,
    Event,
    DryRun,
}

/// A function may take a quarter of an hour.
fn longest() -> u64 {
    910
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Mode::Wait => "RequestResponse",
            Mode::Event => "Event",
            Mode::DryRun => "DryRun",
        }
    }
}

impl Action for LambdaInvoke {
    fn name(&self) -> &'static str {
        "lambda.invoke"
    }

    fn schema(&self) -> Value {
        schema(
            &["function"],
            json!({
                "function": { "type": "string", "description": "Its name or ARN." },
                "payload": { "description": "What it is called with, as JSON." },
                "qualifier": { "type": "string", "description": "A version or an alias." },
                "mode": {
                    "enum": ["wait", "event", "dry_run"],
                    "description": "`wait` for its result (default), `event`: only hand it over, `dry_run`: only check whether it may be called."
                },
                "timeout": { "type": "integer", "minimum": 1, "maximum": 910, "description": "Seconds to wait for the result." }
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
        let aws = Aws::from_env().map_err(told)?;
        let region = with.common.region(&aws, &with.function)?;
        let query = with.qualifier.as_deref().filter(|text| !text.is_empty());
        let query = query.map(|text| format!("?Qualifier={}", encode(text))).unwrap_or_default();
        let mut call = AwsCall::json(Service::Lambda, &region, "Invoke", &with.payload);
        call.path = format!("/2015-03-31/functions/{}/invocations{query}", encode(&with.function));
        call.headers.push(("content-type", "application/json".to_owned()));
        call.headers.push(("x-amz-invocation-type", with.mode.word().to_owned()));
        if with.mode == Mode::Wait {
            call.headers.push(("x-amz-log-type", "Tail".to_owned()));
        }
        call.timeout = Duration::from_secs(with.timeout);
        // It may have run although no answer came.
        call.repeatable = false;
        call.role = with.common.role();
        block_on(async {
            let answer = aws.send(&call).await.map_err(told)?;
            if let Some(log) = answer.header("x-amz-log-result").and_then(|text| BASE64.decode(text).ok()) {
                for line in String::from_utf8_lossy(&log).lines().filter(|line| !line.trim().is_empty()) {
                    println!("{line}");
                }
            }
            let result: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            if let Some(kind) = answer.header("x-amz-function-error") {
                let field = |name: &str| result[name].as_str().unwrap_or_default().to_owned();
                let (class, message) = (field("errorType"), field("errorMessage"));
                for line in result["stackTrace"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    eprintln!("{}", line.trim_end());
                }
                anyhow::bail!("the function `{}` failed ({kind}): {class}: {message}", with.function);
            }
            println!("called `{}`: status {}", with.function, answer.status);
            let version = answer.header("x-amz-executed-version");
            write_outputs(&json!({ "status": answer.status, "result": result, "version": version }))?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

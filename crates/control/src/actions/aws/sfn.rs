//! `sfn.start`: starts an execution of AWS Step Functions and, if wanted, follows it to its end.

use std::process::ExitCode;

use pitcrew_exec::aws::{Aws, AwsError, Call as AwsCall, Service};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{Action, Call, Job, Plan, block_on, read, write_outputs};
use super::{Common, Pace, pick, plan, schema, told, unique_name};

pub struct SfnStart;

#[derive(Deserialize)]
struct With {
    state_machine: String,
    #[serde(default)]
    input: Value,
    name: Option<String>,
    #[serde(default)]
    wait: bool,
    #[serde(flatten)]
    common: Common,
}

impl Action for SfnStart {
    fn name(&self) -> &'static str {
        "sfn.start"
    }

    fn schema(&self) -> Value {
        schema(
            &["state_machine"],
            json!({
                "state_machine": { "type": "string", "description": "Its ARN." },
                "input": { "description": "What the execution begins with, as JSON." },
                "name": { "type": "string", "maxLength": 80, "description": "Of the execution. Default: one for each attempt." },
                "wait": { "type": "boolean", "description": "Follow the execution to its end; a task that is cancelled stops it." }
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
        let region = with.common.region(&aws, &with.state_machine)?;
        let ask = async |operation: &str, input: Value| {
            let mut call = AwsCall::json(Service::StepFunctions, &region, operation, &input);
            call.role = with.common.role();
            aws.send(&call).await?.json()
        };
        block_on(async {
            let name = with.name.clone().unwrap_or_else(|| unique_name(&job.scratch, 80));
            let input = if with.input.is_null() { json!({}) } else { with.input.clone() };
            let start = json!({ "stateMachineArn": with.state_machine, "name": name, "input": input.to_string() });
            let arn = match ask("StartExecution", start).await {
                Ok(answer) => answer["executionArn"].as_str().unwrap_or_default().to_owned(),
                // Our own, whose answer got lost.
                Err(error) if with.name.is_none() && error.code == "ExecutionAlreadyExists" => {
                    format!("{}:{name}", with.state_machine.replacen(":stateMachine:", ":execution:", 1))
                }
                Err(error) => return Err(told(error)),
            };
            println!("started {arn}");
            if !with.wait {
                write_outputs(&json!({ "execution_arn": arn }))?;
                return Ok(ExitCode::SUCCESS);
            }
            let mut pace = Pace::new()?;
            loop {
                let answer = ask("DescribeExecution", json!({ "executionArn": arn })).await.map_err(express)?;
                let status = answer["status"].as_str().unwrap_or_default();
                match status {
                    "SUCCEEDED" => {
                        let text = answer["output"].as_str().unwrap_or("null");
                        let output = serde_json::from_str(text).unwrap_or_else(|_| json!(text));
                        println!("the execution succeeded");
                        write_outputs(&json!({ "execution_arn": arn, "status": status, "output": output }))?;
                        return Ok(ExitCode::SUCCESS);
                    }
                    "FAILED" | "TIMED_OUT" | "ABORTED" => {
                        let said: Vec<String> = pick(&answer, &[("error", "error"), ("cause", "cause")])
                            .values()
                            .filter_map(|text| text.as_str().map(str::to_owned))
                            .collect();
                        let said = if said.is_empty() { String::new() } else { format!(": {}", said.join(": ")) };
                        anyhow::bail!("the execution ended as {status}{said}");
                    }
                    _ => {}
                }
                if pace.wait().await {
                    let stop =
                        json!({ "executionArn": arn, "error": "Pitcrew.Cancelled", "cause": "the task was cancelled" });
                    ask("StopExecution", stop).await.map_err(told)?;
                    println!("stopped the execution");
                    return Ok(ExitCode::FAILURE);
                }
            }
        })
    }
}

/// Executions of express state machines leave nothing that could be asked for.
fn express(error: AwsError) -> anyhow::Error {
    let is_express = error.code == "InvalidArn" || error.message.contains("express");
    let hint = if is_express { "an express state machine cannot be followed: leave out `wait`" } else { "" };
    let error = told(error);
    if hint.is_empty() { error } else { error.context(hint) }
}

//! `sagemaker.train`: starts a training job of Amazon SageMaker and follows it to its end.
//!
//! A task that is cancelled stops the job, and ends when the job has.

use std::collections::BTreeSet;
use std::process::ExitCode;

use pitcrew_exec::aws::{Aws, Call as AwsCall, Service};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{Action, Call, Job, Plan, WrongInput, block_on, read, write_outputs};
use super::{Common, Pace, as_text, plan, schema, told, unique_name};

pub struct SageMakerTrain;

#[derive(Deserialize)]
struct With {
    spec: Value,
    name: Option<String>,
    #[serde(default = "yes")]
    wait: bool,
    #[serde(flatten)]
    common: Common,
}

fn yes() -> bool {
    true
}

impl Action for SageMakerTrain {
    fn name(&self) -> &'static str {
        "sagemaker.train"
    }

    fn schema(&self) -> Value {
        schema(
            &["spec"],
            json!({
                "spec": {
                    "type": "object",
                    "description": "The job, as `CreateTrainingJob` takes it: `AlgorithmSpecification`, `RoleArn`, `OutputDataConfig`, `ResourceConfig`, `StoppingCondition`, `HyperParameters`, …"
                },
                "name": { "type": "string", "maxLength": 63, "description": "Of the job. Default: one for each attempt." },
                "wait": { "type": "boolean", "description": "Follow the job to its end (default)." }
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
        let Value::Object(mut spec) = with.spec else {
            return Err(WrongInput("`spec` is not an object".to_owned()).into());
        };
        let given = with.name.or_else(|| spec.get("TrainingJobName").map(as_text));
        let name = given.clone().unwrap_or_else(|| unique_name(&job.scratch, 63));
        spec.insert("TrainingJobName".to_owned(), json!(name));
        // SageMaker takes nothing but texts there.
        for section in ["HyperParameters", "Environment"] {
            for value in
                spec.get_mut(section).and_then(Value::as_object_mut).into_iter().flat_map(|map| map.values_mut())
            {
                *value = json!(as_text(value));
            }
        }
        let aws = Aws::from_env().map_err(told)?;
        let region = with.common.region(&aws, "")?;
        let (aws, region, common) = (&aws, region.as_str(), &with.common);
        let ask = async |operation: &str, input: Value| {
            let mut call = AwsCall::json(Service::SageMaker, region, operation, &input);
            call.role = common.role();
            let answer = aws.send(&call).await?;
            // Some answers have no body at all.
            if answer.body.is_empty() { Ok(Value::Null) } else { answer.json() }
        };
        block_on(async {
            match ask("CreateTrainingJob", Value::Object(spec)).await {
                Ok(_) => println!("started the training job `{name}`"),
                // Our own, whose answer got lost.
                Err(error) if given.is_none() && error.code == "ResourceInUse" => {
                    println!("the training job `{name}` is there")
                }
                Err(error) => return Err(told(error)),
            }
            if !with.wait {
                write_outputs(&json!({ "name": name }))?;
                return Ok(ExitCode::SUCCESS);
            }
            let (mut pace, mut told_of, mut stopping) = (Pace::new()?, BTreeSet::new(), false);
            loop {
                let found = ask("DescribeTrainingJob", json!({ "TrainingJobName": name })).await.map_err(told)?;
                for step in found["SecondaryStatusTransitions"].as_array().into_iter().flatten() {
                    let line = format!("{}: {}", as_text(&step["Status"]), as_text(&step["StatusMessage"]));
                    if told_of.insert(line.clone()) {
                        println!("{line}");
                    }
                }
                let status = as_text(&found["TrainingJobStatus"]);
                match status.as_str() {
                    "Completed" => {
                        write_outputs(&outputs(&name, &status, &found))?;
                        println!("the training job is complete");
                        return Ok(ExitCode::SUCCESS);
                    }
                    "Failed" => anyhow::bail!("the training job `{name}` failed: {}", as_text(&found["FailureReason"])),
                    "Stopped" if stopping => {
                        println!("the training job is stopped");
                        return Ok(ExitCode::FAILURE);
                    }
                    "Stopped" => anyhow::bail!("somebody stopped the training job `{name}`"),
                    _ => {}
                }
                if pace.wait().await && !std::mem::replace(&mut stopping, true) {
                    println!("stopping the training job");
                    ask("StopTrainingJob", json!({ "TrainingJobName": name })).await.map_err(told)?;
                    pace = Pace::new()?;
                }
            }
        })
    }
}

fn outputs(name: &str, status: &str, found: &Value) -> Value {
    let metrics: serde_json::Map<String, Value> = found["FinalMetricDataList"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|metric| (as_text(&metric["MetricName"]), metric["Value"].clone()))
        .collect();
    json!({
        "name": name,
        "arn": found["TrainingJobArn"],
        "status": status,
        "model": found["ModelArtifacts"]["S3ModelArtifacts"],
        "billable_seconds": found["BillableTimeInSeconds"],
        "metrics": metrics,
    })
}

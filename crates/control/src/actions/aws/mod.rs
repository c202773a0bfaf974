//! Actions at AWS. Each is one signed call, or one and its consequences; what AWS answers is told as AWS told it.
//!
//! All of them take `region` (else that of an ARN, else the usual one) and `role` (the ARN of a role to assume).

mod lambda;
mod s3_get;
mod s3_put;
mod sagemaker;
mod sfn;
mod sns;

pub use lambda::LambdaInvoke;
pub use s3_get::S3Get;
pub use s3_put::S3Put;
pub use sagemaker::SageMakerTrain;
pub use sfn::SfnStart;
pub use sns::SnsPublish;

use std::path::Path;
use std::time::Duration;

use pitcrew_exec::aws::{Aws, AwsError, check_region};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};

use super::{Call, Plan, WrongInput, object};

/// What all of them take.
#[derive(Debug, Default, Deserialize)]
struct Common {
    region: Option<String>,
    role: Option<String>,
}

impl Common {
    /// The region to ask in; `arn` is that of what is asked for, if it has one.
    fn region(&self, aws: &Aws, arn: &str) -> anyhow::Result<String> {
        let words: Vec<&str> = arn.splitn(5, ':').collect();
        let of_arn = match words.as_slice() {
            ["arn", _, _, region, _] if !region.is_empty() => Some((*region).to_owned()),
            _ => None,
        };
        let given = self.region.clone().filter(|region| !region.is_empty());
        let region = given.or(of_arn).unwrap_or_else(|| aws.region());
        check_region(&region).map_err(told)?;
        Ok(region)
    }

    fn role(&self) -> Option<&str> {
        self.role.as_deref().filter(|role| !role.is_empty())
    }
}

/// The schema of an action, with what all of them take.
fn schema(required: &[&str], properties: Value) -> Value {
    let mut all = properties.as_object().cloned().unwrap_or_default();
    let text = |about: &str| json!({ "type": "string", "description": about });
    all.insert("region".to_owned(), text("Of AWS. Default: that of the ARN, else the usual one."));
    all.insert("role".to_owned(), text("The ARN of a role to assume."));
    object(required, Value::Object(all))
}

/// A process with the server's `AWS_*` variables.
fn plan(call: &Call<'_>) -> Plan {
    Plan::Process { with: call.with.clone(), facts: Value::Null, secret: Value::Null, inherit: "AWS_" }
}

/// An error as the action's own: what cannot pass ends the task for good.
fn told(error: AwsError) -> anyhow::Error {
    if error.passing || error.is_throttled() { error.into() } else { WrongInput(error.to_string()).into() }
}

/// A value as a text: texts as they are, everything else as JSON.
fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A name that AWS takes, and that no other attempt anywhere has: from the task's name, and a hash of the attempt's own
/// directory. `longest` is in characters, from 20.
fn unique_name(scratch: &Path, longest: usize) -> String {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let digest = Sha256::digest(format!("{}\0{}", scratch.display(), variable("PITCREW_ATTEMPT")));
    let hash: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let task = variable("PITCREW_TASK");
    let mut name = String::new();
    for c in task.chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '-' };
        if c != '-' || !(name.is_empty() || name.ends_with('-')) {
            name.push(c);
        }
    }
    name.truncate(longest - hash.len() - 1);
    let name = name.trim_matches('-');
    if name.is_empty() { format!("pitcrew-{hash}") } else { format!("{name}-{hash}") }
}

/// Waits between looks: longer and longer, up to 15 s. `true`: the attempt is to stop.
struct Pace {
    next: Duration,
    stop: tokio::signal::unix::Signal,
}

impl Pace {
    fn new() -> anyhow::Result<Pace> {
        Ok(Pace { next: Duration::from_secs(1), stop: signal(SignalKind::terminate())? })
    }

    async fn wait(&mut self) -> bool {
        let wait = self.next;
        self.next = (wait * 3 / 2).min(Duration::from_secs(15));
        tokio::select! {
            () = tokio::time::sleep(wait) => false,
            _ = self.stop.recv() => true,
        }
    }
}

/// Fields of an answer that are there, under names of ours.
fn pick(answer: &Value, fields: &[(&str, &str)]) -> Map<String, Value> {
    let present = fields.iter().filter(|(_, theirs)| !answer[*theirs].is_null());
    present.map(|(ours, theirs)| ((*ours).to_owned(), answer[*theirs].clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_and_is_of_one_attempt_only() {
        let one = unique_name(Path::new("/a/scratch"), 63);
        assert_eq!(one, unique_name(Path::new("/a/scratch"), 63));
        assert_ne!(one, unique_name(Path::new("/b/scratch"), 63));
        assert!(one.len() <= 63 && one.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{one}");
    }
}

//! The check of a node: a pod (DCGM, or whatever a user has) that is run on exactly that node, and what it said. What that
//! means is for others to judge.
//!
//! Invariant: it is a check only if its container ran and ended by itself. Whatever else happens, an image that is not there, a
//! node without free GPUs, a deadline, is told as "not run", with its reason.

use std::time::Duration;

use crate::client::{Client, Fault};
use crate::clock;
use crate::pod::{Plan, Stage};

/// Between two looks, and between tries to start.
const LOOK: Duration = Duration::from_secs(2);
/// So long its log is asked for, which its node has.
const LAG: Duration = Duration::from_secs(15);

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// It ran and ended by itself, with this code, and wrote this.
    Ran { code: i32, log: String },
    /// It says nothing about the node: it never ran, or did not come to its end.
    NotRun { why: String },
}

/// Runs a check to its end, within so long. Asked for again by the same name, it finds the pod that was made before.
pub async fn run(client: &Client, plan: &Plan, within: Duration) -> Checked {
    let until = clock::instant() + within;
    let mut is_made = false;
    let why = loop {
        let last = match step(client, plan, &mut is_made).await {
            Ok(Stage::Ended { code }) => {
                let log = log(client, plan, until.min(clock::instant() + LAG)).await;
                remove(client, plan).await;
                return Checked::Ran { code, log };
            }
            Ok(Stage::Broken { why } | Stage::Waiting { why, hopeless: true }) => break why,
            Ok(Stage::Waiting { why, hopeless: false }) => why,
            Ok(Stage::Running) => "it runs yet".to_owned(),
            Err(fault) if fault.may_pass() => fault.to_string(),
            Err(fault) => break fault.to_string(),
        };
        if clock::instant() + LOOK >= until {
            break format!("it did not end within {} s: {last}", within.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    };
    remove(client, plan).await;
    Checked::NotRun { why: format!("the pod `{}/{}`: {why}", plan.namespace, plan.name) }
}

async fn step(client: &Client, plan: &Plan, is_made: &mut bool) -> Result<Stage, Fault> {
    if !*is_made {
        plan.create(client).await?;
        *is_made = true;
    }
    match plan.find(client).await? {
        Some(pod) => Ok(pod.stage()),
        None => Ok(Stage::Broken { why: "somebody deleted it".to_owned() }),
    }
}

/// Empty where it cannot be read; what it ended with stands.
async fn log(client: &Client, plan: &Plan, until: tokio::time::Instant) -> String {
    loop {
        match plan.log(client).await {
            Ok(log) => return log,
            Err(fault) if fault.may_pass() && clock::instant() + LOOK < until => tokio::time::sleep(LOOK).await,
            Err(fault) => {
                tracing::warn!("what the pod `{}/{}` wrote cannot be read: {fault}", plan.namespace, plan.name);
                return String::new();
            }
        }
    }
}

/// What stays is swept up later.
async fn remove(client: &Client, plan: &Plan) {
    if let Err(fault) = plan.delete(client).await {
        tracing::warn!("the pod `{}/{}` is over, and there yet: {fault}", plan.namespace, plan.name);
    }
}

//! Systems Manager: commands on machines, and what came of them.

use pitcrew_exec::aws::Service;
use serde::Deserialize;
use serde_json::json;

use super::{Client, Fault};

/// A command that was sent to one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    pub command: String,
    pub instance: String,
}

/// What is known of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ran {
    /// It waits for the machine, or runs.
    Pending,
    /// It ended, with this exit code.
    Ended { code: i32, stdout: String, stderr: String },
    /// It never ran, or nobody knows how it ended; in the words of SSM.
    Undelivered { status: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Sent {
    command: SentCommand,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SentCommand {
    command_id: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Result_ {
    status: String,
    status_details: String,
    response_code: i32,
    standard_output_content: String,
    standard_error_content: String,
}

impl Client {
    /// Runs shell lines on a machine as root. What perhaps arrived is not sent twice. A machine that does not take it
    /// within `deliver_s` seconds never runs it; 30 is the least.
    pub async fn send_command(
        &self,
        instance: &str,
        lines: &[&str],
        comment: &str,
        deliver_s: u32,
        run_s: u32,
    ) -> Result<Invocation, Fault> {
        let input = json!({
            "DocumentName": "AWS-RunShellScript",
            "InstanceIds": [instance],
            "Comment": comment.chars().take(100).collect::<String>(),
            "TimeoutSeconds": deliver_s.max(30),
            "Parameters": { "commands": lines, "executionTimeout": [run_s.max(1).to_string()] },
        });
        let sent: Sent = self.json(Service::Ssm, "SendCommand", &input, false).await?;
        Ok(Invocation { command: sent.command.command_id, instance: instance.to_owned() })
    }

    /// What came of a command. One that SSM does not know yet is pending.
    pub async fn command_result(&self, invocation: &Invocation) -> Result<Ran, Fault> {
        let input = json!({ "CommandId": invocation.command, "InstanceId": invocation.instance });
        let answer = self.json::<Result_>(Service::Ssm, "GetCommandInvocation", &input, true).await;
        let result = match answer {
            Err(fault) if fault.code.contains("InvocationDoesNotExist") => return Ok(Ran::Pending),
            other => other?,
        };
        Ok(match result.status.as_str() {
            "Pending" | "InProgress" | "Delayed" | "Cancelling" => Ran::Pending,
            // A code below 0 is no exit code: the machine never answered.
            "Success" | "Failed" if result.response_code >= 0 => Ran::Ended {
                code: result.response_code,
                stdout: result.standard_output_content,
                stderr: result.standard_error_content,
            },
            _ => {
                let told = [result.status_details, result.status].into_iter().find(|text| !text.is_empty());
                Ran::Undelivered { status: told.unwrap_or_else(|| "unknown".to_owned()) }
            }
        })
    }

    /// Whether SSM reaches the machine; `None` where it does not know it.
    pub async fn is_online(&self, instance: &str) -> Result<Option<bool>, Fault> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Known {
            #[serde(default)]
            instance_information_list: Vec<Information>,
        }
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "PascalCase", default)]
        struct Information {
            ping_status: String,
        }
        let input = json!({ "Filters": [{ "Key": "InstanceIds", "Values": [instance] }] });
        let known: Known = self.json(Service::Ssm, "DescribeInstanceInformation", &input, true).await?;
        Ok(known.instance_information_list.first().map(|information| information.ping_status == "Online"))
    }
}

//! Why AWS did not do what it was asked to, by what can be done about it.

use std::fmt;

use pitcrew_exec::aws::{AwsError, Service};

/// What can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Too many calls at once: the same call succeeds later.
    Throttled,
    /// There is no room now: no GPU, no memory, no instance that takes tasks. It may come; wait, within bounds.
    Capacity,
    /// AWS has no such thing, or no longer.
    NotFound,
    /// The role lacks [`Fault::action`].
    Denied,
    /// Somebody else changed it first, or the condition of a write was not met.
    Conflict,
    /// The request itself is wrong: the same call never succeeds.
    Invalid,
    /// Nobody answered, or AWS has a fault: it is not known whether the call had an effect.
    Unreached,
}

/// A call that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    /// What the role must be allowed to do for this call, such as `ecs:RunTask`.
    pub action: String,
    /// One sentence, in AWS's words where it gave some.
    pub words: String,
    /// AWS's code or reason, such as `ClusterNotFoundException` or `RESOURCE:GPU`; empty where there is none.
    pub code: String,
}

/// Parts of codes of what is not there (any more).
const NOT_FOUND: [&str; 9] = [
    "NotFound",
    "DoesNotExist",
    "NonExistent",
    "InvocationDoesNotExist",
    "InvalidCommandId",
    "MISSING",
    "ServiceNotActive",
    "InvalidInstanceID",
    "UnknownResource",
];

impl Fault {
    /// An answer of AWS that is no success.
    pub(crate) fn of(service: Service, operation: &str, error: &AwsError) -> Fault {
        let own = format!("{}:{operation}", prefix(service));
        let action = error.denial().map_or(own, |(_, action)| action.to_owned());
        let code = error.code.as_str();
        let kind = if error.is_denied() {
            Kind::Denied
        } else if error.is_throttled() || code.contains("Throughput") || code.contains("SlowDown") {
            Kind::Throttled
        } else if code.starts_with("ConditionalCheckFailed") || code.contains("Conflict") {
            Kind::Conflict
        } else if error.status == 0 || error.status >= 500 || error.passing {
            Kind::Unreached
        } else if code == "InvalidInstanceId"
            || NOT_FOUND.iter().any(|part| code.contains(part))
            // ECS says so of task definitions and tasks in words only.
            || (code == "ClientException" && error.message.contains("Unable to describe task definition"))
            || (code == "InvalidParameterException" && error.message.contains("was not found"))
        {
            Kind::NotFound
        } else {
            Kind::Invalid
        };
        Fault { kind, words: error.to_string(), code: error.code.clone(), action }
    }

    /// What stands under `failures` in an answer of ECS that is a success otherwise.
    pub(crate) fn failure(operation: &str, arn: &str, reason: &str, detail: &str) -> Fault {
        let capacity = [
            "RESOURCE:",
            "AGENT",
            "EMPTY CAPACITY PROVIDER",
            "NO ACTIVE INSTANCES",
            "INACTIVE",
            "DRAINING",
            // The machine that was named takes nothing now.
            "MEMBEROF",
        ];
        let kind = if reason == "MISSING" {
            Kind::NotFound
        } else if capacity.iter().any(|part| reason.to_uppercase().starts_with(part)) {
            Kind::Capacity
        } else {
            Kind::Invalid
        };
        let meaning = match reason {
            "RESOURCE:GPU" => " (no instance has as many GPUs free)",
            "RESOURCE:MEMORY" => " (no instance has as much memory free)",
            "RESOURCE:CPU" => " (no instance has as much CPU free)",
            "AGENT" => " (the agent of the instance is not connected)",
            "INACTIVE" => " (the instance is not active)",
            _ => "",
        };
        let mut words = format!("`{operation}` of ECS: {reason}{meaning}");
        for (name, text) in [("", detail), ("for ", arn)] {
            if !text.is_empty() {
                words.push_str(&format!(", {name}{text}"));
            }
        }
        Fault { kind, action: format!("ecs:{operation}"), words, code: reason.to_owned() }
    }

    /// An answer that does not have the form that it must have.
    pub(crate) fn strange(service: Service, operation: &str, why: &str) -> Fault {
        let action = format!("{}:{operation}", prefix(service));
        Fault { kind: Kind::Unreached, words: format!("the answer to `{action}` {why}"), code: String::new(), action }
    }

    /// What is wrong with a call before anybody is asked.
    pub(crate) fn invalid(action: &str, words: String) -> Fault {
        Fault { kind: Kind::Invalid, action: action.to_owned(), words, code: String::new() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)?;
        match self.kind {
            Kind::Denied if !self.words.contains(&format!("allow `{}`", self.action)) => {
                write!(f, "; allow `{}` in the policy of the role that Pitcrew uses", self.action)
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}

/// What stands before the operation in a policy.
fn prefix(service: Service) -> &'static str {
    service.name()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str, message: &str, status: u16, passing: bool) -> AwsError {
        let (code, message, call) = (code.to_owned(), message.to_owned(), String::new());
        AwsError { code, message, request_id: None, status, passing, call }
    }

    #[test]
    fn faults_are_told_apart_by_what_can_be_done() {
        let kind = |code: &str, message: &str, status: u16, passing: bool| {
            Fault::of(Service::Ecs, "RunTask", &error(code, message, status, passing)).kind
        };
        assert_eq!(kind("ThrottlingException", "Rate exceeded", 400, true), Kind::Throttled);
        assert_eq!(kind("ClusterNotFoundException", "Cluster not found.", 400, false), Kind::NotFound);
        assert_eq!(kind("InvocationDoesNotExist", "", 400, false), Kind::NotFound);
        assert_eq!(kind("InvalidInstanceID.NotFound", "", 400, false), Kind::NotFound);
        assert_eq!(kind("ClientException", "Unable to describe task definition.", 400, false), Kind::NotFound);
        assert_eq!(kind("ConditionalCheckFailedException", "", 400, false), Kind::Conflict);
        assert_eq!(kind("InvalidParameterException", "no container", 400, false), Kind::Invalid);
        assert_eq!(kind("ServerException", "", 500, true), Kind::Unreached);
        assert_eq!(kind("", "no answer", 0, true), Kind::Unreached);
    }

    #[test]
    fn a_denial_names_what_to_allow_once() {
        let said = "User: arn:aws:iam::1:role/r is not authorized to perform: ecs:TagResource on resource: x";
        let fault = Fault::of(Service::Ecs, "RunTask", &error("AccessDeniedException", said, 400, false));
        assert_eq!((fault.kind, fault.action.as_str()), (Kind::Denied, "ecs:TagResource"));
        assert_eq!(fault.to_string().matches("allow `ecs:TagResource`").count(), 1, "{fault}");
        let fault = Fault::of(Service::Ec2, "RebootInstances", &error("UnauthorizedOperation", "no", 403, false));
        assert!(
            fault.to_string().ends_with("; allow `ec2:RebootInstances` in the policy of the role that Pitcrew uses")
        );
    }

    #[test]
    fn what_ecs_could_not_place_waits_and_what_is_missing_does_not() {
        let of = |reason: &str| Fault::failure("RunTask", "arn:x", reason, "");
        let unsatisfied = "MemberOf placement constraint unsatisfied.";
        for reason in ["RESOURCE:GPU", "RESOURCE:MEMORY", "AGENT", "No Active Instances", "INACTIVE", unsatisfied] {
            assert_eq!(of(reason).kind, Kind::Capacity, "{reason}");
        }
        assert_eq!((of("MISSING").kind, of("ATTRIBUTE").kind), (Kind::NotFound, Kind::Invalid));
        assert_eq!(
            of("RESOURCE:GPU").to_string(),
            "`RunTask` of ECS: RESOURCE:GPU (no instance has as many GPUs free), for arn:x"
        );
    }
}

//! What has to be there on AWS, as a template of CloudFormation: rules, a queue with a dead-letter queue, a topic,
//! alarms, and a role that may do what Pitcrew does and nothing else.
//!
//! Invariant: names are checked before they become text of the template, so nothing that is given can be anything but
//! a name in it.

use std::collections::BTreeMap;

const TEXT: &str = include_str!("template.yaml");

/// What can be named otherwise, and its default.
pub const NAMES: [(&str, &str); 11] = [
    ("ECS_CLUSTER_NAME", "default"),
    ("DCGM_HEALTH_CHECK_TASK", "dcgm-health-check"),
    ("SNS_TOPIC_NAME", "pitcrew-people"),
    ("EVENT_QUEUE_NAME", "pitcrew-ecs-events"),
    ("ROLE_NAME", "pitcrew-server"),
    ("TRUSTED_SERVICE", "ec2.amazonaws.com"),
    ("LOG_GROUP_PREFIX", "/ecs/"),
    ("NODE_TAG_KEY", "pitcrew"),
    ("JOB_TABLE_NAME", "ecs_job"),
    ("TASK_TABLE_NAME", "ecs_task"),
    ("NODE_TABLE_NAME", "ecs_node"),
];

/// What `NAMES` are, for people.
pub fn meaning(name: &str) -> &'static str {
    match name {
        "ECS_CLUSTER_NAME" => "the cluster, by its name",
        "DCGM_HEALTH_CHECK_TASK" => "the family of the task definition that checks the GPUs of a machine",
        "SNS_TOPIC_NAME" => "the topic for people",
        "EVENT_QUEUE_NAME" => "the queue that wakes Pitcrew",
        "ROLE_NAME" => "the role of the server",
        "TRUSTED_SERVICE" => "what the server runs on: `ec2.amazonaws.com` or `ecs-tasks.amazonaws.com`",
        "LOG_GROUP_PREFIX" => "what the names of the tasks' log groups begin with",
        "NODE_TAG_KEY" => "machines with this tag, and `true` as its value, may be repaired",
        "JOB_TABLE_NAME" => "the table of jobs of the system before, if it is imported or still written",
        "TASK_TABLE_NAME" => "its table of tasks",
        "NODE_TABLE_NAME" => "its table of nodes",
        _ => "",
    }
}

/// The template, with these names instead of the defaults. The error is a sentence for people.
pub fn template(given: &BTreeMap<String, String>) -> Result<String, String> {
    let mut text = TEXT.to_owned();
    if let Some(unknown) = given.keys().find(|name| NAMES.iter().all(|(known, _)| known != name)) {
        let known: Vec<_> = NAMES.iter().map(|(name, _)| format!("`{name}`")).collect();
        return Err(format!("`{unknown}` is no name of the template; there are {}", known.join(", ")));
    }
    for (name, default) in NAMES {
        let value = given.get(name).map_or(default, String::as_str);
        check(name, value)?;
        text = text.replace(&format!("{{{name}}}"), value);
    }
    Ok(text)
}

fn check(name: &str, value: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let (longest, fits): (usize, fn(char) -> bool) = match name {
        "TRUSTED_SERVICE" => {
            return match value {
                "ec2.amazonaws.com" | "ecs-tasks.amazonaws.com" => Ok(()),
                _ => Err(format!("`{name}` is `ec2.amazonaws.com` or `ecs-tasks.amazonaws.com`, found `{value}`")),
            };
        }
        "LOG_GROUP_PREFIX" => (500, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/' | '.' | '#')),
        "NODE_TAG_KEY" => (120, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/' | '.')),
        "JOB_TABLE_NAME" | "TASK_TABLE_NAME" | "NODE_TABLE_NAME" => {
            (255, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        }
        "ROLE_NAME" => (64, plain),
        // With `-dead` at its end it is a queue as well.
        "EVENT_QUEUE_NAME" => (75, plain),
        _ => (255, plain),
    };
    match value.chars().find(|c| !fits(*c)) {
        _ if value.is_empty() => Err(format!("`{name}` is empty")),
        _ if value.len() > longest => Err(format!("`{name}` has at most {longest} letters")),
        Some(odd) => Err(format!("`{name}` cannot hold `{odd}`: `{value}`")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn every_name_is_in_the_template_and_nothing_is_left_open() {
        for (name, _) in NAMES {
            assert!(TEXT.contains(&format!("{{{name}}}")), "{name}");
            assert_ne!(meaning(name), "", "{name}");
        }
        let text = template(&given("ECS_CLUSTER_NAME", "train")).unwrap();
        assert!(text.contains("Default: \"train\""));
        // Only what CloudFormation itself fills in.
        let open = text.match_indices('{').filter(|(at, _)| !text[..*at].ends_with('$')).count();
        assert_eq!(open, 0);
    }

    #[test]
    fn a_name_is_a_name_and_no_text_of_the_template() {
        for (name, value) in [
            ("ECS_CLUSTER_NAME", "x\"\n    Type: AWS::IAM::User"),
            ("ECS_CLUSTER_NAME", ""),
            ("NODE_TAG_KEY", "a: b"),
            ("TRUSTED_SERVICE", "*"),
            ("EVENT_QUEUE_NAME", "q.fifo"),
        ] {
            assert!(template(&given(name, value)).unwrap_err().contains(name));
        }
        let told = template(&given("TOPIC", "x")).unwrap_err();
        assert!(told.starts_with("`TOPIC` is no name of the template; there are `ECS_CLUSTER_NAME`"), "{told}");
    }

    /// Weaknesses 2 and 23: what is started can be tagged; no role may be passed but those that are named, and only to tasks.
    #[test]
    fn the_role_is_narrow() {
        let text = template(&BTreeMap::new()).unwrap();
        assert!(text.contains("iam:PassedToService: ecs-tasks.amazonaws.com"));
        assert!(text.contains("Resource: !Ref TaskRoleArns") && text.contains("ecs:TagResource"));
        for wide in ["ecs:*", "ec2:*", "ssm:*", "iam:*", "sqs:*", "AdministratorAccess", "Action: \"*\""] {
            assert!(!text.contains(wide), "{wide}");
        }
        // What is allowed everywhere are questions, and what must name no resource.
        for (at, _) in text.match_indices("Resource: \"*\"") {
            let before = &text[..at];
            let statement = &before[before.rfind("- Sid:").unwrap()..];
            assert!(["ListTasks", "Definitions", "Look"].iter().any(|sid| statement.contains(sid)), "{statement}");
        }
    }
}

//! The language as a JSON Schema, for editors: completion and first checks while typing.
//!
//! It has exactly the keys that the decoder knows. The decoder decides: it also sees names, templates and circles.

/// The schema, as JSON text.
pub const TEXT: &str = include_str!("schema.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use crate::decode::keys;

    #[test]
    fn the_schema_and_the_decoder_know_the_same_keys() {
        let schema: Value = serde_json::from_str(super::TEXT).unwrap();
        let mappings: [(&str, &[&str]); 23] = [
            ("", keys::WORKFLOW),
            ("/$defs/schedule", keys::SCHEDULE),
            ("/$defs/defaults", keys::DEFAULTS),
            ("/$defs/task", keys::TASK),
            ("/$defs/group", keys::GROUP),
            ("/$defs/step", keys::STEP),
            ("/$defs/output", keys::OUTPUT),
            ("/$defs/teardown", keys::TEARDOWN),
            ("/$defs/nodes", keys::NODES),
            ("/$defs/notify", keys::NOTIFY),
            ("/$defs/on", keys::ON),
            ("/$defs/sqs", keys::SQS),
            ("/$defs/hook", keys::HOOK),
            ("/$defs/hook_report", keys::HOOK_REPORT),
            ("/$defs/resources", keys::RESOURCES),
            ("/$defs/expression", keys::EXPRESSION),
            ("/$defs/toleration", keys::TOLERATION),
            ("/$defs/ssh", keys::SSH),
            ("/$defs/ecs", keys::ECS),
            ("/$defs/param", keys::PARAM),
            ("/$defs/recovery", keys::RECOVERY),
            ("/$defs/hang", keys::HANG),
            ("/$defs/hang/properties/progress", keys::PROGRESS),
        ];
        for (pointer, keys) in mappings {
            let part = schema.pointer(pointer).unwrap();
            let properties = part["properties"].as_object().unwrap();
            let schema: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
            let decoder: BTreeSet<&str> = keys.iter().copied().collect();
            assert_eq!(schema, decoder, "{pointer}");
            // Of other resources, users make up the names.
            assert!(part["additionalProperties"] == false || pointer == "/$defs/resources", "{pointer}");
        }
    }

    /// Every listed key is read: with a value that fits nothing, the complaint is about the value.
    #[test]
    fn every_listed_key_is_known_to_the_decoder() {
        let check = |yaml: String| {
            let found = crate::parse(&yaml, "w.yaml", &crate::Options::default()).err().unwrap_or_default();
            let unknown = found.iter().find(|d| d.message.starts_with("unknown key"));
            assert!(unknown.is_none(), "{}\n{yaml}", unknown.unwrap().message);
        };
        let value = "[[]]";
        for key in keys::WORKFLOW.iter().filter(|key| !["workflow", "tasks", "finally", "params"].contains(key)) {
            check(format!("workflow: w\ntasks: {{a: {{}}}}\n{key}: {value}\n"));
        }
        for key in keys::TASK.iter().filter(|key| **key != "tasks") {
            check(format!("workflow: w\ntasks: {{a: {{{key}: {value}}}}}\n"));
        }
        for key in keys::GROUP {
            check(format!(
                "workflow: w\ntasks: {{a: {{tasks: {{b: {{}}}}, {}}}}}\n",
                if *key == "tasks" { String::new() } else { format!("{key}: []") }
            ));
        }
        let nested: [(&[&str], &str); 17] = [
            (keys::DEFAULTS, "defaults: {@: []}\ntasks: {a: {}}"),
            (keys::SCHEDULE, "schedule: {@: []}\ntasks: {a: {}}"),
            (keys::STEP, "tasks: {a: {steps: [{@: []}]}}"),
            (keys::OUTPUT, "tasks: {a: {outputs: {o: {@: []}}}}"),
            (keys::TEARDOWN, "tasks: {a: {teardown: {@: {}}}}"),
            (keys::NODES, "tasks: {a: {nodes: {@: [[]]}}}"),
            (keys::NOTIFY, "notify: [{@: [[]]}]\ntasks: {a: {}}"),
            (keys::ON, "on: {@: [[]]}\ntasks: {a: {}}"),
            (keys::SQS, "on: {sqs: {@: [[]]}}\ntasks: {a: {}}"),
            (keys::HOOK, "on: {github: {@: [[]]}}\ntasks: {a: {}}"),
            (keys::HOOK_REPORT, "on: {github: {report: {@: [[]]}}}\ntasks: {a: {}}"),
            (keys::RESOURCES, "tasks: {a: {resources: {@: []}}}"),
            (keys::RECOVERY, "tasks: {a: {recovery: {@: [[]]}}}"),
            (keys::HANG, "tasks: {a: {hang: {@: [[]]}}}"),
            (keys::PROGRESS, "tasks: {a: {hang: {progress: {@: [[]]}}}}"),
            (keys::SSH, "tasks: {a: {backend: {ssh: {@: [[]]}}}}"),
            (keys::ECS, "tasks: {a: {backend: {ecs: {@: {}}}}}"),
        ];
        for (keys, yaml) in nested {
            for key in keys {
                check(format!("workflow: w\n{}\n", yaml.replace('@', key)));
            }
        }
    }
}

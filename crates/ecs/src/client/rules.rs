//! EventBridge: which rules lead to a queue.

use pitcrew_exec::aws::Service;
use serde::Deserialize;
use serde_json::json;

use super::{Client, Fault};

/// A rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Rule {
    pub name: String,
    pub state: String,
    /// As JSON.
    pub event_pattern: String,
}

impl Client {
    /// The rules that have this target, by its ARN.
    pub async fn rules_to(&self, target: &str) -> Result<Vec<Rule>, Fault> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Names {
            #[serde(default)]
            rule_names: Vec<String>,
        }
        let input = json!({ "TargetArn": target });
        let names: Names = self.json(Service::EventBridge, "ListRuleNamesByTarget", &input, true).await?;
        let mut rules = Vec::new();
        for name in names.rule_names {
            rules.push(self.json(Service::EventBridge, "DescribeRule", &json!({ "Name": name }), true).await?);
        }
        Ok(rules)
    }
}

//! DynamoDB: the tables of the system that Pitcrew replaces.

use std::collections::BTreeMap;

use pitcrew_exec::aws::Service;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Client, Fault, Kind, MOST_PAGES};

/// A value with its type, as DynamoDB has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Typed {
    S(String),
    /// A number, as text.
    N(String),
    #[serde(rename = "BOOL")]
    Bool(bool),
    #[serde(rename = "NULL")]
    Null(bool),
    L(Vec<Typed>),
    M(BTreeMap<String, Typed>),
    #[serde(rename = "SS")]
    Strings(Vec<String>),
    #[serde(rename = "NS")]
    Numbers(Vec<String>),
    /// Bytes in base64, and sets of them; of no use here.
    B(String),
    #[serde(rename = "BS")]
    Blobs(Vec<String>),
}

/// A row of a table.
pub type Item = BTreeMap<String, Typed>;

impl Typed {
    pub fn text(text: impl Into<String>) -> Typed {
        Typed::S(text.into())
    }

    pub fn number(number: i64) -> Typed {
        Typed::N(number.to_string())
    }

    pub fn texts(texts: impl IntoIterator<Item = impl Into<String>>) -> Typed {
        Typed::L(texts.into_iter().map(Typed::text).collect())
    }
}

/// All rows of a table, or as many as were wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Scanned {
    pub items: Vec<Item>,
    /// There are more.
    pub cut: bool,
}

/// What must be so for a write to happen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Condition {
    /// In DynamoDB's own language: `#s = :old`.
    pub expression: String,
    /// What `#name` stands for.
    pub names: BTreeMap<String, String>,
    /// What `:value` stands for.
    pub values: BTreeMap<String, Typed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    #[serde(default)]
    items: Vec<Item>,
    #[serde(default)]
    last_evaluated_key: Option<Value>,
}

impl Client {
    /// The rows of a table, page by page; `most` of them, and what is beyond is told.
    pub async fn scan(&self, table: &str, most: usize) -> Result<Scanned, Fault> {
        let mut items = Vec::new();
        let mut after: Option<Value> = None;
        for _ in 0..MOST_PAGES {
            let mut input = json!({ "TableName": table, "ConsistentRead": true });
            if let Some(after) = after.take() {
                input["ExclusiveStartKey"] = after;
            }
            let page: Page = self.json(Service::DynamoDb, "Scan", &input, true).await?;
            items.extend(page.items);
            after = page.last_evaluated_key.filter(|key| !key.is_null());
            if items.len() >= most || after.is_none() {
                let cut = items.len() > most || after.is_some();
                items.truncate(most);
                return Ok(Scanned { items, cut });
            }
        }
        Ok(Scanned { items, cut: true })
    }

    /// Writes a whole row. Without a condition it may be repeated.
    pub async fn put_item(&self, table: &str, item: &Item, condition: Option<&Condition>) -> Result<(), Fault> {
        let mut input = json!({ "TableName": table, "Item": item });
        if let Some(condition) = condition {
            input["ConditionExpression"] = json!(condition.expression);
            place(&mut input, condition);
        }
        self.json::<Value>(Service::DynamoDb, "PutItem", &input, condition.is_none()).await.map(drop)
    }

    /// Sets fields of a row. `false`: the condition was not met, and nothing was written.
    pub async fn update_item(
        &self,
        table: &str,
        key: &Item,
        set: &Item,
        condition: Option<&Condition>,
    ) -> Result<bool, Fault> {
        let mut all = condition.cloned().unwrap_or_default();
        let mut parts = Vec::new();
        for (number, (name, value)) in set.iter().enumerate() {
            let (field, given) = (format!("#set{number}"), format!(":set{number}"));
            parts.push(format!("{field} = {given}"));
            all.names.insert(field, name.clone());
            all.values.insert(given, value.clone());
        }
        let mut input = json!({
            "TableName": table, "Key": key, "UpdateExpression": format!("SET {}", parts.join(", ")),
        });
        if condition.is_some() {
            input["ConditionExpression"] = json!(all.expression);
        }
        place(&mut input, &all);
        match self.json::<Value>(Service::DynamoDb, "UpdateItem", &input, condition.is_none()).await {
            Ok(_) => Ok(true),
            Err(fault) if fault.kind == Kind::Conflict => Ok(false),
            Err(fault) => Err(fault),
        }
    }
}

fn place(input: &mut Value, condition: &Condition) {
    // Empty maps are refused.
    if !condition.names.is_empty() {
        input["ExpressionAttributeNames"] = json!(condition.names);
    }
    if !condition.values.is_empty() {
        input["ExpressionAttributeValues"] = json!(condition.values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weakness_18_a_list_is_a_list_and_a_text_with_commas_is_one_text() {
        let list = Typed::texts(["one", "two"]);
        let item: Item = [("tasks".to_owned(), list), ("words".to_owned(), Typed::text("one,two"))].into();
        let written = serde_json::to_value(&item).unwrap();
        let expected = json!({ "tasks": { "L": [{ "S": "one" }, { "S": "two" }] }, "words": { "S": "one,two" } });
        assert_eq!(written, expected);
        assert_eq!(serde_json::from_value::<Item>(written).unwrap(), item);
    }
}

//! The three tables of DynamoDB that the system before kept: their names, and their rows as plain values.
//!
//! Its own programs did not agree on the types: what is a list in one is a text with commas in another, and numbers are
//! texts at times. Here each field has one type, and a row that cannot be read so is refused with the field that is wrong.

use serde_json::{Map, Value, json};

use crate::client::{Item, Typed};

/// The attribute of rows that Pitcrew writes: a number that grows with each write of one row. A row that has it is never
/// imported.
pub const MARK: &str = "pitcrew_version";

/// Names of the three.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    pub job: String,
    pub task: String,
    pub node: String,
}

impl Default for Tables {
    fn default() -> Tables {
        let [job, task, node] = [Table::Job, Table::Task, Table::Node].map(|table| table.usual_name().to_owned());
        Tables { job, task, node }
    }
}

impl Tables {
    /// Where the environment names them otherwise.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Tables {
        let mut tables = Tables::default();
        for table in Table::ALL {
            if let Some(name) = env(table.variable()).map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
            {
                *tables.of_mut(table) = name;
            }
        }
        tables
    }

    pub fn of(&self, table: Table) -> &str {
        match table {
            Table::Job => &self.job,
            Table::Task => &self.task,
            Table::Node => &self.node,
        }
    }

    pub fn of_mut(&mut self, table: Table) -> &mut String {
        match table {
            Table::Job => &mut self.job,
            Table::Task => &mut self.task,
            Table::Node => &mut self.node,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    Job,
    Task,
    Node,
}

/// How a field is written.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Texts,
    Number,
}

impl Table {
    pub const ALL: [Table; 3] = [Table::Job, Table::Task, Table::Node];

    fn usual_name(self) -> &'static str {
        match self {
            Table::Job => "ecs_job",
            Table::Task => "ecs_task",
            Table::Node => "ecs_node",
        }
    }

    /// What names it otherwise.
    pub fn variable(self) -> &'static str {
        match self {
            Table::Job => "JOB_TABLE_NAME",
            Table::Task => "TASK_TABLE_NAME",
            Table::Node => "NODE_TABLE_NAME",
        }
    }

    /// The attribute that a row is found by.
    pub fn key(self) -> &'static str {
        match self {
            Table::Job => "job_id",
            Table::Task => "ecs_task_id",
            Table::Node => "node_name",
        }
    }

    /// The attribute with the state.
    pub fn status(self) -> &'static str {
        match self {
            Table::Job => "job_status",
            Table::Task => "task_status",
            Table::Node => "node_status",
        }
    }

    fn fields(self) -> &'static [(&'static str, Kind)] {
        match self {
            Table::Job => &[
                ("num_nodes", Kind::Number),
                ("assigned_nodes", Kind::Texts),
                ("submitted_container_inst_ids", Kind::Texts),
                ("submitted_ecs_task_ids", Kind::Texts),
                ("retry", Kind::Number),
                ("job_status", Kind::Text),
            ],
            Table::Task => &[
                ("node_name", Kind::Text),
                ("node_index_in_job", Kind::Number),
                ("job_id", Kind::Text),
                ("job_num_nodes", Kind::Number),
                ("task_def_arn", Kind::Text),
                ("container_inst_id", Kind::Text),
                ("container_instance_arn", Kind::Text),
                ("retry", Kind::Number),
                ("task_status", Kind::Text),
            ],
            Table::Node => &[
                ("container_instance_id", Kind::Text),
                ("container_instance_arn", Kind::Text),
                ("node_status", Kind::Text),
                ("ip", Kind::Text),
                ("ibdev", Kind::Text),
            ],
        }
    }

    /// The key of a row. The error says what is wrong with it.
    pub fn key_of(self, item: &Item) -> Result<String, String> {
        let name = self.key();
        let key = text(item, name)?.ok_or_else(|| format!("it has no `{name}`"))?;
        match key.len() > 250 || key.chars().any(char::is_control) {
            true => Err(format!("`{name}` is longer than 250 bytes, or has a control character")),
            false => Ok(key),
        }
    }

    /// The fields of a row, each in its one type; those that are not there are null, or empty lists.
    pub fn row_of(self, item: &Item) -> Result<Map<String, Value>, String> {
        let mut row = Map::new();
        for (name, kind) in self.fields() {
            let value = match kind {
                Kind::Text => json!(text(item, name)?),
                Kind::Texts => json!(texts(item, name)?),
                Kind::Number => json!(number(item, name)?),
            };
            row.insert((*name).to_owned(), value);
        }
        if row[self.status()].is_null() {
            return Err(format!("it has no `{}`", self.status()));
        }
        // How often it was begun anew was written only once it was.
        for (name, least) in [("retry", 0), ("num_nodes", 1)] {
            if let Some(value) = row.get_mut(name).filter(|value| value.is_null()) {
                *value = json!(least);
            }
        }
        Ok(row)
    }
}

/// Whether Pitcrew wrote it.
pub fn is_ours(item: &Item) -> bool {
    item.contains_key(MARK)
}

fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn text(item: &Item, name: &str) -> Result<Option<String>, String> {
    let found = match item.get(name) {
        None | Some(Typed::Null(_)) => None,
        Some(Typed::S(text) | Typed::N(text)) => Some(clean(text)),
        // A node may have several devices.
        Some(Typed::L(_) | Typed::Strings(_)) if name == "ibdev" => Some(texts(item, name)?.join(",")),
        Some(other) => return Err(format!("`{name}` is no text, but {}", kind(other))),
    };
    Ok(found.filter(|text| !text.is_empty()))
}

fn texts(item: &Item, name: &str) -> Result<Vec<String>, String> {
    let parts = |text: &str| -> Vec<String> {
        text.split(',').map(|part| clean(part.trim())).filter(|part| !part.is_empty()).collect()
    };
    match item.get(name) {
        None | Some(Typed::Null(_)) => Ok(Vec::new()),
        Some(Typed::S(text)) => Ok(parts(text)),
        Some(Typed::Strings(all) | Typed::Numbers(all)) => Ok(all.iter().map(|text| clean(text)).collect()),
        Some(Typed::L(all)) => all
            .iter()
            .map(|one| match one {
                Typed::S(text) | Typed::N(text) => Ok(clean(text)),
                other => Err(format!("`{name}` holds {}, and not only texts", kind(other))),
            })
            .collect(),
        Some(other) => Err(format!("`{name}` is no list of texts, but {}", kind(other))),
    }
}

fn number(item: &Item, name: &str) -> Result<Option<u32>, String> {
    match item.get(name) {
        None | Some(Typed::Null(_)) => Ok(None),
        Some(Typed::N(text) | Typed::S(text)) if text.trim().is_empty() => Ok(None),
        Some(Typed::N(text) | Typed::S(text)) => {
            let found = text.trim().parse::<i32>().ok().and_then(|number| u32::try_from(number).ok());
            found.map(Some).ok_or_else(|| format!("`{name}` is no whole number from 0, but `{}`", clean(text)))
        }
        Some(other) => Err(format!("`{name}` is no number, but {}", kind(other))),
    }
}

fn kind(value: &Typed) -> &'static str {
    match value {
        Typed::S(_) => "a text",
        Typed::N(_) => "a number",
        Typed::Bool(_) => "true or false",
        Typed::Null(_) => "nothing",
        Typed::L(_) => "a list",
        Typed::M(_) => "a map",
        Typed::Strings(_) | Typed::Numbers(_) | Typed::Blobs(_) => "a set",
        Typed::B(_) => "bytes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(of: Value) -> Item {
        serde_json::from_value(of).unwrap()
    }

    /// Weakness 18: what is a list in one place and a text with commas in another is the same list.
    #[test]
    fn weakness_18_a_list_and_a_text_with_commas_are_read_as_the_same_list() {
        let of = |ids: Value| {
            Table::Job
                .row_of(&item(json!({ "job_status": { "S": "COMPLETE" }, "submitted_ecs_task_ids": ids })))
                .unwrap()
        };
        let list = of(json!({ "L": [{ "S": "a" }, { "S": "b" }] }));
        assert_eq!(list["submitted_ecs_task_ids"], json!(["a", "b"]));
        assert_eq!(of(json!({ "S": "a, b," })), list);
        assert_eq!(of(json!({ "SS": ["a", "b"] })), list);
        assert_eq!(of(json!({ "NULL": true }))["submitted_ecs_task_ids"], json!([]));
        assert_eq!((&list["retry"], &list["num_nodes"], &list["assigned_nodes"]), (&json!(0), &json!(1), &json!([])));
    }

    #[test]
    fn what_is_wrong_with_a_row_is_told_by_its_field() {
        let told = |table: Table, row: Value| table.row_of(&item(row)).unwrap_err();
        assert_eq!(told(Table::Node, json!({ "ip": { "S": "10.0.0.1" } })), "it has no `node_status`");
        let job = json!({ "job_status": { "S": "FAILED" }, "retry": { "S": "many" } });
        assert_eq!(told(Table::Job, job), "`retry` is no whole number from 0, but `many`");
        let job = json!({ "job_status": { "S": "FAILED" }, "assigned_nodes": { "L": [{ "M": {} }] } });
        assert_eq!(told(Table::Job, job), "`assigned_nodes` holds a map, and not only texts");
        let task = json!({ "task_status": { "L": [] } });
        assert_eq!(told(Table::Task, task), "`task_status` is no text, but a list");
        assert_eq!(Table::Job.key_of(&item(json!({}))).unwrap_err(), "it has no `job_id`");
        assert_eq!(Table::Job.key_of(&item(json!({ "job_id": { "N": "7" } }))).unwrap(), "7");
        assert!(Table::Job.key_of(&item(json!({ "job_id": { "S": "x".repeat(251) } }))).is_err());
    }

    #[test]
    fn tables_are_named_otherwise_by_the_environment() {
        let env = |name: &str| (name == "TASK_TABLE_NAME").then(|| " tasks ".to_owned());
        let tables = Tables::from_env(&env);
        assert_eq!(Table::ALL.map(|table| tables.of(table)), ["ecs_job", "tasks", "ecs_node"]);
    }
}

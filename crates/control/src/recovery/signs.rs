//! What signs mean on this server: the usual tables, with what the configuration says of single entries.
//!
//! The keys ([`KEYS`]) stand in `recovery` itself, in a file that `tables` names, or in both: then what stands
//! in the configuration counts.

use std::path::Path;
use std::sync::Arc;

use pitcrew_health::{Meanings, Overrides, Tables};
use pitcrew_lang::yaml::{self, Node};
use serde_json::{Map, Value};

use crate::config::file::absolute;
use crate::config::section::{Reader, Section};

/// The keys of [`Overrides`].
pub const KEYS: [&str; 7] = ["xid", "dcgm", "exit_codes", "log", "thermal", "power_brake", "nvlink"];

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Signs {
    overrides: Overrides,
    meanings: Arc<Meanings>,
}

impl Default for Signs {
    fn default() -> Signs {
        // All that is usual can be read, as a test of the tables says.
        Signs::new(Overrides::default()).unwrap_or_else(|wrong| unreachable!("{wrong:?}"))
    }
}

/// The meanings follow from the overrides.
impl PartialEq for Signs {
    fn eq(&self, other: &Signs) -> bool {
        self.overrides == other.overrides
    }
}

impl Eq for Signs {}

impl Signs {
    fn new(overrides: Overrides) -> Result<Signs, Vec<String>> {
        let meanings = Arc::new(overrides.read()?);
        Ok(Signs { overrides, meanings })
    }

    pub fn meanings(&self) -> &Meanings {
        &self.meanings
    }

    pub fn tables(&self) -> &Tables {
        &self.meanings.tables
    }

    /// What is watched for in every log.
    pub fn log(&self) -> &pitcrew_health::LogRules {
        &self.overrides.log
    }
}

/// What `recovery` says of them; mistakes are told at their place. `base`: where relative paths start.
pub fn read(r: &mut Reader<'_>, base: &Path, section: Section<'_>) -> Signs {
    let mut all = Map::new();
    if let Some(name) = r.text(section, "tables")
        && let Some(node) = section.get("tables")
    {
        match file(&absolute(base, &name)) {
            Ok(found) => all = found,
            Err(why) => r.problem(node.at, format!("`tables`: {why}"), None),
        }
    }
    for key in KEYS {
        let Some(node) = section.get(key) else { continue };
        match node.to_json() {
            Ok(value) => put(&mut all, key, value),
            Err((at, why)) => r.problem(at, why, None),
        }
    }
    let at = KEYS.iter().find_map(|key| section.get(key)).or(section.get("tables"));
    let Some(at) = at.map(|node: &Node| node.at) else { return Signs::default() };
    let read = serde_json::from_value(Value::Object(all)).map_err(|error| vec![error.to_string()]);
    match read.and_then(Signs::new) {
        Ok(signs) => signs,
        Err(wrong) => {
            wrong.into_iter().for_each(|why| r.problem(at, format!("meanings of signs: {why}"), None));
            Signs::default()
        }
    }
}

/// Entry by entry over what is there.
fn put(all: &mut Map<String, Value>, key: &str, value: Value) {
    match (all.get_mut(key), value) {
        (Some(Value::Object(before)), Value::Object(more)) => before.extend(more),
        (_, value) => drop(all.insert(key.to_owned(), value)),
    }
}

fn file(path: &Path) -> Result<Map<String, Value>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    match yaml::to_json(&text) {
        Ok(Value::Object(all)) => Ok(all),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(format!("`{}` is no mapping; its keys are {}", path.display(), KEYS.join(", "))),
        Err(why) => Err(format!("`{}`: {why}", path.display())),
    }
}

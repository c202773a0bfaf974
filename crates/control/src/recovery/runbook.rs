//! What a person reads about an XID: what it means, what Pitcrew does, and what is left to do. The same as `docs/xids.md`.

use std::collections::BTreeSet;

use pitcrew_core::recovery::Incident;
use pitcrew_health::Tables;
use serde::{Deserialize, Serialize};

/// The page of all of them.
const PAGE: &str = "docs/xids.md";

/// The runbook of one XID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runbook {
    pub xid: u32,
    pub name: String,
    pub about: String,
    /// The word of the table for what Pitcrew does.
    pub action: String,
    /// What that is.
    pub does: String,
    /// What is left to a person.
    pub person: String,
    /// Where it stands in the documentation.
    pub page: String,
}

impl Runbook {
    /// As the tables of this server say, which its configuration may have changed.
    pub fn of(code: u32, tables: &Tables) -> Runbook {
        let (action, _) = tables.xid_action(code);
        let known = tables.xid(code);
        let person = known.and_then(|xid| xid.person.as_deref()).unwrap_or_else(|| action.for_person());
        Runbook {
            xid: code,
            name: known.map_or("no vendor has told what it means", |xid| &xid.name).to_owned(),
            about: known.map_or("it is in no table of ours", |xid| &xid.about).to_owned(),
            action: action.to_string(),
            does: action.what_is_done().to_owned(),
            person: person.to_owned(),
            // One that only the configuration names stands nowhere.
            page: match Tables::usual().xid(code) {
                Some(usual) => format!("{PAGE}#{}", anchor(code, &usual.name)),
                None => PAGE.to_owned(),
            },
        }
    }

    /// Of every XID that an incident has shown, in the order in which they came.
    pub fn all(incident: &Incident, tables: &Tables) -> Vec<Runbook> {
        let mut seen = BTreeSet::new();
        let codes = incident.signals.iter().filter_map(|signal| signal.kind.xid());
        codes.filter(|code| seen.insert(*code)).map(|code| Runbook::of(code, tables)).collect()
    }

    /// `XID 79: fallen off the bus`.
    pub fn title(&self) -> String {
        format!("XID {}: {}", self.xid, self.name)
    }
}

/// As Markdown makes it of the heading.
fn anchor(code: u32, name: &str) -> String {
    let text = format!("xid {code}: {name}").to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCS: &str = include_str!("../../../../docs/xids.md");

    #[test]
    fn every_runbook_is_a_heading_of_the_page_and_says_the_same() {
        for xid in Tables::usual().xids() {
            let book = Runbook::of(xid.xid, Tables::usual());
            let section = DOCS.split("\n## ").find(|part| part.starts_with(&book.title()));
            let section = section.unwrap_or_else(|| panic!("{} has no heading", book.title()));
            assert!(section.contains(&format!("- You: {}.", book.person)), "{section}\n{book:?}");
            assert!(section.contains(&format!("`{}`", book.action)), "{section}\n{book:?}");
        }
        assert_eq!(Runbook::of(79, Tables::usual()).page, "docs/xids.md#xid-79-fallen-off-the-bus");
        let unknown = Runbook::of(9999, Tables::usual());
        assert_eq!((unknown.page.as_str(), unknown.action.as_str()), (PAGE, "contact_support"));
    }

    #[test]
    fn what_the_configuration_says_of_an_entry_is_what_people_read() {
        let own = r#"{"xid": {"79": {"action": "field_diag"}, "9999": {"action": "reset_gpu"}}}"#;
        let tables = Tables::with(&serde_json::from_str(own).unwrap()).unwrap();
        let actions = [79, 9999, 48].map(|code| Runbook::of(code, &tables).action);
        assert_eq!(actions, ["field_diag", "reset_gpu", "reset_gpu"]);
        assert_eq!(Runbook::of(9999, &tables).page, PAGE);
    }
}

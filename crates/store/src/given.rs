//! Variables and connections that are given from outside, such as by the environment of a server. They win over those of
//! the same name that are stored, and stand in lists as if they were; only whoever gave them can change them.
//!
//! A name from outside is written in capital letters, so it stands for any name that differs from it in case only.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Result, StoreError};
use crate::types::{Connection, Page, Paging, Variable};

/// What is given, by name in capital letters.
#[derive(Debug, Default)]
pub struct Given {
    variables: BTreeMap<String, Gift<Variable>>,
    connections: BTreeMap<String, Gift<Connection>>,
}

#[derive(Debug)]
struct Gift<T> {
    /// What gave it.
    from: String,
    row: T,
}

/// What has a name and stands in a list by it.
pub(crate) trait Named: Clone {
    fn name(&mut self) -> &mut String;
}

impl Named for Variable {
    fn name(&mut self) -> &mut String {
        &mut self.key
    }
}

impl Named for Connection {
    fn name(&mut self) -> &mut String {
        &mut self.id
    }
}

impl Given {
    /// `from` is shown to people: ``PITCREW_VAR_REGION``.
    pub fn add_variable(&mut self, from: String, variable: Variable) {
        self.variables.insert(variable.key.to_uppercase(), Gift { from, row: variable });
    }

    /// Secrets are sealed, as in every row.
    pub fn add_connection(&mut self, from: String, connection: Connection) {
        self.connections.insert(connection.id.to_uppercase(), Gift { from, row: connection });
    }

    /// The given variable that goes by this name.
    pub fn variable(&self, key: &str) -> Option<Variable> {
        self.variables().get(key)
    }

    /// The given connection that goes by this id.
    pub fn connection(&self, id: &str) -> Option<Connection> {
        self.connections().get(id)
    }

    pub(crate) fn variables(&self) -> Overlay<'_, Variable> {
        Overlay { what: "variable", gifts: &self.variables }
    }

    pub(crate) fn connections(&self) -> Overlay<'_, Connection> {
        Overlay { what: "connection", gifts: &self.connections }
    }
}

/// The gifts of one kind over the rows of that kind.
pub(crate) struct Overlay<'g, T> {
    what: &'static str,
    gifts: &'g BTreeMap<String, Gift<T>>,
}

impl<T: Named> Overlay<'_, T> {
    pub fn is_empty(&self) -> bool {
        self.gifts.is_empty()
    }

    /// The given row, under the name that was asked for.
    pub fn get(&self, name: &str) -> Option<T> {
        let mut row = self.gifts.get(&name.to_uppercase())?.row.clone();
        name.clone_into(row.name());
        Some(row)
    }

    /// Refuses to change what is given.
    pub fn refuse(&self, name: &str) -> Result<()> {
        match self.gifts.get(&name.to_uppercase()) {
            None => Ok(()),
            Some(Gift { from, .. }) => Err(StoreError::Invalid(format!(
                "the {} `{name}` is given by `{from}` in the environment of the server, which wins over what is stored: change it there",
                self.what
            ))),
        }
    }

    /// All rows, given ones in the place of stored ones, by name in order; then one page of them.
    pub fn page(&self, stored: Vec<T>, allowed: impl Fn(&str) -> bool, paging: Paging) -> Page<T> {
        let mut rows: BTreeMap<String, T> = BTreeMap::new();
        let mut replaced = BTreeSet::new();
        for mut row in stored {
            let name = row.name().clone();
            let given = self.get(&name);
            if given.is_some() {
                replaced.insert(name.to_uppercase());
            }
            rows.insert(name, given.unwrap_or(row));
        }
        for gift in self.gifts.iter().filter(|(upper, _)| !replaced.contains(*upper)).map(|(_, gift)| gift) {
            let mut row = gift.row.clone();
            let name = row.name().clone();
            if allowed(&name) {
                rows.insert(name, row);
            }
        }
        let total = rows.len() as u64;
        let rows = rows.into_values().skip(paging.offset as usize).take(paging.limit as usize).collect();
        Page { rows, total }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{AuditEntry, Store, StoreUrl, VariableSet};

    fn variable(key: &str, value: &str) -> Variable {
        Variable { key: key.to_owned(), value: value.to_owned(), description: String::new() }
    }

    #[tokio::test]
    async fn what_is_given_wins_is_listed_and_cannot_be_changed() {
        let mut given = Given::default();
        given.add_variable("PITCREW_VAR_REGION".to_owned(), variable("region", "eu"));
        given.add_variable("PITCREW_VAR_B".to_owned(), variable("b", "given"));
        let plain = Store::open(&StoreUrl::Memory).await.unwrap();
        let audit = || AuditEntry::new(Timestamp::UNIX_EPOCH, "me", "variable.set");
        let set = |key: &str| VariableSet { key: key.to_owned(), value: "stored".to_owned(), description: None };
        for key in ["a", "Region", "z"] {
            plain.set_variable(set(key), audit()).await.unwrap();
        }
        let store = plain.with_given(given);

        assert_eq!(store.variable("Region").await.unwrap(), Some(variable("Region", "eu")));
        assert_eq!(store.variable("B").await.unwrap(), Some(variable("B", "given")));
        let page = store.variables(Paging { limit: 3, offset: 0 }).await.unwrap();
        let rows: Vec<(String, String)> = page.rows.into_iter().map(|v| (v.key, v.value)).collect();
        let expected = [("Region", "eu"), ("a", "stored"), ("b", "given")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!((rows.as_slice(), page.total), (expected.as_slice(), 4));

        assert_eq!(store.given().variable("REGION").unwrap().value, "eu");
        assert_eq!(store.given().variable("z"), None);
        for refused in
            [store.set_variable(set("region"), audit()).await, store.delete_variable("b", audit()).await.map(drop)]
        {
            let StoreError::Invalid(why) = refused.unwrap_err() else { panic!("another error") };
            assert!(why.contains("in the environment of the server"), "{why}");
        }
        store.set_variable(set("z"), audit()).await.unwrap();
    }
}

//! Statements over many rows or many values, in few fixed sizes, so that each is prepared once per connection.

use std::sync::{Arc, Mutex, PoisonError};

use sqlx::AssertSqlSafe;

use super::db::{Tx, Value};
use crate::error::Result;

/// An `INSERT` of many rows at once, cut into the largest of a few sizes.
pub struct Insert {
    /// `INSERT INTO t (a, b)`
    head: String,
    columns: usize,
    /// `ON CONFLICT …`, or nothing.
    tail: &'static str,
    /// By database and size.
    texts: Mutex<[[Option<Arc<str>>; SIZES.len()]; 2]>,
}

/// Rows per statement. Larger ones gain nothing; the smaller ones are for the rest.
const SIZES: [usize; 4] = [64, 16, 4, 1];

impl Insert {
    pub fn new(table: &str, columns: &str, tail: &'static str) -> Self {
        Insert {
            head: format!("INSERT INTO {table} ({columns})"),
            columns: columns.split(',').count(),
            tail,
            texts: Mutex::default(),
        }
    }

    /// Inserts rows whose values lie one after the other.
    pub async fn execute(&self, tx: &mut Tx, mut values: Vec<Value<'_>>) -> Result<()> {
        debug_assert_eq!(values.len() % self.columns, 0);
        // Taken from the end of the reversed list, so that rows are moved once and keep their order.
        values.reverse();
        for (index, size) in SIZES.into_iter().enumerate() {
            let width = size * self.columns;
            while values.len() >= width {
                let mut chunk = values.split_off(values.len() - width);
                chunk.reverse();
                tx.execute(AssertSqlSafe(self.text(tx.is_postgres(), index)), chunk).await?;
            }
        }
        Ok(())
    }

    fn text(&self, is_postgres: bool, index: usize) -> Arc<str> {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || -> Arc<str> {
            let mut number = 0;
            let mut cell = || {
                number += 1;
                // SQLite looks a numbered parameter up by its name, which for hundreds of them is slow.
                if is_postgres { format!("${number}") } else { "?".to_owned() }
            };
            let mut row = || (0..self.columns).map(|_| cell()).collect::<Vec<_>>().join(",");
            let rows = (0..SIZES[index]).map(|_| format!("({})", row())).collect::<Vec<_>>().join(",");
            format!("{} VALUES {rows} {}", self.head, self.tail).into()
        };
        texts[usize::from(is_postgres)][index].get_or_insert_with(make).clone()
    }
}

/// Cuts a list of values into pieces for [`placeholders`].
pub const LIST: usize = 64;

/// `$first, …` for a list of `count` values, and how many values that takes: a power of two, so that few
/// different texts arise. The list is filled up with copies of its last value, which `IN` does not mind.
pub fn in_list<'a>(first: usize, mut values: Vec<Value<'a>>) -> (String, Vec<Value<'a>>) {
    let size = values.len().next_power_of_two();
    if let Some(last) = values.last().cloned() {
        values.resize(size, last);
    }
    let text = (first..first + values.len()).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ");
    (text, values)
}

/// The conditions of a `WHERE`, with their values.
#[derive(Default)]
pub struct Where<'a> {
    conditions: Vec<String>,
    args: Vec<Value<'a>>,
}

impl<'a> Where<'a> {
    /// Adds a condition; `?` in it becomes the placeholder of `value`.
    pub fn and(&mut self, condition: &str, value: impl Into<Value<'a>>) {
        self.args.push(value.into());
        self.conditions.push(condition.replace('?', &format!("${}", self.args.len())));
    }

    /// Adds `column IN (values)`, unless the list is empty.
    pub fn any_of(&mut self, column: &str, values: impl IntoIterator<Item = &'a str>) {
        let values: Vec<Value<'a>> = values.into_iter().map(Value::from).collect();
        if !values.is_empty() {
            let (list, values) = in_list(self.args.len() + 1, values);
            self.conditions.push(format!("{column} IN ({list})"));
            self.args.extend(values);
        }
    }

    /// ` WHERE …`, or nothing.
    pub fn text(&self) -> String {
        if self.conditions.is_empty() { String::new() } else { format!(" WHERE {}", self.conditions.join(" AND ")) }
    }

    pub fn args(&self) -> Vec<Value<'a>> {
        self.args.clone()
    }

    /// The values, then limit and offset, with the text for these two.
    pub fn paged(&self, paging: crate::types::Paging) -> (String, Vec<Value<'a>>) {
        let mut args = self.args();
        let offset = i64::try_from(paging.offset).unwrap_or(i64::MAX);
        args.extend([Value::from(paging.limit), Value::from(offset)]);
        (format!(" LIMIT ${} OFFSET ${}", args.len() - 1, args.len()), args)
    }
}

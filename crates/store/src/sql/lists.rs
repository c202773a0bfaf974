//! Statements over many rows or many values, in few fixed sizes, so that each is prepared once per connection.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::AssertSqlSafe;

use super::db::{Tx, Value};
use crate::error::Result;
use crate::types::{Between, Paging};

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

/// The pattern of texts that have this part.
pub fn containing(part: &str) -> String {
    let part = part.to_ascii_lowercase().replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_");
    format!("%{part}%")
}

/// A list out of a large table, read in the order of an index.
///
/// An index that begins with a column gives the rows of one of its values in order, but not those of several: so
/// each value is read by itself, no further than the page reaches, and these are merged.
pub struct Listing<'a> {
    pub from: &'static str,
    /// How the tables of `from` belong together, if there are two.
    pub link: &'static str,
    /// With those of `order`.
    pub columns: &'static str,
    pub kept: Where<'a>,
    /// A column, and the values that it may have; none: all.
    pub any: (&'static str, Vec<&'a str>),
    pub order: &'static str,
}

impl<'a> Listing<'a> {
    fn conditions(&self, more: Option<String>) -> String {
        let link = (!self.link.is_empty()).then(|| self.link.to_owned());
        let all: Vec<String> = self.kept.conditions.iter().cloned().chain(link).chain(more).collect();
        if all.is_empty() { String::new() } else { format!(" WHERE {}", all.join(" AND ")) }
    }

    /// The statement for one page, and its values.
    pub fn page(&self, paging: Paging) -> (String, Vec<Value<'a>>) {
        let Listing { from, columns, order, any: (column, values), .. } = self;
        // A value twice would give its rows twice.
        let values: BTreeSet<&'a str> = values.iter().copied().collect();
        let mut args = self.kept.args();
        let first = args.len() + 1;
        args.extend(values.iter().copied().map(Value::from));
        let offset = i64::try_from(paging.offset).unwrap_or(i64::MAX);
        args.extend([Value::from(paging.limit), Value::from(offset)]);
        let (limit, offset) = (args.len() - 1, args.len());
        let paged = format!("ORDER BY {order} LIMIT ${limit} OFFSET ${offset}");
        if values.len() < 2 {
            let more = values.first().map(|_| format!("{column} = ${first}"));
            return (format!("SELECT {columns} FROM {from}{} {paged}", self.conditions(more)), args);
        }
        let reach = paging.offset.saturating_add(u64::from(paging.limit));
        args.push(Value::from(i64::try_from(reach).unwrap_or(i64::MAX)));
        let reach = args.len();
        let one = |n: usize| {
            let text = self.conditions(Some(format!("{column} = ${}", first + n)));
            format!("SELECT * FROM (SELECT {columns} FROM {from}{text} ORDER BY {order} LIMIT ${reach}) AS of{n}")
        };
        let all = (0..values.len()).map(one).collect::<Vec<_>>().join(" UNION ALL ");
        // Outside, the columns have lost the names of their tables.
        let paged = paged.replace("w.key", "run").replace("i.", "");
        (format!("SELECT * FROM ({all}) AS every {paged}"), args)
    }

    /// `FROM …` for all rows, and its values.
    pub fn everything(&self) -> (String, Vec<Value<'a>>) {
        let (column, values) = &self.any;
        let mut args = self.kept.args();
        let more = (!values.is_empty()).then(|| {
            let (list, values) = in_list(args.len() + 1, values.iter().map(|value| Value::from(*value)).collect());
            args.extend(values);
            format!("{column} IN ({list})")
        });
        (format!("FROM {}{}", self.from, self.conditions(more)), args)
    }
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

    /// Adds a condition without a value.
    pub fn is(&mut self, condition: &str) {
        self.conditions.push(condition.to_owned());
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

    /// Adds the ends of a span that are not open.
    pub fn between(&mut self, column: &str, span: Between) {
        if let Some(from) = span.from {
            self.and(&format!("{column} >= ?"), from);
        }
        if let Some(to) = span.to {
            self.and(&format!("{column} <= ?"), to);
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
    pub fn paged(&self, paging: Paging) -> (String, Vec<Value<'a>>) {
        let mut args = self.args();
        let offset = i64::try_from(paging.offset).unwrap_or(i64::MAX);
        args.extend([Value::from(paging.limit), Value::from(offset)]);
        (format!(" LIMIT ${} OFFSET ${}", args.len() - 1, args.len()), args)
    }
}

//! What may stand where: shapes, and the walk that holds a document against them.
//!
//! Schemas are closed, as those of the API are: a name that no table has is an error with what was probably meant. The
//! walk gives the JSON of `v1`, with renamed fields of `v1beta1` under their new names; nothing else is changed, and
//! nothing is dropped but fields that say `null`.

use serde_json::{Map, Value, json};

use crate::diagnostic::{Place, Reporter, did_you_mean, listing};
use crate::tekton::fields::core::VOLUME;
use crate::tekton::model::GoDuration;
use crate::yaml::{Entry, Node, Yaml, scalars11};

/// The shape of a value.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    Text,
    /// One of these texts.
    Word(&'static [&'static str]),
    Bool,
    /// A whole number within these bounds.
    Int(i64, i64),
    /// As Go writes durations.
    Duration,
    /// As Kubernetes writes quantities; a reference to a param is taken too.
    Quantity,
    IntOrText,
    /// The value of a param: whatever JSON there is.
    Param,
    /// Whatever JSON there is.
    Open,
    List(&'static Shape),
    /// Names of the author's own.
    Map(&'static Shape),
    In(&'static Table),
}

/// A mapping whose names are known.
#[derive(Debug)]
pub struct Table {
    /// With its article, for messages: `a step`.
    pub what: &'static str,
    pub fields: &'static [Field],
    pub gone: &'static [Gone],
}

#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub shape: Shape,
    pub needed: bool,
}

/// A name that is known and not taken, or not under this version.
#[derive(Debug)]
pub struct Gone {
    pub name: &'static str,
    pub then: Then,
}

#[derive(Debug)]
pub enum Then {
    /// `v1beta1` has it; in `v1` it stands under this path.
    Renamed(&'static str, Shape),
    /// `v1beta1` has a bundle of this kind by its address; in `v1` a resolver finds it.
    Bundle(&'static str),
    /// Nowhere, and why.
    Refused(&'static str),
}

pub const fn field(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, needed: false }
}

pub const fn needed(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, needed: true }
}

pub const fn renamed(name: &'static str, to: &'static str, shape: Shape) -> Gone {
    Gone { name, then: Then::Renamed(to, shape) }
}

pub const fn refused(name: &'static str, reason: &'static str) -> Gone {
    Gone { name, then: Then::Refused(reason) }
}

/// Holds nodes against shapes; problems go to the reporter.
pub struct Walker<'r, 's> {
    pub reporter: &'r mut Reporter<'s>,
    /// The document is of `v1beta1`.
    pub beta: bool,
}

impl Walker<'_, '_> {
    /// The JSON of a value; `None` where it is wrong.
    pub fn value(&mut self, node: &Node, shape: &Shape) -> Option<Value> {
        match shape {
            Shape::In(table) => self.table(node, table).map(Value::Object),
            Shape::List(shape) => {
                let Some(items) = node.as_list() else { return self.expected(node, "a list") };
                let mut list = Vec::with_capacity(items.len());
                for item in items {
                    if item.is_null() {
                        self.reporter.error_hint(item.at, "an item of this list is empty", "leave out its `-`");
                        continue;
                    }
                    list.extend(self.value(item, shape));
                }
                Some(Value::Array(list))
            }
            Shape::Map(shape) => {
                let Some(entries) = node.as_map() else { return self.expected(node, "a mapping") };
                let mut map = Map::new();
                for entry in entries {
                    let value = match (entry.value.is_null(), shape) {
                        (true, Shape::Text) => Some(Value::String(String::new())),
                        (true, _) => None,
                        (false, shape) => self.value(&entry.value, shape),
                    };
                    if let Some(value) = value {
                        map.insert(self.key(entry), value);
                    }
                }
                Some(Value::Object(map))
            }
            Shape::Open | Shape::Param => self.json(node),
            scalar => self.scalar(node, scalar),
        }
    }

    /// A key that is not in quotes means what Kubernetes makes of it: `on` is `true`.
    fn key(&self, entry: &Entry) -> String {
        let at = entry.key.at;
        let first = self.reporter.line(at.line).chars().nth((at.column as usize).saturating_sub(1));
        let meant = if matches!(first, Some('"' | '\'')) { None } else { scalars11::key(&entry.key.text) };
        meant.map_or_else(|| entry.key.text.to_string(), str::to_owned)
    }

    fn expected<T>(&mut self, node: &Node, what: &str) -> Option<T> {
        self.reporter.error(node.at, format!("expected {what}, found {}", node.describe()));
        None
    }

    fn json(&mut self, node: &Node) -> Option<Value> {
        match &node.yaml {
            Yaml::Scalar(scalar) => match scalars11::to_json(scalar) {
                Ok(value) => Some(value),
                Err(message) => {
                    self.reporter.error_hint(node.at, message, "a text needs quotes");
                    None
                }
            },
            Yaml::List(items) => Some(Value::Array(items.iter().map(|item| self.json(item)).collect::<Option<_>>()?)),
            Yaml::Map(entries) => {
                let mut map = Map::new();
                for entry in entries {
                    let value = self.json(&entry.value)?;
                    map.insert(self.key(entry), value);
                }
                Some(Value::Object(map))
            }
        }
    }

    fn scalar(&mut self, node: &Node, shape: &Shape) -> Option<Value> {
        let what = match shape {
            Shape::Bool => "`true` or `false`",
            Shape::Int(..) => "a whole number",
            Shape::Duration => "a duration",
            Shape::Quantity => "a quantity",
            Shape::IntOrText => "a whole number or a text",
            Shape::Text
            | Shape::Word(_)
            | Shape::Param
            | Shape::Open
            | Shape::List(_)
            | Shape::Map(_)
            | Shape::In(_) => "a text",
        };
        let Some(scalar) = node.as_scalar() else { return self.expected(node, what) };
        let value = match scalars11::to_json(scalar) {
            Ok(value) => value,
            Err(message) => {
                self.reporter.error(node.at, message);
                return None;
            }
        };
        match (shape, &value) {
            (Shape::Bool, Value::Bool(_)) => Some(value),
            (Shape::IntOrText, Value::Number(number)) if number.is_i64() => Some(value),
            (Shape::Text | Shape::IntOrText, Value::String(_)) => Some(value),
            (Shape::Int(least, most), Value::Number(number)) if number.is_i64() || number.is_u64() => {
                if number.as_i64().is_some_and(|number| (*least..=*most).contains(&number)) {
                    return Some(value);
                }
                let bounds = if *most == i64::MAX || *most == i64::from(i32::MAX) {
                    format!("at least {least}")
                } else {
                    format!("from {least} to {most}")
                };
                self.reporter.error(node.at, format!("{number} is out of range: it must be {bounds}"));
                None
            }
            (Shape::Word(words), Value::String(text)) => {
                if words.contains(&text.as_str()) {
                    return Some(value);
                }
                let hint = did_you_mean(text, words.iter().copied());
                let message =
                    format!("`{text}` is not known here: it must be {}", listing(words.iter().copied(), "or"));
                self.reporter.error_maybe(node.at, message, hint);
                None
            }
            (Shape::Duration, Value::String(text)) => match text.parse::<GoDuration>() {
                Ok(_) => Some(value),
                Err(message) => {
                    self.reporter.error_hint(node.at, message, "write it as `1h30m`, `90s` or `500ms`");
                    None
                }
            },
            (Shape::Duration, Value::Number(number)) => {
                let hint = format!("put a unit behind it: `{number}s`; or `\"0\"` for none");
                self.reporter.error_hint(node.at, "a duration is a text with a unit", hint);
                None
            }
            (Shape::Quantity, Value::Number(number)) => Some(Value::String(number.to_string())),
            (Shape::Quantity, Value::String(text)) => {
                if is_quantity(text) || text.contains("$(") {
                    return Some(value);
                }
                let hint = "write it as `500m`, `2`, `1Gi` or `1.5G`";
                self.reporter.error_hint(node.at, format!("`{text}` is not a quantity"), hint);
                None
            }
            (Shape::Text | Shape::Word(_), _) => {
                let message = format!("expected a text, found {}", found(&value, &scalar.text));
                self.reporter.error_hint(node.at, message, format!("put it in quotes: \"{}\"", scalar.text));
                None
            }
            (_, Value::String(text)) if scalar.style != crate::yaml::Style::Plain => {
                let hint = format!("leave out the quotes: {text}");
                self.reporter.error_hint(node.at, format!("expected {what}, found the text `{text}`"), hint);
                None
            }
            _ => self.expected(node, what),
        }
    }

    /// A mapping with known names.
    pub fn table(&mut self, node: &Node, table: &'static Table) -> Option<Map<String, Value>> {
        let Some(entries) = node.as_map() else {
            return self.expected(node, &format!("{} as a mapping", table.what));
        };
        let errors = self.reporter.errors();
        let mut map = Map::new();
        for entry in entries {
            self.entry(entry, table, entries, &mut map);
        }
        for field in table.fields.iter().filter(|field| field.needed) {
            let given =
                entries.iter().any(|entry| entry.key.text.eq_ignore_ascii_case(field.name) && !entry.value.is_null());
            if !given {
                self.reporter.error(node.at, format!("`{}` is missing: {} needs it", field.name, table.what));
            }
        }
        if map.get("resolver").is_some_and(|resolver| resolver == "bundles")
            && entries.iter().any(|e| &*e.key.text == "bundle")
        {
            map.remove("name");
            map.remove("kind");
        }
        // Kubernetes makes a volume that says nothing an empty one.
        if std::ptr::eq(table, &VOLUME) && map.len() == 1 && map.contains_key("name") {
            map.insert("emptyDir".into(), json!({}));
        }
        (self.reporter.errors() == errors).then_some(map)
    }

    fn entry(&mut self, entry: &Entry, table: &'static Table, all: &[Entry], map: &mut Map<String, Value>) {
        let name = &*entry.key.text;
        let at = entry.key.at;
        if let Some(gone) = table.gone.iter().find(|gone| gone.name == name) {
            match &gone.then {
                Then::Refused(reason) => {
                    self.reporter.error_hint(at, format!("`{name}` is not taken in {}", table.what), *reason);
                }
                Then::Bundle(kind) => {
                    if !self.beta {
                        let hint = "that is v1beta1; in v1 it is `resolver: bundles` with the params `bundle`, `name` and `kind`";
                        self.reporter.error_hint(at, format!("`{name}` is no field of {} in v1", table.what), hint);
                    } else if let Some(address) = self.value(&entry.value, &Shape::Text) {
                        bundle(map, kind, &address, all);
                    }
                }
                Then::Renamed(to, _) if !self.beta => {
                    let message = format!("`{name}` is no field of {} in v1", table.what);
                    self.reporter.error_hint(at, message, format!("that is v1beta1; in v1 it is `{to}`"));
                }
                Then::Renamed(to, shape) => {
                    if !entry.value.is_null()
                        && let Some(value) = self.value(&entry.value, shape)
                        && !put(map, to, value)
                    {
                        self.reporter.error(at, format!("`{name}` and `{to}` say the same; keep one"));
                    }
                }
            }
            return;
        }
        let Some(field) = table.fields.iter().find(|field| field.name == name) else {
            // As Go reads JSON: a name that differs only in its large letters is that name.
            let same = |field: &&Field| field.name.eq_ignore_ascii_case(name);
            let Some(field) = table.fields.iter().find(same) else { return self.unknown(at, name, table, all) };
            if all.iter().any(|other| &*other.key.text == field.name) {
                return self.reporter.error(at, format!("`{name}` and `{}` say the same; keep one", field.name));
            }
            let hint = format!("write `{}`", field.name);
            self.reporter.warning_hint(at, format!("`{name}` is taken as `{}`, as Tekton takes it", field.name), hint);
            return self.known(entry, field, map);
        };
        if self.beta
            && let Some(old) = table.gone.iter().find(|gone| matches!(gone.then, Then::Renamed(to, _) if to == name))
        {
            let message = format!("`{name}` is no field of {} in v1beta1", table.what);
            let hint = format!("in v1beta1 it is `{}`; or let the document say `apiVersion: tekton.dev/v1`", old.name);
            return self.reporter.error_hint(at, message, hint);
        }
        self.known(entry, field, map);
    }

    fn known(&mut self, entry: &Entry, field: &Field, map: &mut Map<String, Value>) {
        let name = field.name;
        if entry.value.is_null() {
            return;
        }
        if let Some(value) = self.value(&entry.value, &field.shape) {
            // An older name may have put something below it already.
            match (map.get_mut(name), value) {
                (Some(Value::Object(there)), Value::Object(value)) => there.extend(value),
                (_, value) => {
                    map.insert(name.to_owned(), value);
                }
            }
        }
    }

    fn unknown(&mut self, at: Place, name: &str, table: &'static Table, all: &[Entry]) {
        let message = format!("{} has no field `{name}`", table.what);
        if self.reporter.is_full() {
            return self.reporter.error(at, message);
        }
        // What is there already is not what was meant.
        let free = |field: &&Field| !all.iter().any(|entry| &*entry.key.text == field.name);
        let names: Vec<&str> = table.fields.iter().filter(free).map(|field| field.name).collect();
        let hint = did_you_mean(name, names.iter().copied()).or_else(|| match names.len() {
            0 => None,
            _ => Some(format!("it may have {}", listing(names.iter().copied(), "and"))),
        });
        self.reporter.error_maybe(at, message, hint);
    }
}

/// A bundle as the params of its resolver, as Tekton converts it; the name goes in among them.
fn bundle(map: &mut Map<String, Value>, kind: &str, address: &Value, all: &[Entry]) {
    let name = all.iter().find(|entry| &*entry.key.text == "name").and_then(|entry| entry.value.as_scalar());
    let name = name.map_or("", |scalar| &*scalar.text);
    map.insert("resolver".into(), "bundles".into());
    let params = [("bundle", address.clone()), ("name", name.into()), ("kind", kind.into())];
    let params = params.into_iter().map(|(name, value)| json!({"name": name, "value": value}));
    map.insert("params".into(), Value::Array(params.collect()));
}

fn found(value: &Value, text: &str) -> String {
    match value {
        Value::Bool(flag) if text != flag.to_string() => format!("`{text}`, which YAML reads as {flag}"),
        Value::Bool(_) => format!("the boolean `{text}`"),
        _ => format!("the number `{text}`"),
    }
}

/// Puts a value under a path of names; false where something is there already.
fn put(map: &mut Map<String, Value>, path: &str, value: Value) -> bool {
    match path.split_once('.') {
        None => map.insert(path.to_owned(), value).is_none(),
        Some((first, rest)) => match map.entry(first).or_insert_with(|| Value::Object(Map::new())) {
            Value::Object(inner) => put(inner, rest, value),
            _ => false,
        },
    }
}

/// `500m`, `1Gi`, `1.5`, `12e6`.
fn is_quantity(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number_fits = number.bytes().any(|byte| byte.is_ascii_digit()) && number.matches('.').count() <= 1;
    let exponent = |rest: &str| {
        let digits = rest.strip_prefix(['-', '+']).unwrap_or(rest);
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    let known = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    number_fits && (known.contains(&suffix) || suffix.strip_prefix(['e', 'E']).is_some_and(exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for text in ["1", "0.5", "500m", "1Gi", "12e6", "1.5G", "-1", "1E", "2e-3", "5."] {
            assert!(is_quantity(text), "{text}");
        }
        for text in ["", "m", "1.2.3", "1GiB", "1 Gi", "e6", "1K", "one"] {
            assert!(!is_quantity(text), "{text}");
        }
    }
}

//! The filters beyond Jinja's own, and the names of all: an unknown one is found before a run.

use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::context::{SECRETS, SecretForm};
use super::{date, values};

/// Every filter that a template may use.
pub const FILTERS: &[&str] = &[
    "abs",
    "attr",
    "basename",
    "batch",
    "bool",
    "capitalize",
    "chain",
    "count",
    "d",
    "default",
    "dictsort",
    "dirname",
    "ds",
    "ds_nodash",
    "first",
    "float",
    "format",
    "fromjson",
    "fromyaml",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "sh",
    "shellquote",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "ts",
    "ts_nodash",
    "unique",
    "upper",
    "urlencode",
    "zip",
];

/// Every test, as in `x is defined`.
pub const TESTS: &[&str] = &[
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "int",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "safe",
    "sameas",
    "sequence",
    "startingwith",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

/// Every function.
pub const FUNCTIONS: &[&str] = &["dict", "range", "secret"];

pub fn install(env: &mut Environment<'static>) {
    for name in ["safe", "escape", "e"] {
        env.remove_filter(name);
    }
    for name in ["namespace", "debug"] {
        env.remove_global(name);
    }
    env.add_filter("bool", |value: &Value| values::to_json(value).map(|json| super::is_truthy(&json)).map_err(wrong));
    env.add_filter("tojson", |value: &Value| values::to_json(value).map(|json| json.to_string()).map_err(wrong));
    env.add_filter("fromjson", |text: &str| {
        serde_json::from_str(text)
            .map(|json| values::from_json(&json))
            .map_err(|e| wrong(format!("this is not JSON: {e}")))
    });
    env.add_filter("fromyaml", |text: &str| {
        crate::yaml::to_json(text).map(|json| values::from_json(&json)).map_err(wrong)
    });
    env.add_function("secret", secret);
    env.add_filter("sh", shell_quote);
    env.add_filter("shellquote", shell_quote);
    env.add_filter("basename", |path: &str| path.trim_end_matches('/').rsplit('/').next().unwrap_or("").to_owned());
    env.add_filter("dirname", |path: &str| match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", _)) => "/".to_owned(),
        Some((parent, _)) => parent.to_owned(),
        None => ".".to_owned(),
    });
    env.add_filter("ds", |value: &Value| date::format(value, date::DS).map_err(wrong));
    env.add_filter("ds_nodash", |value: &Value| date::format(value, date::DS_NODASH).map_err(wrong));
    env.add_filter("ts", |value: &Value| date::format(value, date::TS).map_err(wrong));
    env.add_filter("ts_nodash", |value: &Value| date::format(value, date::TS_NODASH).map_err(wrong));
}

/// What stands for a secret, where one may stand: see [`super::context::Rendering::with_secrets`].
fn secret(state: &State, name: &str) -> Result<String, Error> {
    let form = state.lookup(SECRETS);
    match form.as_ref().and_then(|form| form.downcast_object_ref::<SecretForm>()) {
        Some(form) => (form.0)(name).map_err(wrong),
        None => Err(wrong("`secret(…)` can stand in `env` and in `with` only: elsewhere its value would be stored")),
    }
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// One word of a shell command, whatever is in it; a list becomes its words.
fn shell_quote(value: &Value) -> Result<String, Error> {
    let json = values::to_json(value).map_err(wrong)?;
    Ok(match &json {
        serde_json::Value::Array(items) => items.iter().map(word).collect::<Vec<_>>().join(" "),
        other => word(other),
    })
}

fn word(value: &serde_json::Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_listed_name_exists() {
        let env = super::super::environment::new();
        for filter in super::FILTERS {
            let error = env.render_str(&format!("{{{{ 'x' | {filter} }}}}"), ()).err();
            assert!(error.is_none_or(|e| e.kind() != minijinja::ErrorKind::UnknownFilter), "no filter {filter}");
        }
        for test in super::TESTS {
            let error = env.render_str(&format!("{{{{ 'x' is {test} }}}}"), ()).err();
            assert!(error.is_none_or(|e| e.kind() != minijinja::ErrorKind::UnknownTest), "no test {test}");
        }
        for gone in ["safe", "escape", "e"] {
            assert!(env.render_str(&format!("{{{{ 'x' | {gone} }}}}"), ()).is_err());
        }
    }

    #[test]
    fn a_quoted_word_survives_the_shell() {
        for (value, quoted) in
            [("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''"), ("plain-1.txt", "plain-1.txt"), ("$(rm)", "'$(rm)'")]
        {
            assert_eq!(super::word(&value.into()), quoted);
        }
    }
}

//! JSONPath as Kubernetes has it, for `$(body.a.b)` of bindings.
//!
//! A path begins with `body`, `header`, `extensions` or `context`. What it finds becomes text that fits into JSON: a
//! string without its quotes, `null`, anything else as JSON; several finds are a list. A path that finds nothing is a
//! fault, so that a default can stand in for it.

mod find;
mod parse;

use serde_json::Value;

pub(super) use find::{Root, find};
pub(super) use parse::Path;

/// What was found, as text that can stand in JSON.
pub(super) fn render(found: &[&Value]) -> String {
    let mut out = String::new();
    match found {
        [Value::String(text)] => {
            let quoted = Value::String(text.clone()).to_string();
            out.push_str(&quoted[1..quoted.len() - 1]);
        }
        [one] => write(one, &mut out),
        several => {
            out.push('[');
            for (n, value) in several.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write(value, &mut out);
            }
            out.push(']');
        }
    }
    out
}

/// As JSON in one line, with the keys of objects in order. `7.0` is written `7`: JSON knows one kind of number.
fn write(value: &Value, out: &mut String) {
    match value {
        Value::Number(number) => match number.as_f64().filter(|n| number.is_f64() && n.fract() == 0.0) {
            Some(whole) if whole.abs() < 1e21 => out.push_str(&format!("{whole:.0}")),
            _ => out.push_str(&number.to_string()),
        },
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            out.push('{');
            for (n, key) in keys.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                write(&map[key], out);
            }
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn run(path: &str) -> Result<String, String> {
        let body = json!({
            "a": {"b": "x\"y", "c": null, "d": 7.0, "e": [1, 2.5, 3], "dotted.key": "k"},
            "list": [{"n": "one", "v": 1}, {"n": "two", "v": 2, "deep": {"n": "three"}}],
            "big": 12345678901234567890u64, "z": {"b": 1, "a": true},
        });
        let header = json!({"X-Github-Event": "push"});
        let (extensions, context) = (json!({"k": "v"}), json!({"eventID": "e-1"}));
        let root = Root { body: &body, header: &header, extensions: &extensions, context: &context };
        Ok(render(&find(&root, &Path::parse(path)?)?))
    }

    #[test]
    fn paths_find_what_they_find_in_kubernetes() {
        for (path, text) in [
            ("body.a.b", r#"x\"y"#),
            (".body.a.c", "null"),
            ("{.body.a.d}", "7"),
            ("{body.a.e}", "[1,2.5,3]"),
            ("body.big", "12345678901234567890"),
            ("body.z", r#"{"a":true,"b":1}"#),
            ("body['a']['dotted.key']", "k"),
            (r"body.a.dotted\.key", "k"),
            ("body.a.e[0]", "1"),
            ("body.a.e[-1]", "3"),
            ("body.a.e[0:2]", "[1,2.5]"),
            ("body.a.e[::2]", "[1,3]"),
            ("body.a.e[1:]", "[2.5,3]"),
            ("body.a.e[1:1]", "[]"),
            ("body.a.e[*]", "[1,2.5,3]"),
            ("body.list[*].n", r#"["one","two"]"#),
            ("body.list[0,1].v", "[1,2]"),
            ("body.list[?(@.n == 'two')].v", "2"),
            ("body.list[?(@.n==\"two\")].v", "2"),
            ("body.list[?(@.v > 0)].n", r#"["one","two"]"#),
            ("body.list[?(@.v>=2)].n", "two"),
            ("body.list[?(@.deep)].n", "two"),
            ("body.list[?(@.n != 'one')].n", "two"),
            ("body..n", r#"["one","two","three"]"#),
            ("body.z.*", "[true,1]"),
            ("body.z['a','b']", "[true,1]"),
            ("header.X-Github-Event", "push"),
            ("extensions.k", "v"),
            ("context.eventID", "e-1"),
        ] {
            assert_eq!(run(path).as_deref(), Ok(text), "{path}");
        }
    }

    #[test]
    fn what_is_not_there_is_told() {
        for (path, told) in [
            ("body.nothing", "`nothing` is not found"),
            ("body.a.c.x", "`x` is not found"),
            ("body.a.b.x", "`x` is not found"),
            ("body.a.e[3]", "the list has 3 items"),
            ("body.a.e[-4]", "the list has 3 items"),
            ("body.a.e[2:1]", "begins behind its end"),
            ("body.a[0]", "is no list"),
            ("other.x", "begins with `body`, `header`, `extensions` or `context`"),
            ("", "begins with"),
            ("body.a[", "is not closed"),
            ("body.list[?(@.n = 'x')]", "no filter"),
            ("body.a{b}", "no path"),
            ("body.", "a name is missing"),
            ("body[abc]", "neither"),
        ] {
            let error = run(path).unwrap_err();
            assert!(error.contains(told), "{path}: {error}");
        }
        // Neither its length nor what is in one another costs the stack.
        let deep = format!("body{}@{}", "[?(@".repeat(900), ")]".repeat(900));
        for long in [deep, format!("body{}", ".a".repeat(5_000))] {
            assert!(run(&long).unwrap_err().contains("no path"));
        }
        assert_eq!(run("body.list[?(@.n == 'nobody')].v").unwrap_err(), "`v` is not found");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_path_panics(path in "(body|\\.|\\[|\\]|\\*|a|e|'n'|0|-1|:|,|\\?\\(@|\\)|==| |\\\\|é){0,12}") {
            drop(run(&path));
            drop(run(&format!("body{path}")));
        }
    }
}

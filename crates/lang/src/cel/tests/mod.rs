//! Expressions with what they come to, derived from the specification of the language and of Tekton's functions.

mod language;
mod library;
mod limits;

use super::*;

/// A value as a text that tells its type: `1`, `1u`, `1.0`, `"a"`, `b"a"`.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => format!("{number}u"),
        Value::Double(number) => format!("{number:?}"),
        Value::String(text) => format!("{text:?}"),
        Value::Bytes(bytes) => format!("b\"{}\"", bytes.escape_ascii()),
        Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", ")),
        Value::Map(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|(key, value)| format!("{}: {}", show(&key.value()), show(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Timestamp(at) => at.to_string(),
        Value::Duration(nanoseconds) => format!("{nanoseconds}ns"),
        Value::Type(kind) => kind.name().into(),
    }
}

fn event() -> [Value; 4] {
    let body = serde_json::json!({
        "action": "opened", "number": 7, "ratio": 1.7, "none": null, "on": true,
        "sha": "ab12cd34ef", "ref": "refs/heads/main", "text": "{\"a\": {\"b\": [1]}}", "yaml": "a: 1\nb: [x]\n",
        "url": "https://me:pw@example.com:8443/a%20b/c?x=1&x=2&y=z#top", "b64": "aGVsbG8=",
        "labels": [{"name": "test-a"}, {"name": "test-b"}], "empty": [],
    });
    let header = serde_json::json!({"X-Github-Event": ["push"], "X-Many": ["one", "two"]});
    let extensions = serde_json::json!({"early": {"key": "value"}});
    let json = [body, header, extensions].map(|json| Value::from_json(&json));
    let [body, header, extensions] = json;
    [body, header, extensions, Value::text("https://hooks.example.com/x?y=z")]
}

struct One;

impl Secrets for One {
    fn get(&self, name: &str, key: &str) -> Option<&[u8]> {
        (name == "hook" && key == "token").then_some(b"s3cret")
    }
}

fn run(text: &str) -> String {
    let environment = Environment::triggers();
    match Program::compile(text, &environment).and_then(|program| program.run(&event(), &One)) {
        Ok(value) => show(&value),
        Err(fault) => format!("! {fault}"),
    }
}

/// Each line: an expression, two blanks, `->`, and its value; or `! ` and a part of the fault.
fn table(lines: &str) {
    let mut wrong = Vec::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (text, expected) = line.rsplit_once("  -> ").unwrap_or_else(|| panic!("no arrow in {line}"));
        let found = run(text.trim());
        let right = match expected.strip_prefix("! ") {
            Some(part) => found.starts_with("! ") && found.contains(part),
            None => found == expected,
        };
        if !right {
            wrong.push(format!("{text}\n    expected {expected}\n    found    {found}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_when_is_a_condition_without_variables_and_without_extensions() {
    assert_eq!(when("'foo' == 'foo'"), Ok(true));
    assert_eq!(when("'a' in ['b', 'c'] || !('x'.startsWith('y'))"), Ok(true));
    assert_eq!(when("'main'.matches('^(main|release-.*)$') && 2 > 3"), Ok(false));
    assert_eq!(check_when("'$(params.branch)' == 'main'"), Ok(()));
    for (text, told) in [
        ("'foo'", "a condition must come to true or false (bool), and this comes to string"),
        ("dyn(1)", "comes to int"),
        ("foo == 'foo'", "undeclared reference to `foo`; there are no variables here"),
        ("'a'.split(',') == []", "undeclared reference to the function `split`"),
        ("1/0 == 1", "division by zero"),
        ("", "expected a value, found the end"),
    ] {
        let fault = when(text).unwrap_err();
        assert!(fault.to_string().contains(told), "{text}: {fault}");
    }
}

#[test]
fn a_fault_says_where() {
    let place = |text: &str| {
        let program = Program::compile(text, &Environment::triggers());
        let fault = program.and_then(|program| program.run(&event(), &NoSecrets)).unwrap_err();
        (fault.at.line, fault.at.column)
    };
    assert_eq!(place("body.action == body.x"), (1, 21));
    assert_eq!(place("true &&\n  'é' == body.labels[9]"), (2, 21));
    assert_eq!(place("1 +"), (1, 4));
    assert_eq!(place("body.action.nope()"), (1, 13));
    assert_eq!(run("true ||\n 1 +"), "! expected a value, found the end (at line 2, character 5)");
}

#[test]
fn secrets_that_are_named_plainly_are_told_before() {
    let text =
        "header.canonical('X').compareSecret('token', 'hook') || body.a.exists(x, x.compareSecret('k', 'n', 'ns'))";
    let program = Program::compile(text, &Environment::triggers()).unwrap();
    assert_eq!(program.secrets(), [("hook".to_owned(), "token".to_owned()), ("n".to_owned(), "k".to_owned())]);
}

#[test]
fn json_is_what_other_readers_of_json_expect() {
    let json = |text: &str| {
        let program = Program::compile(text, &Environment::triggers()).unwrap();
        program.run_to_json(&event(), &NoSecrets).map(|json| json.to_string()).map_err(|fault| fault.message)
    };
    assert_eq!(json("body.number + 1.0").unwrap(), "8");
    assert_eq!(json("body.ratio").unwrap(), "1.7");
    assert_eq!(json("[1u, 18446744073709551615u, b'hi', null]").unwrap(), r#"[1,"18446744073709551615","aGk=",null]"#);
    assert_eq!(json("{1: true, 'a': duration('1500ms')}").unwrap(), r#"{"1":true,"a":"1.5s"}"#);
    assert_eq!(json("1.0/0.0").unwrap(), r#""Infinity""#);
    assert!(json("[int]").unwrap_err().contains("nothing in JSON"));
}

#[test]
fn a_condition_of_a_pipeline_is_told_where_it_is_written() {
    let read = |cel: &str| {
        let text = format!(
            "apiVersion: tekton.dev/v1\nkind: Pipeline\nmetadata: {{name: p}}\nspec:\n  params: [{{name: to, type: string}}]\n  \
             tasks:\n    - name: a\n      taskRef: {{name: t}}\n      when:\n        - cel: {cel}\n"
        );
        crate::tekton::read(&[crate::tekton::Source { file: "p.yaml", text: &text }], &Default::default())
            .map(drop)
            .map_err(|found| {
                found.iter().map(|d| format!("{}:{}: {}", d.line, d.column, d.message)).collect::<Vec<_>>()
            })
    };
    assert_eq!(read("\"'$(params.to)' == 'main'\""), Ok(()));
    let told = "10:16: `$` has no meaning here; a variable of Tekton is replaced before, and stands in quotes: \
                `'$(params.x)'` (at character 1)";
    assert_eq!(read("$(params.to) == 'main'"), Err(vec![told.to_owned()]));
}

//! The form that starts a run: a field for each kind of param, what it gives back, and what it says of bad input.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, Rig};

const KINDS: &str = r#"
workflow: kinds
params:
  name: {type: string, pattern: "^[a-z]+$", minLength: 2, maxLength: 9, default: plate, examples: [plate, fin]}
  size: {type: integer, exclusiveMinimum: 0, maximum: 40, multipleOf: 4, default: 8}
  rate: {type: number, minimum: 0.5, default: 0.5}
  note: {type: [string, "null"], default: null}
  hosts: {type: array, items: {type: string}, minItems: 1, default: [a, "b c"]}
  counts: {type: array, items: {type: integer, minimum: 1}, default: []}
  level: {type: array, items: {enum: [1, two]}, default: [two]}
  parts: {type: array, uniqueItems: true, items: {enum: [mesh, solve, post]}, default: [mesh]}
  short: [x, y]
  deep: {type: array, items: {type: object}, default: [{a: 1}]}
  solver:
    type: object
    required: [kind]
    additionalProperties: {type: integer}
    properties:
      kind: {enum: [direct, iterative]}
      tolerance: {type: number, maximum: 1}
      verbose: {type: boolean}
      tags: {type: array, items: {type: string}}
      limits: {type: object, required: [time], properties: {time: {type: integer, minimum: 1}, kill: {type: boolean}}}
    default: {kind: direct, tolerance: 0.1, tags: [fast], extra: 3}
  free: {type: object, default: {any: [1, 2]}}
tasks: {say: {backend: fake, run: x}}
"#;

/// What a browser sends of a form that nobody touched, without its script: name and text of every control.
fn controls(page: &str) -> Vec<(String, String)> {
    let form = page.split("<form class=\"card form\"").nth(1).unwrap().split("</form>").next().unwrap();
    let mut found = Vec::new();
    let mut inside_template = false;
    for tag in form.split('<').skip(1) {
        inside_template = (inside_template || tag.starts_with("template")) && !tag.starts_with("/template");
        let attribute = |name: &str| {
            let at = tag.split('>').next()?.split(&format!(" {name}=\"")).nth(1)?.split('"').next()?;
            Some(unescaped(at))
        };
        let is = |word: &str| tag.split('>').next().unwrap().ends_with(word);
        let is_unticked = attribute("type").as_deref() == Some("checkbox") && !tag.contains(" checked");
        match (tag.split([' ', '>', '\n']).next().unwrap(), attribute("name")) {
            _ if inside_template || is_unticked => {}
            ("input", Some(name)) => found.push((name, attribute("value").unwrap_or_default())),
            ("textarea", Some(name)) => {
                found.push((name, unescaped(tag.split_once('>').unwrap().1.strip_prefix('\n').unwrap())));
            }
            ("select", Some(name)) => found.push((name, "\0first".to_owned())),
            ("option", _) => {
                let (_, text) = found.last_mut().unwrap();
                if text == "\0first" || is(" selected") {
                    *text = attribute("value").unwrap();
                }
            }
            _ => {}
        }
    }
    found
}

fn unescaped(text: &str) -> String {
    let pairs = [("&#34;", "\""), ("&#39;", "'"), ("&#60;", "<"), ("&#62;", ">"), ("&#38;", "&")];
    pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

fn encoded(pairs: &[(String, String)]) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    let text = |text: &str| text.bytes().map(byte).collect::<String>();
    pairs.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect::<Vec<_>>().join("&")
}

/// The form as it is, with other texts for some controls; a control that is not there yet is added.
fn with(page: &str, changes: &[(&str, &str)]) -> String {
    let mut pairs = controls(page);
    for (name, text) in changes {
        match pairs.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => *old = (*text).to_owned(),
            None => pairs.push(((*name).to_owned(), (*text).to_owned())),
        }
    }
    encoded(&pairs)
}

fn errors(page: &Answer) -> Vec<String> {
    let said = page.said();
    let errors = said.split("<p class=\"error\" role=\"alert\"").skip(1);
    errors.map(|rest| unescaped(rest.split_once('>').unwrap().1.split('<').next().unwrap())).collect()
}

async fn conf(rig: &Rig, run: &str) -> Value {
    rig.get(&format!("/api/v2/dags/kinds/dagRuns/{run}")).await.json()["conf"].clone()
}

#[tokio::test]
async fn a_form_that_nobody_touched_gives_what_it_was_filled_with() {
    let rig = Rig::with(KINDS).await;
    let page = rig.get("/workflows/kinds/trigger").await.text;
    let sent = rig.submit("/workflows/kinds/trigger", &with(&page, &[("run_id", "first")])).await;
    assert_eq!(sent.header("location"), "/workflows/kinds/runs/first", "{:?}", errors(&sent));
    let defaults = json!({
        "name": "plate", "size": 8, "rate": 0.5, "note": null, "hosts": ["a", "b c"], "counts": [], "level": ["two"],
        "parts": ["mesh"], "short": ["x", "y"], "deep": [{"a": 1}],
        "solver": {"kind": "direct", "tolerance": 0.1, "tags": ["fast"], "extra": 3}, "free": {"any": [1, 2]},
    });
    assert_eq!(conf(&rig, "first").await, defaults);

    // Each kind changed, then run again with these.
    let changes = [
        ("run_id", "second"),
        ("param.note", "5 > \"4\""),
        ("param.hosts", "[\"[x]\", \"y\\nz\"]"),
        ("param.counts", "3\r\n\r\n 12"),
        ("param.level", "1\n1"),
        ("param.parts", "post"),
        ("param.short", ""),
        ("param.solver", ""),
        ("param.solver/kind", "\"iterative\""),
        ("param.solver/tolerance", ""),
        ("param.solver/verbose", "false"),
        ("param.solver/tags", "[]"),
        ("param.solver/limits/time", "5"),
        ("param.free", "{}"),
    ];
    let sent = rig.submit("/workflows/kinds/trigger", &with(&page, &changes)).await;
    assert_eq!(sent.status, StatusCode::SEE_OTHER, "{:?}", errors(&sent));
    let second = json!({
        "name": "plate", "size": 8, "rate": 0.5, "note": "5 > \"4\"", "hosts": ["[x]", "y\nz"], "counts": [3, 12],
        "level": [1, 1], "parts": ["post"], "short": [], "deep": [{"a": 1}],
        "solver": {"kind": "iterative", "verbose": false, "tags": [], "limits": {"time": 5}}, "free": {},
    });
    assert_eq!(conf(&rig, "second").await, second);
    let again = rig.get("/workflows/kinds/trigger?from=second").await.text;
    let sent = rig.submit("/workflows/kinds/trigger", &with(&again, &[("run_id", "third")])).await;
    assert_eq!(sent.status, StatusCode::SEE_OTHER, "{:?}", errors(&sent));
    assert_eq!(conf(&rig, "third").await, second);
}

#[tokio::test]
async fn what_is_wrong_is_said_at_its_field_and_nothing_typed_is_lost() {
    let rig = Rig::with(KINDS).await;
    let page = rig.get("/workflows/kinds/trigger").await.text;
    let table = [
        ("param.name", "A1", "the param `name` must match the pattern `^[a-z]+$`, found the text `A1`"),
        ("param.size", "x<b>", "the param `size` must be a whole number, found `x<b>`"),
        ("param.size", "6", "the param `size` must be a multiple of 4, found `6`"),
        (
            "param.hosts",
            "[1",
            "the param `hosts` must be one item per line or a JSON list; it is no JSON (line 1, column 2)",
        ),
        ("param.hosts", "", "the param `hosts` must have an item"),
        ("param.hosts", "[\"a\", 2]", "the param `hosts[1]` must be a text, found `2`"),
        ("param.counts", "4\nfour", "the param `counts[1]` must be a whole number, found `four`"),
        ("param.counts", "4\n0", "the param `counts[1]` must be at least 1, found `0`"),
        ("param.level", "three", "the param `level[0]` must be `1` or `two`, found the text `three`"),
        (
            "param.parts",
            "\"sovle\"",
            "the param `parts[0]` must be `mesh`, `solve` or `post`, found the text `sovle`; did you mean `solve`?",
        ),
        (
            "param.deep",
            "{}",
            "the param `deep` must be a JSON list such as `[\"a\", \"b\"]`, or texts parted by `,`, found `{}`",
        ),
        ("param.solver", "[]", "the param `solver` must be a JSON object such as `{\"key\": \"value\"}`, found `[]`"),
        ("param.solver", "{\"extra\": \"x\"}", "the param `solver.extra` must be a whole number, found the text `x`"),
        ("param.solver/kind", "", "the param `solver` needs `kind`"),
        (
            "param.solver/kind",
            "\"other\"",
            "the param `solver.kind` must be `direct` or `iterative`, found the text `other`",
        ),
        ("param.solver/tolerance", "2", "the param `solver.tolerance` must be at most 1, found `2`"),
        ("param.solver/limits/time", "0", "the param `solver.limits.time` must be at least 1, found `0`"),
        (
            "param.free",
            "{\"a\": }",
            "the param `free` must be a JSON object such as `{\"key\": \"value\"}`, found `{\"a\": }`",
        ),
        ("logical_date", "soon", "this is not a time such as 2026-01-02T03:04"),
    ];
    let (mut said, mut meant) = (Vec::new(), Vec::new());
    for (name, text, message) in table {
        let form = with(&page, &[(name, text), ("note", "mine")]);
        let refused = rig.submit("/workflows/kinds/trigger", &form).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{name}={text}");
        said.push((name, text, errors(&refused)));
        meant.push((name, text, vec![message.to_owned()]));
        let shown = controls(&refused.text);
        let kept = shown.iter().find(|(key, _)| key == name).map(|(_, text)| text.as_str());
        // What is no choice cannot be shown as chosen.
        let is_choice = name.ends_with("kind") || name.ends_with("parts");
        assert!(is_choice || kept == Some(text), "{name}={text} became {kept:?}");
        assert!(shown.contains(&("note".to_owned(), "mine".to_owned())));
        // The message stands in the field of that name, and the lists around it keep their rows.
        let field = refused.text.split("class=\"field").find(|field| field.contains("class=\"error\"")).unwrap();
        assert!(field.contains(&format!("name=\"{name}\"")), "{name}={text}: {field}");
    }
    assert_eq!(said, meant);
    let unknown = rig.submit("/workflows/kinds/trigger", &with(&page, &[("param.gone", "1"), ("note", "mine")])).await;
    assert_eq!(unknown.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(unknown.said().contains("`param.gone` is not a field of this form") && unknown.text.contains("mine"));
    assert_eq!(rig.get("/api/v2/dags/kinds/dagRuns").await.json()["total_entries"], 0);
}

#[tokio::test]
async fn a_browser_is_given_what_it_can_check_and_never_more_than_the_schema_asks() {
    let rig = Rig::with(KINDS).await;
    let page = rig.get("/workflows/kinds/trigger").await.text;
    let tag = |name: &str| {
        let at = page.split('<').find(|tag| tag.contains(&format!(" name=\"{name}\""))).unwrap();
        unescaped(at.split('>').next().unwrap())
    };
    let holds = |name: &str, parts: &[&str]| {
        for part in parts {
            assert!(tag(name).contains(part), "{name} lacks {part}: {}", tag(name));
        }
    };
    holds("param.name", &["pattern=\".*(?:^[a-z]+$).*\"", "minlength=\"2\"", "maxlength=\"9\"", "list="]);
    holds("param.size", &["type=\"number\"", "min=\"4\"", "max=\"40\"", "step=\"4\"", "placeholder=\"8\""]);
    holds("param.rate", &["min=\"0.5\"", "step=\"any\""]);
    holds("param.solver/kind", &[" required"]);
    holds("param.solver/limits/time", &["min=\"1\"", "step=\"1\""]);
    // The object around it may be left out.
    assert!(!tag("param.solver/limits/time").contains("required") && !tag("param.size").contains("required"));
    assert!(
        page.contains(
            "data-items=\"[&#34;a&#34;,&#34;b c&#34;]\" data-kind=\"text\" data-empty=\"[]\" data-least=\"1\""
        )
    );
    assert!(
        page.contains("data-kind=\"number\"")
            && page.contains("data-kind=\"json\"")
            && page.contains("data-json=\"object\"")
    );
}

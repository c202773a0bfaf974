//! What a person does in a day: logs in, starts a run by its form, watches it, reads logs, retries, cancels, pauses.

use serde_json::json;

use crate::harness::Place;
use crate::site::{Gate, Site, is_same_page, mark, state_of};

const FORM: &str = r#"
workflow: bake
description: Takes a param of each kind
params:
  name: {type: string, title: Name, pattern: '^[a-z]+$'}
  size: {type: integer, minimum: 1, maximum: 9, default: 3}
  ratio: {type: number, default: 0.5}
  loud: {type: boolean, default: false}
  kind: {type: string, enum: [small, large], default: small}
  list: {type: array, items: {type: integer}, default: [1]}
  labels: {type: object, default: {}}
  notes: {type: string, format: multiline, default: ''}
  day: {type: string, format: date, default: 2026-01-02}
  mail: {type: string, format: email, default: a@example.com}
  secret: {type: string, format: password, default: hush}
tasks:
  show:
    env: {ALL: '{{ params | tojson }}'}
    run: 'printf "%s\n" "$ALL"'
"#;

#[test]
fn who_has_the_password_is_let_in_and_who_has_not_is_not() {
    let site = Site::new(&[("bake", FORM)]);
    let browser = &site.browser;
    site.open("/workflows");
    assert_eq!(browser.path(), "/login?next=%2Fworkflows");
    browser.fill("#username", "admin");
    browser.fill("#password", "not it");
    browser.press("Log in");
    assert_eq!(browser.until("text('[role=alert]')"), json!("Name or password are not right."));
    assert_eq!(browser.value("$('#username').value + $('#password').value"), json!("admin"), "only the name stays");
    browser.complained("401 (Unauthorized)");
    browser.fill("#password", &site.password);
    browser.press("Log in");
    browser.until("location.pathname === '/workflows' && text('main').includes('bake')");
    browser.click("header .menu.right > summary");
    browser.press("Log out");
    browser.until("location.pathname === '/login'");
    site.open("/runs");
    assert_eq!(browser.path(), "/login?next=%2Fruns");
    browser.is_quiet();
}

#[test]
fn a_run_is_started_by_a_form_that_has_a_field_for_each_kind_of_param() {
    let site = Site::entered(&[("bake", FORM)]);
    let browser = &site.browser;
    browser.until("$('a[href$=\"/workflows/bake/trigger\"]')");
    browser.click("a[href$='/workflows/bake/trigger']");
    browser.until("location.pathname === '/workflows/bake/trigger'");
    let kinds = browser.value("Object.fromEntries($$('[name^=\"param.\"]').map((e) => [e.name.slice(6), e.type]))");
    let expected = json!({
        "name": "text", "size": "number", "ratio": "number", "loud": "checkbox", "kind": "select-one", "list": "textarea",
        "labels": "textarea", "notes": "textarea", "day": "date", "mail": "email", "secret": "password",
    });
    assert_eq!(kinds, expected);

    // What the browser can know is wrong never leaves it.
    let field = |name: &str| format!("[name='param.{name}']");
    let is_wrong = |name: &str| browser.value(&format!("!$(\"{}\").validity.valid", field(name)));
    browser.click("main form .primary");
    assert_eq!(is_wrong("name"), json!(true), "it is required");
    for (name, bad, good) in [
        ("name", "Tin Can", "tin"),
        ("size", "10", "7"),
        ("ratio", "1.25", "0.25"),
        ("mail", "nobody", "b@example.com"),
    ] {
        browser.fill(&field(name), bad);
        assert_eq!(is_wrong(name), json!(name != "ratio"), "{name}");
        browser.click("main form .primary");
        assert_eq!(browser.path(), "/workflows/bake/trigger");
        browser.fill(&field(name), good);
        assert_eq!(is_wrong(name), json!(false), "{name}");
        if name == "size" {
            browser.fill(&field("mail"), "nobody");
        }
    }
    // What HTML cannot say is said by the script, at the field.
    browser.fill(&field("notes"), "one\ntwo");
    browser.fill(&field("day"), "03042026");
    browser.click(&field("loud"));
    browser.run("$(\"[name='param.kind']\").selectedIndex = 1;", json!([]));
    browser.fill(&field("labels"), "{\"team\": ");
    browser.run("document.activeElement.blur();", json!([]));
    browser.click("main form .primary");
    assert!(browser.text(".field.wrong [role=alert]").starts_with("this is not JSON: "));
    assert_eq!(browser.path(), "/workflows/bake/trigger");
    browser.fill(&field("labels"), "{\"team\": \"a\"}");
    // A list has a row per item, which can be added and removed.
    let list = "[...$$('.items input')].map((e) => e.value).join()";
    assert_eq!(browser.value(list), json!("1"));
    browser.press("Add an item");
    browser.fill(".items li:nth-child(2) input", "5");
    browser.press("Add an item");
    browser.fill(".items li:nth-child(3) input", "2");
    browser.click(".items li:nth-child(2) .remove");
    assert_eq!(browser.value(list), json!("1,2"));
    assert_eq!(browser.value("$(\"[name='param.list']\").value"), json!("[1, 2]"));
    // What only the server knows is shown where it is wrong, and nothing that was typed is lost.
    browser.run("$(\"[name='param.list']\").value = '[1, \"x\"]';", json!([]));
    browser.click("main form .primary");
    browser.until("text('.field.wrong label')?.startsWith('list')");
    browser.complained("422 (Unprocessable");
    browser.fill(&field("list"), "1\n2");
    browser.click("main form .primary");
    browser.until("location.pathname.startsWith('/workflows/bake/runs/')");
    browser.until(&state_of("show", "success"));
    browser.click("#task-show");
    let shown = browser.until("text('#log .lines p.o span')");
    let given: serde_json::Value = serde_json::from_str(shown.as_str().unwrap()).unwrap();
    let wanted = json!({
        "name": "tin", "size": 7, "ratio": 0.25, "loud": true, "kind": "large", "list": [1, 2], "labels": {"team": "a"},
        "notes": "one\ntwo", "day": "2026-03-04", "mail": "b@example.com", "secret": "hush",
    });
    assert_eq!(given, wanted);

    // The same once more, from the run.
    browser.click(".crumbs a:last-child");
    browser.until("text('main h1')");
    browser.press("Run again…");
    browser.until("$(\"[name='param.name']\")");
    assert_eq!(
        browser.value("[$(\"[name='param.name']\").value, $(\"[name='param.loud']\").checked]"),
        json!(["tin", true])
    );
    browser.is_quiet();
}

#[test]
fn a_run_is_watched_as_it_goes_on_without_loading_the_page_again() {
    let place = Place::new();
    let mut gate = Gate::new(&place, "gate");
    let source = format!(
        "workflow: live\ntasks:\n  first: {{run: 'read -r line < {}; echo $line'}}\n  second: {{needs: [first], run: 'read -r line < {0}'}}\n",
        gate.path()
    );
    let site = Site::at(place, &[("live", &source)]);
    site.log_in();
    let browser = &site.browser;
    site.open("/workflows/live/trigger");
    browser.press("Run");
    browser.until(&state_of("first", "running"));
    mark(browser);
    assert_eq!(browser.value(&state_of("second", "none")), json!(true));
    gate.say("one");
    browser.until(&state_of("second", "running"));
    browser.until(&state_of("first", "success"));
    assert_eq!(browser.text("#run-head .badge"), "running");
    gate.say("two");
    browser.until(&state_of("second", "success"));
    browser.until("text('#run-head .badge') === 'success'");
    is_same_page(browser);
    browser.is_quiet();
}

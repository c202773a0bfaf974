//! The form that starts a run: a field for each kind of param, checked by the browser, then by the server, and filled
//! once more with what a run was given.

use serde_json::{Value, json};

use crate::driver::Browser;
use crate::site::{Site, state_of};

const FORM: &str = r#"
workflow: bake
description: Takes a param of each kind
params:
  name: {type: string, title: Name, description: What it is called, pattern: '^[a-z]+$'}
  size: {type: integer, minimum: 1, maximum: 9, default: 3}
  ratio: {type: number, default: 0.5}
  loud: {type: boolean, default: false}
  kind: {type: string, enum: [small, large], default: small}
  list: {type: array, items: {type: integer}, default: [1]}
  days: {type: array, uniqueItems: true, items: {enum: [mon, tue]}, default: [tue]}
  oven: {type: object, properties: {depth: {type: integer, minimum: 1}, fan: {type: boolean}}, default: {depth: 2}}
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
const TRIGGER: &str = "/workflows/bake/trigger";

fn field(name: &str) -> String {
    format!("[name='param.{name}']")
}

/// The fields, each with its kind.
fn kinds(browser: &Browser) -> Value {
    browser.value("Object.fromEntries($$('[name^=\"param.\"]').map((e) => [e.name.slice(6), e.type]))")
}

/// What the fields hold; of boxes, which of them are ticked.
fn filled(browser: &Browser) -> Value {
    let script = "
        const all = {};
        for (const e of $$('[name^=\"param.\"]')) {
            const name = e.name.slice(6);
            if (e.type !== 'checkbox') all[name] = e.value;
            else if (e.value === 'true') all[name] = e.checked;
            else (all[name] ??= []).push(...(e.checked ? [JSON.parse(e.value)] : []));
        }
        return all;";
    browser.run(script, json!([]))
}

/// Sends the form, and sees that the browser keeps it and leads to the field that is wrong.
fn is_kept(browser: &Browser, name: &str) {
    browser.run("window.kept = true;", json!([]));
    browser.click("main form .primary");
    assert_eq!(browser.value("window.kept === true"), json!(true), "{name}: it was sent");
    assert_eq!(browser.value("document.activeElement.name"), json!(format!("param.{name}")));
}

#[test]
fn a_run_is_started_by_a_form_that_has_a_field_for_each_kind_of_param() {
    let site = Site::entered(&[("bake", FORM)]);
    let browser = &site.browser;
    browser.until("$('a[href$=\"/workflows/bake/trigger\"]')");
    browser.click("a[href$='/workflows/bake/trigger']");
    browser.until(&format!("location.pathname === '{TRIGGER}'"));
    let expected = json!({
        "name": "text", "size": "number", "ratio": "number", "loud": "checkbox", "kind": "select-one", "list": "textarea",
        "days": "checkbox", "oven/depth": "number", "oven/fan": "select-one", "labels": "textarea", "notes": "textarea",
        "day": "date", "mail": "email", "secret": "password",
    });
    assert_eq!(kinds(browser), expected);
    let defaults = json!({
        "name": "", "size": "3", "ratio": "0.5", "loud": false, "kind": "\"small\"", "list": "1", "days": ["tue"],
        "oven/depth": "2", "oven/fan": "", "labels": "{}", "notes": "", "day": "2026-01-02", "mail": "a@example.com",
        "secret": "hush",
    });
    assert_eq!(filled(browser), defaults);
    assert!(browser.text("form.form").contains("What it is called"), "the help of the schema");

    // What the browser can know is wrong never leaves it.
    let is_wrong = |name: &str| browser.value(&format!("!$(\"{}\").validity.valid", field(name)));
    for (name, bad, good) in [
        ("name", "", "tin"),
        ("name", "Tin Can", "tin"),
        ("size", "10", "7"),
        ("mail", "nobody", "b@example.com"),
        ("oven/depth", "0", "4"),
    ] {
        browser.fill(&field(name), bad);
        assert_eq!(is_wrong(name), json!(true), "{name}");
        is_kept(browser, name);
        browser.fill(&field(name), good);
        assert_eq!(is_wrong(name), json!(false), "{name}");
    }
    browser.fill(&field("ratio"), "0.25");
    browser.fill(&field("notes"), "one\ntwo");
    browser.fill(&field("day"), "03042026");
    browser.click(&field("loud"));
    browser.press("mon");
    browser
        .run("$(\"[name='param.kind']\").selectedIndex = 1; $(\"[name='param.oven/fan']\").value = 'true';", json!([]));
    // What HTML cannot say is said by the script, at the field.
    browser.fill(&field("labels"), "{\"team\": ");
    browser.run("document.activeElement.blur();", json!([]));
    is_kept(browser, "labels");
    assert!(browser.text(".field.wrong [role=alert]").starts_with("this is not JSON: "));
    browser.fill(&field("labels"), "{\"team\": \"a\"}");
    // A list has a row per item, which can be added and removed.
    let list = "[...$$('.items input')].map((e) => e.value).join()";
    browser.press("Add an item");
    browser.fill(".items li:nth-child(2) input", "5");
    browser.press("Add an item");
    browser.fill(".items li:nth-child(3) input", "2");
    browser.click(".items li:nth-child(2) .remove");
    assert_eq!(browser.value(list), json!("1,2"));

    let typed = filled(browser);
    browser.click("main form .primary");
    browser.until("location.pathname.startsWith('/workflows/bake/runs/')");
    browser.until(&state_of("show", "success"));
    browser.click("#task-show");
    let shown = browser.until("text('#log .lines p.o span')");
    let given: Value = serde_json::from_str(shown.as_str().unwrap()).unwrap();
    let wanted = json!({
        "name": "tin", "size": 7, "ratio": 0.25, "loud": true, "kind": "large", "list": [1, 2], "days": ["mon", "tue"],
        "oven": {"depth": 4, "fan": true}, "labels": {"team": "a"}, "notes": "one\ntwo", "day": "2026-03-04",
        "mail": "b@example.com", "secret": "hush",
    });
    assert_eq!(given, wanted);

    // The same once more, from the run.
    browser.click(".crumbs a:last-child");
    browser.until("text('main h1')");
    browser.press("Run again…");
    browser.until(&format!("$(\"{}\")", field("name")));
    let mut again = typed;
    again["list"] = json!("1\n2");
    again["labels"] = json!("{\"team\":\"a\"}");
    assert_eq!(filled(browser), again);
    browser.is_quiet();
}

#[test]
fn what_the_browser_let_through_the_server_refuses_where_it_is_wrong() {
    let site = Site::entered(&[("bake", FORM)]);
    let browser = &site.browser;
    browser.until("$('a[href$=\"/workflows/bake/trigger\"]')");
    site.open(TRIGGER);
    let bad =
        [("name", "Tin Can"), ("size", "10"), ("oven/depth", "0"), ("labels", "{\"a\": 1}"), ("mail", "b@example.com")];
    for (name, text) in bad {
        browser.fill(&field(name), text);
    }
    // A browser that checks nothing.
    browser.run("$('main form').noValidate = true; $(\"[name='param.list']\").value = '[1, \"x\"]';", json!([]));
    let mut typed = filled(browser);
    browser.click("main form .primary");
    browser.until("$('.field.wrong')");
    browser.complained("422 (Unprocessable");
    let wrong = "$$('.field').filter((f) => f.querySelector(':scope > [id$=-about] [role=alert], :scope .items [role=alert]') && !f.matches('.group')).map((f) => f.querySelector('[name]').name)";
    assert_eq!(browser.value(wrong), json!(["param.name", "param.size", "param.list", "param.oven/depth"]));
    assert_eq!(
        browser.value("$$('.field.wrong:not(.group)').every((f) => f.querySelector('[aria-invalid=true]'))"),
        json!(true)
    );
    typed["list"] = filled(browser)["list"].clone();
    assert_eq!(filled(browser), typed, "nothing that was typed is lost");
    assert!(site.place.run("dags list-runs bake --output json").ends(0).json().as_array().unwrap().is_empty());
    browser.is_quiet();
}

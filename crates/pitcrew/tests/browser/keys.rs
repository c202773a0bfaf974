//! The keys that the list of keys names do what it says.

use std::collections::BTreeSet;

use serde_json::json;

use crate::driver::{Browser, DOWN, ENTER, ESCAPE, LEFT};
use crate::site::{Site, state_of};

const SOURCE: &str = "workflow: alpha\ntasks:\n  one: {run: 'echo one'}\n  two: {needs: [one], run: 'echo two'}\n";
const OTHER: &str = "workflow: beta\ntasks: {one: {run: 'echo one'}}\n";

/// The keys of the list, with what it says of them; the list is opened and closed by key too.
fn listed(browser: &Browser) -> Vec<(String, String)> {
    browser.keys("?");
    browser.until("$('#keys').open");
    let rows = browser.value("$$('#keys .keys div').map((row) => [[...row.querySelectorAll('kbd')].map((k) => k.textContent).join(' '), row.querySelector('dd').textContent])");
    browser.keys(ESCAPE);
    browser.until("!$('#keys').open");
    serde_json::from_value(rows).unwrap()
}

#[test]
fn every_key_of_the_list_does_what_it_says() {
    let site = Site::entered(&[("alpha", SOURCE), ("beta", OTHER)]);
    let browser = &site.browser;
    browser.until("$$('main tbody tr').length === 2");
    let mut named: BTreeSet<String> = BTreeSet::new();
    let mut gone = 0;
    // `g` and a letter, from wherever one is: each leads to the page whose name it has.
    for (keys, words) in listed(browser) {
        named.insert(keys.clone());
        let Some(letter) = keys.strip_prefix("g ") else { continue };
        site.open("/account");
        browser.keys(&format!("g{letter}"));
        browser.until(&format!("text('header [aria-current=page]')?.includes({0}) || text('h1') === {0} || $$('header [aria-current=page]').some((a) => a.textContent === {0})", json!(words)));
        gone += 1;
    }
    assert!(gone >= 10, "{named:?}");

    // Lists: down, down, up, and in.
    site.open("/workflows");
    let at = "document.activeElement.textContent";
    for (key, name) in [("j", "alpha"), ("j", "beta"), ("j", "beta"), ("k", "alpha")] {
        browser.keys(key);
        assert_eq!(browser.value(at), json!(name), "{key}");
    }
    browser.keys("/");
    assert_eq!(browser.value("document.activeElement.type"), json!("search"));
    // In a field a letter is a letter.
    browser.keys("gr?jk");
    assert_eq!(
        browser.value("[document.activeElement.value, $('#keys').open, location.pathname]"),
        json!(["gr?jk", false, "/workflows"])
    );
    site.open("/workflows");
    browser.keys("j");
    browser.keys(ENTER);
    browser.until("location.pathname === '/workflows/alpha'");

    named.extend(listed(browser).into_iter().map(|(keys, _)| keys));
    browser.keys("r");
    browser.until("location.pathname === '/workflows/alpha/trigger'");
    browser.press("Run");
    browser.until(&state_of("two", "success"));
    named.extend(listed(browser).into_iter().map(|(keys, _)| keys));

    // From cell to cell of the grid, and into one.
    site.open("/workflows/alpha");
    browser.run("$('.grid-card').focus();", json!([]));
    browser.keys(LEFT);
    browser.until("text('.grid-tip b') === 'one'");
    // A run more draws the grid anew; the cursor stays where it was.
    site.place.run("dags trigger alpha").ends(0);
    browser.until("$$('.grid-head a').length === 2");
    browser.keys(DOWN);
    browser.until("text('.grid-tip b') === 'two'");
    browser.keys(ENTER);
    browser.until("location.pathname.endsWith('/tasks/two')");

    named.extend(listed(browser).into_iter().map(|(keys, _)| keys));
    let follows = "$('.log-follow').checked";
    let before = browser.value(follows);
    browser.keys("f");
    assert_ne!(browser.value(follows), before);

    let rest: Vec<String> = named.into_iter().filter(|keys| !keys.starts_with("g ")).collect();
    assert_eq!(rest, ["/", "?", "Enter", "f", "j k", "r", "← ↑"], "a new key wants a test here");
    browser.is_quiet();
}

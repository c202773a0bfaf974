//! What a person does in a day: logs in, starts a run, watches it, also when the server goes away meanwhile.

use serde_json::json;

use crate::harness::Place;
use crate::site::{Gate, Site, is_same_page, mark, state_of};

#[test]
fn who_has_the_password_is_let_in_and_who_has_not_is_not() {
    let site = Site::new(&[("bake", "workflow: bake\ntasks: {mix: {run: 'true'}}\n")]);
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

#[test]
fn a_page_says_that_the_server_is_gone_and_goes_on_when_it_is_back() {
    let place = Place::new();
    let mut gate = Gate::new(&place, "gate");
    let source = format!("workflow: live\ntasks:\n  first: {{run: 'read -r line < {}'}}\n", gate.path());
    let mut site = Site::at(place, &[("live", &source)]);
    site.log_in();
    site.open("/workflows/live/trigger");
    site.browser.press("Run");
    site.browser.until(&state_of("first", "running"));
    mark(&site.browser);
    site.stop();
    site.browser.until("text('.offline:not([hidden])') === 'not live'");
    gate.say("one");
    site.start_again();
    let browser = &site.browser;
    browser.until(&state_of("first", "success"));
    browser.until("$('.offline').hidden");
    is_same_page(browser);
    browser.complaints("net::ERR_");
    browser.is_quiet();
}

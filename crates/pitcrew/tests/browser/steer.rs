//! Reading a log while it grows, and changing what goes on: retry, cancel, pause.

use serde_json::{Value, json};

use crate::driver::{Browser, ENTER};
use crate::harness::Place;
use crate::site::{Gate, Site, is_same_page, mark, state_of};

/// The lines of the log that are in sight.
fn lines(browser: &Browser) -> Value {
    browser.value("$$('#log p').filter((p) => p.checkVisibility()).map((p) => p.querySelector('span').textContent)")
}

#[test]
fn a_log_is_read_as_it_grows_folded_by_step_and_searched() {
    let place = Place::new();
    let mut gate = Gate::new(&place, "gate");
    let source = format!(
        "workflow: chatty\ntasks:\n  talk:\n    steps:\n      - name: greet\n        run: 'echo \"<img src=x onerror=window.ran=1> $(printf \"\\033[31mred\\033[0m\")\"; echo careful >&2'\n      - name: count\n        run: 'while read -r line && test \"$line\" != over; do echo \"$line\"; done < {}'\n",
        gate.path()
    );
    let site = Site::at(place, &[("chatty", &source)]);
    site.log_in();
    let browser = &site.browser;
    site.open("/workflows/chatty/trigger");
    browser.press("Run");
    browser.until(&state_of("talk", "running"));
    browser.click("#task-talk");
    browser.until("$$('#log p.o, #log p.e').length === 2");
    mark(browser);
    let mut said = lines(browser).as_array().unwrap().clone();
    // Two streams of a step reach the log in either order.
    said.sort_by_key(Value::to_string);
    assert_eq!(said, [json!("<img src=x onerror=window.ran=1> red"), json!("careful")], "text is text");
    assert_eq!(browser.value("$('#log .c1').textContent"), json!("red"));

    gate.say("line 1");
    browser.until("$('#log').textContent.includes('line 1')");
    assert_eq!(browser.value("$$('#log summary').map((s) => s.textContent)"), json!(["greet", "count"]));
    for number in 2..=200 {
        gate.say(&format!("line {number}"));
    }
    browser.until("$$('#log p').length >= 202");
    let at_end = "Math.abs($('#log').scrollHeight - $('#log').scrollTop - $('#log').clientHeight) < 24";
    browser.until(at_end);
    // Who scrolls up stays there; `f` leads back to the end.
    browser.run("$('#log').scrollTop = 0;", json!([]));
    browser.until("!$('.log-follow').checked");
    gate.say("line 201");
    browser.until("$('#log').textContent.includes('line 201')");
    assert_eq!(browser.value("$('#log').scrollTop"), json!(0));
    browser.keys("f");
    browser.until(at_end);

    browser.press("Fold steps");
    assert_eq!(lines(browser), json!([]));
    gate.say("line 202");
    browser.until("$('#log').textContent.includes('line 202')");
    assert_eq!(lines(browser), json!([]), "what is folded stays folded");
    browser.press("count");
    assert_eq!(lines(browser).as_array().unwrap().len(), 202);
    browser.press("Fold steps");
    browser.until("text('.log-fold') === 'Unfold steps'");

    browser.keys("/");
    browser.fill(".log-search", "LINE 20");
    browser.until("$$('#log p').filter((p) => p.checkVisibility()).length === 4");
    assert_eq!(lines(browser), json!(["line 20", "line 200", "line 201", "line 202"]));
    gate.say("line 203");
    gate.say("other");
    browser.until("$('#log').textContent.includes('other')");
    assert_eq!(lines(browser).as_array().unwrap().len(), 5, "what comes later is searched too");
    is_same_page(browser);
    browser.keys(ENTER);
    browser.until("$('.hits')");
    assert_eq!(browser.value("$$('.hits li').map((e) => e.textContent)").as_array().unwrap().len(), 5);
    browser.click(".hits li:nth-child(2) a");
    browser.until("location.hash && $(':target')?.textContent.includes('line 200')");

    mark(browser);
    gate.say("over");
    browser.until("text('#task-head .badge') === 'success'");
    is_same_page(browser);
    assert_eq!(browser.value("window.ran === undefined"), json!(true));
    browser.is_quiet();
}

#[test]
fn what_failed_is_run_again_and_only_that() {
    let place = Place::new();
    let mended = place.path("mended");
    let source = format!(
        "workflow: flaky\ntasks:\n  build: {{run: 'true'}}\n  check: {{needs: [build], run: 'test -e {} || {{ echo it is broken >&2; exit 3; }}'}}\n  ship: {{needs: [check], run: 'true'}}\n",
        mended.display()
    );
    let site = Site::at(place, &[("flaky", &source)]);
    site.log_in();
    let browser = &site.browser;
    site.open("/workflows/flaky/trigger");
    browser.press("Run");
    browser.until(&state_of("ship", "upstream_failed"));
    browser.until("text('#run-head .badge') === 'failed'");
    assert_eq!(browser.value(&state_of("check", "failed")), json!(true));
    assert!(browser.text("#run-tasks").contains("it is broken"), "{}", browser.text("#run-tasks"));
    let run = browser.path();

    std::fs::write(mended, "").unwrap();
    browser.press("Retry failed");
    browser.until("text('#run-head .badge') === 'success'");
    for (task, attempts) in [("build", 1), ("check", 2), ("ship", 1)] {
        site.open(&format!("{run}/tasks/{task}"));
        assert_eq!(browser.value("Math.max(1, $$('[aria-label=Attempts] a').length)"), json!(attempts), "{task}");
    }
    site.open(&format!("{run}/tasks/check"));
    browser.press("Attempt 1");
    browser.until("text('#log')?.includes('it is broken')");

    // Those that are chosen are run again together.
    site.open(&run);
    browser.click("[name=pick][value=ship]");
    mark(browser);
    browser.click("#bulk [value=clear]");
    browser.until("window.marked === undefined && $('#run-head')");
    site.open(&format!("{run}/tasks/ship"));
    browser.until("$$('[aria-label=Attempts] a').length === 2");
    site.open("/runs");
    browser.click("[name=run]");
    browser.until("$('#bulk [value=retry]').checkVisibility({ visibilityProperty: true })");
    browser.is_quiet();
}

#[test]
fn a_retry_need_not_be_waited_for() {
    let place = Place::new();
    let mended = place.path("mended");
    let source = format!(
        "workflow: patient\ntasks:\n  call: {{run: 'test -e {}', retries: 3, retry_delay: 1h}}\n",
        mended.display()
    );
    let site = Site::at(place, &[("patient", &source)]);
    site.log_in();
    let browser = &site.browser;
    site.open("/workflows/patient/trigger");
    browser.press("Run");
    browser.until(&state_of("call", "up_for_retry"));
    browser.click("#task-call");
    browser.until("text('#task-head .badge') === 'up for retry'");

    std::fs::write(mended, "").unwrap();
    browser.press("Try now");
    browser.until("text('#task-head .badge') === 'success'");
    assert_eq!(browser.value("$$('[aria-label=Attempts] a').length"), json!(2));
    browser.is_quiet();
}

#[test]
fn a_run_is_cancelled_when_that_is_meant() {
    let place = Place::new();
    let gate = Gate::new(&place, "gate");
    let pid = place.path("pid");
    let source = format!(
        "workflow: long\ntasks:\n  work: {{run: 'echo $$ > {}; read -r line < {}'}}\n  later: {{needs: [work], run: 'true'}}\n",
        pid.display(),
        gate.path()
    );
    let site = Site::at(place, &[("long", &source)]);
    site.log_in();
    let browser = &site.browser;
    site.open("/workflows/long/trigger");
    browser.press("Run");
    browser.until(&state_of("work", "running"));
    browser.press("Cancel");
    browser.refuse();
    assert_eq!(browser.text("#run-head .badge"), "running");
    browser.press("Cancel");
    let asked = browser.agree();
    assert!(asked.starts_with("Cancel this run?"), "{asked}");
    browser.until("text('#run-head .badge') === 'cancelled'");
    assert_eq!(browser.text("#run-head .alert"), "cancelled by admin");
    browser.until("$$('form[action$=\"/cancel\"]').length === 0");
    let pid = std::fs::read_to_string(pid).unwrap();
    assert!(!std::path::Path::new("/proc").join(pid.trim()).exists(), "its process goes on");
    browser.is_quiet();
}

#[test]
fn a_workflow_is_paused_and_resumed_from_the_list_and_from_its_page() {
    let source = "workflow: hourly\nschedule: '@hourly'\ntasks: {a: {run: 'true'}}\n";
    let site = Site::entered(&[("hourly", source)]);
    let browser = &site.browser;
    let is_paused = || site.place.run("dags list --output json").ends(0).json()[0]["is_paused"].clone();
    browser.until("text('main').includes('hourly')");
    assert_eq!(browser.value("$$('main tbody time').length"), json!(1), "when it runs next");
    browser.press("Pause");
    browser.until("text('main tr.paused .chip') === 'paused'");
    assert_eq!(browser.value("$$('main tbody time').length"), json!(0), "it does not");
    assert_eq!(is_paused(), json!(true));
    browser.press("hourly");
    browser.until("location.pathname === '/workflows/hourly'");
    browser.press("Resume");
    browser.until("$$('main button').some((b) => b.textContent === 'Pause')");
    assert_eq!(is_paused(), json!(false));
    browser.is_quiet();
}

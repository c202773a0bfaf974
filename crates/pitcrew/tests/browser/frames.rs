//! What tasks made is shown in frames: an executed notebook, its HTML, the report, and files with whatever is in them.
//! No script of theirs runs, nothing leaves them, and they cannot reach the page around them.
//!
//! The attack reports to a port that the test listens at, and acts for the user at the server: neither may happen.

use std::io::Read as _;
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::driver::Browser;
use crate::harness::Place;
use crate::site::{Site, state_of};

/// What a notebook would do if it could: in scripts, on events, by loading something, by going elsewhere.
fn attack(spy: &str) -> String {
    format!(
        "<p id='made'>forty-two</p><script>window.ran = true; alert('ran'); \
         fetch('/api/v2/variables', {{method: 'POST', headers: {{'content-type': 'application/json'}}, body: '{{\"key\": \"taken\", \"value\": \"1\"}}'}}); \
         fetch('{spy}/fetch'); top.document.title = 'taken';</script>\
         <img src='{spy}/picture' onerror='window.ran = true'><img src='/api/v2/variables' onerror='alert(1)'>\
         <svg onload='alert(2)'></svg><details open ontoggle='alert(3)'></details>\
         <link rel='stylesheet' href='{spy}/style'><style>p {{ background: url({spy}/background) }}</style>\
         <iframe src='{spy}/frame'></iframe><iframe srcdoc='<script>top.document.title = `taken`</script>'></iframe>\
         <object data='{spy}/object'></object><video src='{spy}/video'></video>\
         <meta http-equiv='refresh' content='0;url={spy}/refresh'>\
         <form id='form' method='post' action='/logout' target='_top'></form><input form='form' type='submit' autofocus>"
    )
}

/// Python environments are kept from run to run, as those of the other tests are.
fn with_environments() -> Place {
    let cache = std::env::var_os("PITCREW_TEST_CACHE").map(std::path::PathBuf::from);
    let cache = cache.unwrap_or_else(|| std::env::temp_dir().join("pitcrew-test-cache")).join("python");
    std::fs::create_dir_all(&cache).unwrap();
    let place = Place::new();
    std::fs::create_dir_all(place.path("data")).unwrap();
    std::os::unix::fs::symlink(cache, place.path("data/environments")).unwrap();
    place
}

/// Nothing in the document that is open ran, and it has no way out. A dialog would fail whatever is asked next.
fn is_harmless(browser: &Browser) {
    assert_eq!(browser.value("window.ran === undefined"), json!(true), "a script ran");
    assert_eq!(browser.value("window.origin"), json!("null"), "it has an origin");
    let cookies = "try { return document.cookie; } catch (error) { return error.name; }";
    assert_eq!(browser.run(cookies, json!([])), json!("SecurityError"));
}

/// Goes into the frame of the page, and sees what is there, and that it is shut in.
fn is_shut_in(browser: &Browser, words: &str) {
    let title = browser.value("document.title");
    browser.until("$('iframe.file')");
    browser.enter("iframe.file");
    let shown = "(document.body ?? document.documentElement).textContent";
    browser.until(&format!("document.readyState === 'complete' && {shown}.includes({})", json!(words)));
    is_harmless(browser);
    let reach = "try { return parent.document.title; } catch (error) { return error.name; }";
    assert_eq!(browser.run(reach, json!([])), json!("SecurityError"));
    browser.leave();
    assert_eq!(browser.value("document.title"), title);
}

#[test]
fn an_executed_notebook_its_html_and_the_report_are_shown_and_can_do_nothing() {
    let spy = TcpListener::bind("127.0.0.1:0").unwrap();
    spy.set_nonblocking(true).unwrap();
    let attack = attack(&format!("http://{}", spy.local_addr().unwrap()));
    let place = with_environments();
    let show = format!("from IPython.display import HTML, display; display(HTML({}))", json!(attack));
    let cell = |source: &str| json!({"cell_type": "code", "metadata": {}, "source": source, "outputs": [], "execution_count": null});
    let notebook = json!({
        "cells": [cell("print('six times', 7)"), cell(&show)], "metadata": {}, "nbformat": 4, "nbformat_minor": 4,
    });
    place.file("given/in.ipynb", notebook.to_string());
    place.file("given/evil.html", format!("<!doctype html><title>evil</title><body>{attack}</body>"));
    let drawing = "<svg xmlns='http://www.w3.org/2000/svg'><text>forty-two</text><script>alert(4); window.ran = true</script></svg>";
    place.file("given/evil.svg", drawing);
    let source = format!(
        "workflow: study
workspaces: [results]
tasks:
  fetch: {{run: 'cp {}/in.ipynb . && cp {0}/evil.* results/'}}
  execute: {{needs: [fetch], uses: notebook, with: {{path: in.ipynb, output: results/out.ipynb}}}}
  convert: {{needs: [execute], uses: notebook.convert, with: {{notebook: results/out.ipynb}}}}
  report: {{needs: [convert], uses: report, with: {{title: '<script>window.ran = true</script>', notebook: results/figures.json, out: results/report}}}}
  keep: {{needs: [report], uses: artifact.publish, with: {{files: [results]}}}}
",
        place.path("given").display()
    );
    let site = Site::at(place, &[("study", &source)]);
    site.log_in();
    let browser = &site.browser;
    site.open("/workflows/study/trigger");
    browser.press("Run");
    browser.until_late(&format!("{} || text('#run-head .badge') === 'failed'", state_of("keep", "success")), 300);
    browser.until("text('#run-head .badge') !== 'running'");
    assert_eq!(browser.text("#run-head .badge"), "success", "{}", browser.text("#run-tasks"));

    browser.click("nav.tabs a[href$='/files']");
    browser.until("location.pathname.endsWith('/files')");
    assert_eq!(browser.text(".files-columns h2"), "report/report.html", "the report comes first");
    is_shut_in(browser, "<script>window.ran = true</script>");
    browser.is_quiet();

    for (file, words) in [
        ("out.html", "six times 7"),
        ("out.ipynb", "six times 7"),
        ("evil.html", "forty-two"),
        ("evil.svg", "forty-two"),
    ] {
        browser.press(file);
        browser.until(&format!("text('.files-columns h2') === {}", json!(file)));
        is_shut_in(browser, words);
        browser.enter("iframe.file");
        let is_there = "$$('script').some((script) => script.textContent.includes('window.ran'))";
        assert_eq!(browser.value(is_there), json!(true), "{file}: the attack is what is shown");
        browser.leave();
        // Alone in a window it can do no more.
        let (page, raw) = (browser.path(), browser.value("$('iframe.file').src"));
        browser.open(raw.as_str().unwrap());
        is_harmless(browser);
        site.open(&page);
    }
    // The browser says what it refused, and nothing else.
    for refusal in [
        "Blocked script execution",
        "violates the following Content Security Policy",
        "Blocked autofocusing",
        "Refused to execute the redirect",
    ] {
        browser.complaints(refusal);
    }
    browser.is_quiet();
    let made: Value = site.place.run("variables list --output json").ends(0).json();
    assert_eq!(made, json!([]), "it acted for the user");
    assert_eq!(browser.value("location.pathname.endsWith('/files/evil.svg')"), json!(true), "still logged in");
    // A browser may connect to what it then refuses to ask. What counts is whether it said anything until it ended.
    drop(site);
    let mut said = String::new();
    while let Ok((mut connection, _)) = spy.accept() {
        connection.set_nonblocking(false).unwrap();
        connection.read_to_string(&mut said).unwrap();
    }
    assert_eq!(said, "", "something was loaded from elsewhere");
}

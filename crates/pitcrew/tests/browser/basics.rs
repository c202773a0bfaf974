//! Every page, for everybody: in both themes, on a phone, by keyboard, for those who listen, and without jumping.
//!
//! The pages are found by following links from the first one, so a page that is new is looked at too.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::driver::{Browser, TAB};
use crate::harness::Place;
use crate::site::{Gate, Site, state_of};

const CHECKS: &str = include_str!("basics.js");
/// Names in it have digits, by which [`shape`] knows them.
const SOURCE: &str = r#"
workflow: daily1
description: A bit of everything
tags: [tag1]
schedule: '@daily'
params:
  name: {type: string, title: Name, description: What it is for, default: x}
  loud: {type: boolean, default: true}
  kind: {type: string, enum: [small, large], default: small}
  list: {type: array, items: {type: integer}, default: [1]}
  labels: {type: object, properties: {team: {type: string}}, default: {}}
tasks:
  make1: {run: 'echo "made"; echo "careful" >&2; printf "\033[31mred \033[32mgreen \033[33myellow \033[34mblue \033[90mgrey\033[0m\n"', outputs: {size: {from: stdout}}}
  each1: {needs: [make1], foreach: {n: [1, 2, 3]}, run: 'echo {{ item.n }}'}
  bad1: {needs: [make1], run: 'echo "it is broken" >&2; exit 3'}
  after1: {needs: [bad1], run: 'true'}
  group1: {tasks: {part1: {needs: [make1], run: 'mkdir -p out1; echo "<h1>page</h1>" > out1/report1.html; echo text > out1/notes1.txt'}}}
  away1: {queue: queue1, run: 'echo elsewhere'}
  keep1: {needs: [group1.part1], uses: artifact.publish, with: {files: [out1]}}
"#;
/// What an address says of the part of a list that is shown.
const PARTS: [&str; 6] = ["attempt", "at", "offset", "runs", "year", "tz"];
/// Stops of the focus on one page that are looked at.
const STOPS: usize = 100;

fn checked(browser: &Browser, check: &str) -> Vec<String> {
    let found = browser.run(&format!("{CHECKS}; return {check}();"), json!([]));
    serde_json::from_value(found).unwrap()
}

/// A page by its kind: what is a name in its address does not matter, nor which part of a list is shown.
fn shape(address: &str) -> String {
    let (path, query) = address.split_once('?').unwrap_or((address, ""));
    let is_name = |part: &str| part.contains(|c: char| c.is_ascii_digit() || c == '%' || c == '.');
    let path: Vec<&str> = path.split('/').map(|part| if is_name(part) { "*" } else { part }).collect();
    let keys = query.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    let keys: BTreeSet<&str> = keys.filter(|key| !PARTS.contains(key)).collect();
    format!("{}?{}", path.join("/"), keys.into_iter().collect::<Vec<_>>().join("&"))
}

/// What has a role that is for using or reading must say what it is.
fn nameless(browser: &Browser) -> Vec<String> {
    const ROLES: [&str; 15] = [
        "button",
        "link",
        "textbox",
        "searchbox",
        "combobox",
        "checkbox",
        "radio",
        "spinbutton",
        "listbox",
        "image",
        "img",
        "Iframe",
        "DisclosureTriangle",
        "dialog",
        "Date",
    ];
    let tree = browser.devtools("Accessibility.getFullAXTree", json!({}));
    let nodes = tree["nodes"].as_array().unwrap();
    assert!(nodes.len() > 5, "{tree}");
    let is_nameless = |node: &&Value| {
        node["ignored"] == json!(false)
            && node["role"]["value"].as_str().is_some_and(|role| ROLES.contains(&role))
            && node["name"]["value"].as_str().is_none_or(|name| name.trim().is_empty())
    };
    let words = |node: &Value| {
        let found = browser.devtools("DOM.describeNode", json!({ "backendNodeId": node["backendDOMNodeId"] }));
        format!("{} without a name: {}", node["role"]["value"], found["node"]["attributes"])
    };
    nodes.iter().filter(is_nameless).map(words).collect()
}

fn theme(browser: &Browser, scheme: &str) {
    let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
    browser.devtools("Emulation.setEmulatedMedia", json!({ "features": features }));
}

/// The page as it is on a phone, or on a desk.
fn on_phone(browser: &Browser, phone: bool) {
    let size = json!({ "width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": false });
    match phone {
        true => browser.devtools("Emulation.setDeviceMetricsOverride", size),
        false => browser.devtools("Emulation.clearDeviceMetricsOverride", json!({})),
    };
}

/// Everything that is wrong with the page that is open.
fn faults(browser: &Browser) -> Vec<String> {
    let mut wrong = checked(browser, "structure");
    wrong.extend(nameless(browser));
    for scheme in ["light", "dark"] {
        theme(browser, scheme);
        wrong.extend(checked(browser, "contrasts").into_iter().map(|fault| format!("{scheme}: {fault}")));
    }
    theme(browser, "light");
    on_phone(browser, true);
    wrong.extend(checked(browser, "overflow").into_iter().map(|fault| format!("on a phone: {fault}")));
    on_phone(browser, false);
    wrong
}

/// Goes through a part of the page with the Tab key: it leads to everything that can be used, and one sees where one is.
fn walk_by_tab(browser: &Browser, css: &str) -> Vec<String> {
    let stops = browser.run(&format!("{CHECKS}; return watch(arguments[0]);"), json!([css]));
    // Fields of dates have several stops each.
    let dates = browser.value("$$('input[type=date], input[type^=datetime]').length").as_u64().unwrap();
    let stops = stops.as_u64().unwrap() + 6 * dates;
    browser.keys(&TAB.repeat(usize::try_from(stops).unwrap().min(STOPS)));
    let mut reached = browser.value("window.reached()");
    let mut faults: Vec<String> = serde_json::from_value(reached["wrong"].take()).unwrap();
    let missed: Vec<String> = serde_json::from_value(reached["missed"].take()).unwrap();
    if stops <= STOPS as u64 {
        faults.extend(missed.iter().map(|stop| format!("Tab does not lead to {stop}")));
    }
    faults
}

/// How far things moved by themselves since the page was opened, as browsers measure it: 0 is not at all. And what did.
fn shifted(browser: &Browser) -> (f64, Value) {
    let script = "
        window.shifts ??= new Promise((done) => {
            const all = [];
            new PerformanceObserver((list) => { all.push(...list.getEntries()); }).observe({ type: 'layout-shift', buffered: true });
            // What was buffered comes before the next frame but one.
            requestAnimationFrame(() => requestAnimationFrame(() => done(all)));
        });
        const box = ({ x, y, width, height }) => [x, y, width, height].map(Math.round).join(' ');
        const part = ({ node, previousRect, currentRect }) => `${node?.nodeName}.${node?.className} ${node?.textContent?.trim().slice(0, 30)}: ${box(previousRect)} to ${box(currentRect)}`;
        return (async () => {
            const own = (await window.shifts).filter((shift) => !shift.hadRecentInput);
            return [own.reduce((sum, shift) => sum + shift.value, 0), own.flatMap((shift) => shift.sources.map(part))];
        })();";
    let mut found = browser.run(script, json!([]));
    (found[0].as_f64().unwrap(), found[1].take())
}

/// A site with something on each page.
fn full() -> Site {
    let mut site = Site::entered(&[("daily1", SOURCE), ("broken1", "workflow: broken1\ntasks: 3\n")]);
    site.add_worker("worker1", "queue1");
    let browser = &site.browser;
    for line in [
        "variables set key1 value1",
        "pools set pool1 3",
        "tokens create token1 --user admin",
        "connections add conn1 --conn-uri postgres://u:p@host:1/db",
    ] {
        site.place.run(line).ends(0);
    }
    browser.until("$('a[href$=\"/daily1/trigger\"]')");
    site.open("/workflows/daily1/trigger");
    browser.press("Run");
    browser.until("text('#run-head .badge') === 'failed'");
    site.place.run("dags backfill daily1 --from 2026-01-01 --to 2026-01-01").ends(0);
    // What is looked at stands still.
    site.open("/runs");
    browser.until("$$('main .list tbody tr').length === 2 && !$('main .list :is(.s-running, .s-queued)')");
    site
}

#[test]
fn every_page_is_readable_named_and_usable_by_keyboard_in_both_themes_and_on_a_phone() {
    let site = full();
    let browser = &site.browser;
    let mut open = vec!["/login".to_owned(), "/".to_owned(), "/there/is/no/such/page".to_owned()];
    let mut known: BTreeSet<String> = open.iter().map(|page| shape(page)).collect();
    let mut walked: BTreeSet<String> = BTreeSet::new();
    let mut wrong = Vec::new();
    let mut seen = 0;
    while let Some(page) = open.pop() {
        site.open(&page);
        let kind = shape(&page);
        seen += 1;
        if kind.contains("no/such") {
            browser.complained("404 (Not Found)");
        }
        let mut found = faults(browser);
        // Which part of its list a page shows changes nothing for the keyboard.
        if walked.insert(kind.split('?').next().unwrap_or_default().to_owned()) {
            found.extend(walk_by_tab(browser, "main"));
        }
        let (far, what) = shifted(browser);
        if far > 10.0 * JUMP {
            found.push(format!("it moved by {far}: {what:#}"));
        }
        wrong.extend(found.into_iter().map(|fault| format!("{page}: {fault}")));
        let links = browser
            .value("$$('a[href^=\"/\"], a[href^=\"?\"]').filter((a) => !a.target).map((a) => a.pathname + a.search)");
        for link in links.as_array().unwrap().iter().map(|link| link.as_str().unwrap()) {
            // Kept files and logs are served as they are.
            let is_page = !link.starts_with("/api/") && !link.starts_with("/logs/");
            if is_page && known.insert(shape(link)) {
                open.push(link.to_owned());
            }
        }
    }
    // What is only there when it is asked for.
    for (open, part) in [
        ("$('header .menu').open = true", "header"),
        ("$('header .menu.right').open = true", "header"),
        ("$('#keys').showModal()", "#keys"),
    ] {
        site.open("/");
        browser.run(&format!("{open};"), json!([]));
        let mut found = faults(browser);
        found.extend(walk_by_tab(browser, part));
        wrong.extend(found.into_iter().map(|fault| format!("with {open}: {fault}")));
    }
    wrong.extend(refused(&site));
    assert!(wrong.is_empty(), "{} faults on {seen} pages:\n{}", wrong.len(), wrong.join("\n"));
    assert!(seen > 40, "only {seen} pages: {known:#?}");
    browser.is_quiet();
}

/// Forms that are shown once more, with what is wrong with them.
fn refused(site: &Site) -> Vec<String> {
    let browser = &site.browser;
    site.open("/workflows/daily1/trigger");
    browser.run("$('[name=\"param.list\"]').value = '[1, \"x\"]';", json!([]));
    browser.click("main form .primary");
    browser.until("$('.field.wrong')");
    browser.complained("422 (Unprocessable");
    let mut found = faults(browser);
    found.extend(walk_by_tab(browser, "main"));
    found.into_iter().map(|fault| format!("the form that starts a run, refused: {fault}")).collect()
}

/// The most that a live page may move: a hundredth of what counts as good. While it comes, ten times as much.
const JUMP: f64 = 0.001;

#[test]
fn a_live_page_does_not_jump_when_something_changes() {
    let place = Place::new();
    let mut gate = Gate::new(&place, "gate");
    let mut source = "workflow: steps\ntasks:\n  t0: {run: 'true'}\n".to_owned();
    for task in 1..=12 {
        let line =
            format!("  t{task}: {{needs: [t{}], run: 'read -r line < {}; echo $line'}}\n", task - 1, gate.path());
        source.push_str(&line);
    }
    let site = Site::at(place, &[("steps", &source)]);
    site.log_in();
    let browser = &site.browser;
    site.open("/workflows/steps/trigger");
    browser.press("Run");
    browser.until(&state_of("t1", "running"));
    let run = browser.path();
    let done = "$$('main .shares rect, .grid-cells path').map((part) => part.outerHTML).join()";
    let mut task = 1;
    for (page, changed) in [
        (run.as_str(), "$$('.node.state-success').length"),
        (&run, "$$('.node.state-success').length"),
        ("/", done),
        ("/runs", done),
        ("/workflows/steps", done),
    ] {
        site.open(page);
        let (before, _) = shifted(browser);
        browser.run(&format!("window.before = {changed};"), json!([]));
        for _ in 0..2 {
            gate.say("on");
            task += 1;
        }
        browser.until(&format!("{changed} !== window.before"));
        let (far, what) = shifted(browser);
        assert!(far - before < JUMP, "{page} moved by {before}, then {far} before t{task}: {what:#}");
    }
    browser.is_quiet();
}

//! What a person does about an incident: lets a repair go ahead, says that the node is well, has it checked again.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::driver::Browser;
use crate::harness::Place;
use crate::site::{Site, is_same_page, mark};

/// What DCGM says of a GPU that a reset helps.
const BROKEN: &str = r#"{"DCGM Diagnostic":{"test_categories":[{"category":"Deployment","tests":[{"name":"software",
"results":[{"entity_group":"GPU","entity_group_id":1,"entity_id":0,"status":"Fail","warnings":[
{"warning":"row remappings are pending","error_id":85,"error_category":10,"error_severity":6}]}],
"test_summary":{"status":"Fail"}}]}]}}"#;
/// For what takes longer than a page.
const LATE: usize = 120;

/// The machine of the server: what is wrong with it, files in a directory say.
struct Machine(PathBuf);

impl Machine {
    fn new(place: &Place) -> Machine {
        let dir = place.path("bin");
        std::fs::create_dir(&dir).unwrap();
        let machine = Machine(dir);
        let at = machine.0.display();
        machine.script(
            "nvidia-smi",
            "[ \"$*\" = -q ] || echo '0, GPU-a, Disabled, 81920, 4, 35, 312.50, 61, NVIDIA A100-SXM4-80GB'",
        );
        machine.script("check", "[ -e broken ] && { cat broken; exit 1; }; exit 0");
        machine.script("reset", "[ -e lasting ] || rm -f broken");
        let commands = format!("{{check: \"sh '{at}/check'\", reset_gpu: \"sh '{at}/reset'\"}}");
        let deadlines = "{observe: 1s, recheck: 1s}";
        place.file(
            "pitcrew.yaml",
            format!("recovery:\n  mode: approve\n  deadlines: {deadlines}\n  commands: {commands}\n"),
        );
        machine
    }

    fn script(&self, name: &str, body: &str) {
        let script = format!("#!/bin/sh\ncd '{}' || exit 1\n{body}\n", self.0.display());
        // By a process of its own, so that no other one has it open for writing when it is run.
        let write = "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\"";
        let written = Command::new("/bin/sh").args(["-c", write]).arg(self.0.join(name)).arg(script).status();
        assert!(written.unwrap().success());
    }

    /// Breaks it, and lets the next task with a GPU fail by that.
    fn breaks(&self) {
        for (name, content) in [("broken", BROKEN), ("fail", "")] {
            std::fs::write(self.0.join(name), content).unwrap();
        }
    }
}

/// Starts a run that fails; its incident is found by way of the node.
fn fails(site: &Site, incident: &str) {
    let browser = &site.browser;
    site.open("/workflows/training/trigger");
    browser.press("Run");
    browser.until("$('#run-head')");
    site.open("/fleet");
    browser.until_late(&format!("text('#nodes a.badge') === '{incident}: awaiting approval'"), LATE);
    browser.click("#nodes a.badge");
    browser.until(&format!("location.pathname === '/incidents/{incident}'"));
    mark(browser);
}

/// What the page of the incident says of where it stands; it is the same page all the time.
fn until_it_is(browser: &Browser, state: &str) {
    browser.until_late(&format!("text('#incident .badge') === '{state}'"), LATE);
}

#[test]
fn a_repair_is_approved_a_node_is_said_to_be_well_and_one_is_checked_again() {
    let place = Place::new();
    let machine = Machine::new(&place);
    let fail = machine.0.join("fail");
    let source = format!(
        "workflow: training\ntasks:\n  train:\n    resources: {{gpu: 1}}\n    run: '! rm \"{}\" 2>/dev/null'\n",
        fail.display()
    );
    let site = Site::at(place, &[("training", &source)]);
    site.log_in();
    let browser = &site.browser;
    let watched = "return fetch('/metrics').then((answer) => answer.text()).then((text) => text.includes('pitcrew_nodes_watched 1\\n'));";
    while browser.run(watched, json!([])) != json!(true) {}

    machine.breaks();
    fails(&site, "inc-1");
    assert!(browser.text("#incident .alert").contains("approve a reset gpu of local"));
    browser.press("Approve: reset gpu");
    until_it_is(browser, "repaired");
    let page = browser.text("#incident");
    assert!(page.contains("approved by admin") && page.contains("row remappings are pending"), "{page}");
    assert_eq!(browser.value("$$('#incident form').length"), json!(0), "nothing is left to be done");
    // The attempt that it ended names it, and the one after that does not.
    browser.click("#incident a[href*='/tasks/train']");
    browser.until_late("text('#task-head .badge') === 'success'", LATE);
    assert!(!browser.text("#task-head").contains("inc-1"));
    browser.press("Attempt 1");
    browser.until("text('#task-head').includes('inc-1 of local, repaired')");
    browser.click("#task-head a[href='/incidents/inc-1']");
    until_it_is(browser, "repaired");

    machine.breaks();
    fails(&site, "inc-2");
    browser.press("Dismiss");
    browser.refuse();
    browser.press("Dismiss");
    let asked = browser.agree();
    assert!(asked.starts_with("Say that local is well?"), "{asked}");
    until_it_is(browser, "dismissed");
    site.open("/fleet/local");
    browser.until("text('#node .badge') === 'ready' && !$('#node .bar a.badge')");

    // A repair that does not help leaves the node to people.
    std::fs::write(machine.0.join("lasting"), "").unwrap();
    machine.breaks();
    fails(&site, "inc-3");
    browser.press("Approve: reset gpu");
    until_it_is(browser, "out of service");
    std::fs::remove_file(machine.0.join("broken")).unwrap();
    browser.press("Check again");
    browser.until_late("text('#incident .badge') === 'out of service' && !$('#incident form')", LATE);
    site.open("/fleet/local");
    browser.until_late("text('#node .badge') === 'ready'", LATE);
    mark(browser);
    let all = browser.text("#node ul.rows");
    assert!(all.contains("inc-4 passed") && all.contains("inc-1 repaired"), "{all}");
    is_same_page(browser);
    browser.is_quiet();
}

//! `dcgmi diag -r N -j`: of DCGM 3 and 4, of several iterations, with noise around it, or as a table.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::codes::{self, Said};
use super::diag_text::table;
use super::{Checker, Ended, Expected, Fault, Report, Verdict, text_of};
use crate::action::Action;
use crate::tables::{Category, Severity, Tables};
use crate::text::evidence;

/// Beginnings of JSON that are tried in an answer.
const MOST_TRIED: usize = 16;
const MOST_ITEMS: usize = 4096;

/// A test on some GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub test: String,
    pub status: Status,
    /// In DCGM's numbering; none: it is of the node.
    pub gpus: Vec<u32>,
    pub warnings: Vec<Warning>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Pass,
    Fail,
    Warn,
    Skip,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Warning {
    pub text: String,
    pub id: Option<u32>,
    pub severity: Option<Severity>,
    pub category: Option<Category>,
}

#[derive(Debug, Default)]
struct Found {
    items: Vec<Item>,
    /// GPUs that took part.
    gpus: BTreeSet<u32>,
    runtime_errors: Vec<String>,
}

impl Status {
    pub fn read(word: &str) -> Option<Status> {
        Some(match word.trim().to_ascii_lowercase().as_str() {
            "pass" => Status::Pass,
            "fail" => Status::Fail,
            "warn" | "warning" => Status::Warn,
            "skip" | "skipped" | "not run" => Status::Skip,
            _ => return None,
        })
    }
}

/// Reads a diagnosis.
pub fn read_diag(ended: &Ended, output: &[u8], expected: &Expected, tables: &Tables) -> Report {
    let text = text_of(output);
    let mut found = Found::default();
    match json(&text) {
        Some(root) => found.root(&root, 0),
        None => {
            found.items = table(&text);
            found.gpus.extend(found.items.iter().flat_map(|item| &item.gpus));
        }
    }
    found.items.truncate(MOST_ITEMS);
    let mut remarks = Vec::new();
    let verdict = found.verdict(ended, expected, tables, &mut remarks);
    remarks.truncate(16);
    Report { by: Checker::DcgmDiag, verdict, remarks }
}

/// The first object in a text that is a diagnosis.
fn json(text: &str) -> Option<Map<String, Value>> {
    text.match_indices('{').take(MOST_TRIED).find_map(|(at, _)| {
        let value = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>().next()?.ok()?;
        let Value::Object(object) = value else { return None };
        let known = ["DCGM Diagnostic", "DCGM GPU Diagnostic", "iterations", "test_categories", "runtime_error"];
        known.iter().any(|key| object.contains_key(*key)).then_some(object)
    })
}

impl Found {
    fn root(&mut self, root: &Map<String, Value>, depth: u8) {
        if let Some(Value::String(error)) = root.get("runtime_error") {
            self.runtime_errors.push(evidence(error));
        }
        for diagnosis in ["DCGM Diagnostic", "DCGM GPU Diagnostic"].iter().filter_map(|key| root.get(*key)?.as_object())
        {
            if depth < 2 {
                self.root(diagnosis, depth + 1);
            }
        }
        for iteration in array(root.get("iterations")).filter_map(Value::as_object) {
            if depth == 0 {
                self.root(iteration, depth + 1);
            }
        }
        for category in array(root.get("test_categories")) {
            for test in array(category.get("tests")) {
                self.test(test);
            }
        }
        for group in array(root.get("entity_groups")).filter(|group| is_gpu(group)) {
            let ids = array(group.get("entities")).filter_map(|entity| number(entity.get("entity_id")));
            self.gpus.extend(ids);
        }
    }

    fn test(&mut self, test: &Value) {
        let name = evidence(test.get("name").and_then(Value::as_str).unwrap_or("a test without a name"));
        let mut is_told = false;
        for result in array(test.get("results")) {
            let Some(status) = result.get("status").and_then(Value::as_str).and_then(Status::read) else { continue };
            let mut gpus: Vec<u32> = match result.get("gpu_ids").or_else(|| result.get("gpu_id")) {
                Some(Value::String(ids)) => ids.split([',', ' ']).filter_map(|id| id.parse().ok()).collect(),
                Some(id) => number(Some(id)).into_iter().collect(),
                None => number(result.get("entity_id")).filter(|_| is_gpu(result)).into_iter().collect(),
            };
            gpus.truncate(MOST_ITEMS);
            self.gpus.extend(&gpus);
            let warnings = warnings(result);
            is_told |= status == Status::Fail;
            self.items.push(Item { test: name.clone(), status, gpus, warnings });
        }
        // Where a test failed as a whole, only its summary says so.
        let Some(summary) = test.get("test_summary") else { return };
        let status = summary.get("status").and_then(Value::as_str).and_then(Status::read);
        if status == Some(Status::Fail) && !is_told {
            self.items.push(Item { test: name, status: Status::Fail, gpus: Vec::new(), warnings: warnings(summary) });
        }
    }

    fn verdict(&self, ended: &Ended, expected: &Expected, tables: &Tables, remarks: &mut Vec<String>) -> Verdict {
        let (said, why) = codes::said(ended);
        let (mut faults, mut unclear) = (Vec::new(), Vec::new());
        for item in &self.items {
            match item.status {
                Status::Pass | Status::Skip => {}
                Status::Fail | Status::Warn => item.weigh(expected, tables, &mut faults, &mut unclear, remarks),
            }
        }
        if let Said::Broken(action) = said
            && !faults.iter().any(|fault| fault.action.advice() >= action.advice())
        {
            faults.push(Fault { gpu: None, test: "dcgmi diag".to_owned(), error: None, action, text: why.clone() });
        }
        if !self.gpus.is_empty() {
            faults.extend(expected.devices.iter().filter(|device| !self.gpus.contains(&device.index)).map(missing));
        }
        if !faults.is_empty() {
            return Verdict::Fail { faults };
        }
        if let Said::NotRun(again_after) = said {
            return Verdict::Infrastructure { why, again_after };
        }
        if let Some(error) = self.runtime_errors.first() {
            return runtime_error(error);
        }
        if let Some(first) = unclear.first() {
            let more = if unclear.len() > 1 { format!(" (and {} more)", unclear.len() - 1) } else { String::new() };
            return Verdict::Inconclusive { why: format!("{first}{more}") };
        }
        let has_passed = self.items.iter().any(|item| item.status == Status::Pass);
        let has_failed = self.items.iter().any(|item| item.status == Status::Fail);
        match (said, ended.code()) {
            (Said::Nothing, _) => Verdict::Inconclusive { why },
            _ if self.items.is_empty() => codes::verdict(ended, "dcgmi diag"),
            _ if !has_passed => Verdict::Inconclusive { why: "all tests were left out".to_owned() },
            // Failures that ask for nothing explain that it found an error.
            (_, Some(226)) if !has_failed && remarks.is_empty() => {
                Verdict::Inconclusive { why: format!("{why}, and says of every test that it passed") }
            }
            (_, Some(205)) => {
                remarks.push(format!("{why}, and no test failed"));
                Verdict::Pass
            }
            _ => Verdict::Pass,
        }
    }
}

impl Item {
    /// Sorts what a test complains of into faults, what needs a person, and what is worth a remark.
    fn weigh(
        &self,
        expected: &Expected,
        tables: &Tables,
        faults: &mut Vec<Fault>,
        unclear: &mut Vec<String>,
        remarks: &mut Vec<String>,
    ) {
        let nothing = [Warning { text: "it failed".to_owned(), ..Warning::default() }];
        let warnings = if self.warnings.is_empty() { &nothing[..] } else { &self.warnings[..] };
        for warning in warnings {
            let known = warning.id.and_then(|id| tables.dcgm(id));
            let severity = warning.severity.or(known.map(|error| error.severity)).unwrap_or(Severity::Unknown);
            let action = match (known, warning.id) {
                (Some(error), _) => error.action,
                (None, Some(_)) => Action::ContactSupport,
                (None, None) => Action::RebootNode,
            };
            let text = format!("{}: {}", self.test, warning.text);
            let is_fatal = match (self.status, severity) {
                (Status::Warn, Severity::Isolate | Severity::Reset) => true,
                (Status::Warn, _) | (_, Severity::Monitor) => false,
                (Status::Fail | Status::Pass | Status::Skip, _) => true,
            };
            match action {
                _ if !is_fatal => remarks.push(text),
                Action::Ignore => remarks.push(text),
                // It failed for a reason that no repair changes: the configuration, a library, an environment.
                Action::ReportIssue | Action::UpdateSoftware | Action::CheckThermals => unclear.push(text),
                action => {
                    let fault = |gpu| Fault {
                        gpu,
                        test: self.test.clone(),
                        error: warning.id,
                        action,
                        text: warning.text.clone(),
                    };
                    if self.gpus.is_empty() {
                        faults.push(fault(None));
                    }
                    for index in &self.gpus {
                        let gpu = expected.by_index(*index);
                        let nameless = if gpu.is_none() { format!("GPU {index}: ") } else { String::new() };
                        let fault = fault(gpu);
                        faults.push(Fault { text: format!("{nameless}{}", fault.text), ..fault });
                    }
                }
            }
        }
    }
}

/// A GPU that should take part, and does not.
pub(super) fn missing(device: &super::Device) -> Fault {
    Fault {
        gpu: Some(device.uuid.clone()),
        test: "count of GPUs".to_owned(),
        error: None,
        action: Action::RebootNode,
        text: format!("GPU {} is not there", device.index),
    }
}

fn runtime_error(error: &str) -> Verdict {
    let lower = error.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let why = error.to_owned();
    if has(&[
        "already running",
        "in use",
        "busy",
        "connect",
        "host engine",
        "hostengine",
        "paused",
        "permission",
        "root",
    ]) {
        return Verdict::Infrastructure { why, again_after: 60 };
    }
    Verdict::Inconclusive { why }
}

fn warnings(result: &Value) -> Vec<Warning> {
    let mut all = Vec::new();
    for key in ["warnings", "warning"] {
        match result.get(key) {
            Some(Value::String(text)) => all.push(Warning { text: evidence(text), ..Warning::default() }),
            Some(Value::Array(list)) => all.extend(list.iter().take(64).map(warning)),
            Some(object @ Value::Object(_)) => all.push(warning(object)),
            Some(Value::Null | Value::Bool(_) | Value::Number(_)) | None => {}
        }
    }
    all
}

fn warning(value: &Value) -> Warning {
    let text = value.get("warning").and_then(Value::as_str).or(value.as_str()).unwrap_or("it failed");
    Warning {
        text: evidence(text),
        id: number(value.get("error_id")).filter(|id| *id != 0),
        severity: number(value.get("error_severity")).map(Severity::from_code),
        category: number(value.get("error_category")).map(Category::from_code),
    }
}

fn is_gpu(value: &Value) -> bool {
    value.get("entity_group").and_then(Value::as_str).is_none_or(|group| group.eq_ignore_ascii_case("gpu"))
}

fn array(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten().take(MOST_ITEMS)
}

/// A number, also where it is written as text.
fn number(value: Option<&Value>) -> Option<u32> {
    match value? {
        Value::Number(number) => u32::try_from(number.as_u64()?).ok(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

//! What lists and descriptions of Tekton's objects look like: plain texts of documents, in the words and columns of `tkn`.

use jiff::{SignedDuration, Timestamp};
use pitcrew_lang::tekton::model::GoDuration;
use serde_json::Value;

/// `5 seconds ago`.
pub fn age(at: Option<Timestamp>, now: Timestamp) -> String {
    let Some(at) = at else { return "---".to_owned() };
    let seconds = now.duration_since(at).as_secs().max(0);
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        86_400..604_800 => (seconds / 86_400, "day"),
        _ => (seconds / 604_800, "week"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// `1m30s`.
pub fn duration(start: Option<Timestamp>, end: Option<Timestamp>) -> String {
    match (start, end) {
        (Some(start), Some(end)) => {
            let seconds = end.duration_since(start).as_secs().max(0);
            GoDuration(SignedDuration::from_secs(seconds)).to_string()
        }
        _ => "---".to_owned(),
    }
}

/// `Succeeded`, `Failed(ParameterMissing)`, `Cancelled(Cancelled)`.
pub fn condition(document: &Value) -> String {
    let condition = &document["status"]["conditions"][0];
    let reason = condition["reason"].as_str().unwrap_or_default();
    let word = match condition["status"].as_str() {
        Some("True") => "Succeeded",
        Some("False") if reason == "Cancelled" || reason == "TaskRunCancelled" => "Cancelled",
        Some("False") => "Failed",
        Some(_) => "Running",
        None => return "---".to_owned(),
    };
    let says_it = reason == word && word != "Cancelled";
    if reason.is_empty() || says_it { word.to_owned() } else { format!("{word}({reason})") }
}

/// A time of a status.
pub fn time(document: &Value, field: &str) -> Option<Timestamp> {
    document["status"][field].as_str()?.parse().ok()
}

/// The columns of a run: name, when it began, how long it took, what became of it.
pub fn row(document: &Value, now: Timestamp) -> Vec<String> {
    let start = time(document, "startTime");
    vec![
        text(&document["metadata"]["name"]),
        age(start, now),
        duration(start, time(document, "completionTime")),
        condition(document),
    ]
}

/// Rows under headings, each column as wide as it must be.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(headings.get(column).map(|heading| heading.len())).max().unwrap_or(0)
    };
    let columns = headings.len().max(rows.iter().map(Vec::len).max().unwrap_or(0));
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", padded.join("   ").trim_end())
    };
    let head = (!headings.is_empty()).then(|| line(headings.to_vec()));
    head.into_iter().chain(rows.iter().map(|row| line(row.iter().map(String::as_str).collect()))).collect()
}

/// All that is worth saying of a PipelineRun or a TaskRun.
pub fn describe(document: &Value, children: &[Value], now: Timestamp) -> String {
    let (spec, status) = (&document["spec"], &document["status"]);
    let mut out = String::new();
    let mut line = |name: &str, value: &Value| {
        if let Some(value) = value.as_str().filter(|value| !value.is_empty()) {
            out.push_str(&format!("{:17}{value}\n", format!("{name}:")));
        }
    };
    line("Name", &document["metadata"]["name"]);
    line("Namespace", &document["metadata"]["namespace"]);
    line("Pipeline Ref", &spec["pipelineRef"]["name"]);
    line("Task Ref", &spec["taskRef"]["name"]);
    line("Service Account", &spec["serviceAccountName"]);
    line("Service Account", &spec["taskRunTemplate"]["serviceAccountName"]);
    line("Timeout", &spec["timeout"]);
    line("Timeout", &spec["timeouts"]["pipeline"]);
    for (title, map) in [("Labels", "labels"), ("Annotations", "annotations")] {
        let pairs = document["metadata"][map].as_object().into_iter().flatten();
        let pairs: Vec<String> = pairs.map(|(key, value)| format!(" {key}={}\n", text(value))).collect();
        if !pairs.is_empty() {
            out.push_str(&format!("{title}:\n{}", pairs.concat()));
        }
    }
    let mut section = |title: &str, body: String| {
        if !body.is_empty() {
            out.push_str(&format!("\n{title}\n\n{}", indented(&body)));
        }
    };
    section("Status", table(&["STARTED", "DURATION", "STATUS"], &[row(document, now)[1..].to_vec()]));
    let message = text(&status["conditions"][0]["message"]);
    section("Message", if message.is_empty() { message } else { format!("{message}\n") });
    section("Params", pairs(&spec["params"], "value"));
    section("Results", pairs(&status["results"], "value"));
    section("Workspaces", workspaces(&spec["workspaces"]));
    section("Steps", states(&status["steps"]));
    section("Sidecars", states(&status["sidecars"]));
    let rows: Vec<Vec<String>> = children
        .iter()
        .map(|child| {
            let mut row = row(child, now);
            row.insert(1, text(&child["metadata"]["labels"]["tekton.dev/pipelineTask"]));
            row
        })
        .collect();
    section(
        "TaskRuns",
        if rows.is_empty() {
            String::new()
        } else {
            table(&["NAME", "TASK NAME", "STARTED", "DURATION", "STATUS"], &rows)
        },
    );
    let skipped = list(&status["skippedTasks"]).map(|task| vec![text(&task["name"]), text(&task["reason"])]);
    let skipped: Vec<Vec<String>> = skipped.collect();
    section("Skipped Tasks", if skipped.is_empty() { String::new() } else { table(&["NAME", "REASON"], &skipped) });
    out
}

/// What a Pipeline or a Task asks for and gives.
pub fn describe_definition(document: &Value) -> String {
    let spec = &document["spec"];
    let mut out = format!("{:17}{}\n", "Name:", text(&document["metadata"]["name"]));
    out.push_str(&format!("{:17}{}\n", "Namespace:", text(&document["metadata"]["namespace"])));
    if let Some(description) = spec["description"].as_str().filter(|text| !text.is_empty()) {
        out.push_str(&format!("{:17}{}\n", "Description:", description.trim_end().replace('\n', " ")));
    }
    let mut section = |title: &str, headings: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            out.push_str(&format!("\n{title}\n\n{}", indented(&table(headings, &rows))));
        }
    };
    let or = |value: &Value, other: &str| if value.is_null() { other.to_owned() } else { text(value) };
    let params = list(&spec["params"]).map(|param| {
        let kind = or(&param["type"], if param["default"].is_array() { "array" } else { "string" });
        vec![text(&param["name"]), kind, text(&param["description"]), or(&param["default"], "---")]
    });
    section("Params", &["NAME", "TYPE", "DESCRIPTION", "DEFAULT VALUE"], params.collect());
    let results = list(&spec["results"]).map(|result| vec![text(&result["name"]), text(&result["description"])]);
    section("Results", &["NAME", "DESCRIPTION"], results.collect());
    let bound = list(&spec["workspaces"])
        .map(|space| vec![text(&space["name"]), text(&space["description"]), (space["optional"] == true).to_string()]);
    section("Workspaces", &["NAME", "DESCRIPTION", "OPTIONAL"], bound.collect());
    let steps = list(&spec["steps"]).map(|step| vec![or(&step["name"], "---"), or(&step["image"], "---")]);
    section("Steps", &["NAME", "IMAGE"], steps.collect());
    let tasks = list(&spec["tasks"]).map(|task| {
        let after: Vec<String> = list(&task["runAfter"]).map(text).collect();
        vec![text(&task["name"]), or(&task["taskRef"]["name"], "---"), after.join(", ")]
    });
    section("Tasks", &["NAME", "TASKREF", "RUNAFTER"], tasks.collect());
    out
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn indented(body: &str) -> String {
    body.lines().map(|line| format!(" {line}\n")).collect()
}

fn pairs(list_of: &Value, value: &str) -> String {
    let rows: Vec<Vec<String>> = list(list_of).map(|one| vec![text(&one["name"]), text(&one[value])]).collect();
    if rows.is_empty() { String::new() } else { table(&["NAME", "VALUE"], &rows) }
}

fn workspaces(bindings: &Value) -> String {
    let rows: Vec<Vec<String>> = list(bindings)
        .map(|binding| {
            let kinds = binding.as_object().into_iter().flatten();
            let bound = kinds.filter(|(key, _)| !["name", "subPath"].contains(&key.as_str()));
            let bound: Vec<String> = bound.map(|(kind, _)| kind.clone()).collect();
            vec![text(&binding["name"]), text(&binding["subPath"]), bound.join(", ")]
        })
        .collect();
    if rows.is_empty() { String::new() } else { table(&["NAME", "SUB PATH", "WORKSPACE BINDING"], &rows) }
}

fn states(containers: &Value) -> String {
    let rows: Vec<Vec<String>> = list(containers)
        .map(|one| {
            let state = match (&one["terminated"], &one["running"]) {
                (Value::Object(ended), _) => ended.get("reason").map(text).unwrap_or_default(),
                (_, Value::Object(_)) => "Running".to_owned(),
                _ => "---".to_owned(),
            };
            vec![text(&one["name"]), state]
        })
        .collect();
    if rows.is_empty() { String::new() } else { table(&["NAME", "STATUS"], &rows) }
}

/// A value on one line: a text as it is, everything else as JSON.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.trim_end().replace('\n', "\\n"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn run(name: &str, status: Value) -> Value {
        json!({ "kind": "PipelineRun", "metadata": { "name": name, "namespace": "ci" }, "spec": {}, "status": status })
    }

    fn ended(name: &str, status: &str, reason: &str) -> Value {
        let condition =
            json!([{ "type": "Succeeded", "status": status, "reason": reason, "message": "Tasks Completed: 1" }]);
        let (start, end) = ("2026-01-02T03:03:00.250Z", "2026-01-02T03:04:01.250Z");
        run(name, json!({ "conditions": condition, "startTime": start, "completionTime": end }))
    }

    #[test]
    fn runs_are_listed_in_the_columns_of_tkn() {
        let mut going = ended("b", "Unknown", "Running");
        going["status"]["completionTime"] = Value::Null;
        let runs = [
            ended("build-1", "True", "Succeeded"),
            ended("a", "False", "ParameterMissing"),
            ended("c", "False", "Cancelled"),
            ended("d", "True", "Completed"),
            going,
            run("new", json!({})),
        ];
        let rows: Vec<Vec<String>> = runs.iter().map(|run| row(run, now())).collect();
        let expected = "\
NAME      STARTED        DURATION   STATUS
build-1   1 minute ago   1m1s       Succeeded
a         1 minute ago   1m1s       Failed(ParameterMissing)
c         1 minute ago   1m1s       Cancelled(Cancelled)
d         1 minute ago   1m1s       Succeeded(Completed)
b         1 minute ago   ---        Running
new       ---            ---        ---
";
        assert_eq!(table(&["NAME", "STARTED", "DURATION", "STATUS"], &rows), expected);
    }

    #[test]
    fn a_run_is_described_with_what_it_was_given_and_what_it_gave() {
        let mut run = ended("build-1", "True", "Succeeded");
        run["metadata"]["labels"] = json!({ "team": "vision" });
        run["spec"] = json!({
            "pipelineRef": { "name": "build" },
            "params": [{ "name": "list", "value": ["a", "b"] }],
            "workspaces": [{ "name": "src", "subPath": "x", "persistentVolumeClaim": { "claimName": "c" } }],
        });
        run["status"]["results"] = json!([{ "name": "digest", "value": "sha\n" }]);
        run["status"]["skippedTasks"] = json!([{ "name": "deploy", "reason": "When Expressions evaluated to false" }]);
        let mut child = ended("build-1-compile", "True", "Succeeded");
        child["metadata"]["labels"] = json!({ "tekton.dev/pipelineTask": "compile" });
        let expected = r#"Name:            build-1
Namespace:       ci
Pipeline Ref:    build
Labels:
 team=vision

Status

 STARTED        DURATION   STATUS
 1 minute ago   1m1s       Succeeded

Message

 Tasks Completed: 1

Params

 NAME   VALUE
 list   ["a","b"]

Results

 NAME     VALUE
 digest   sha

Workspaces

 NAME   SUB PATH   WORKSPACE BINDING
 src    x          persistentVolumeClaim

TaskRuns

 NAME              TASK NAME   STARTED        DURATION   STATUS
 build-1-compile   compile     1 minute ago   1m1s       Succeeded

Skipped Tasks

 NAME     REASON
 deploy   When Expressions evaluated to false
"#;
        assert_eq!(describe(&run, &[child], now()), expected);
    }

    #[test]
    fn ages_have_one_unit() {
        let ago = |seconds| age(Some(now() - SignedDuration::from_secs(seconds)), now());
        let all = [0, 1, 59, 60, 7200, 86_400, 2_000_000].map(ago);
        assert_eq!(
            all,
            [
                "0 seconds ago",
                "1 second ago",
                "59 seconds ago",
                "1 minute ago",
                "2 hours ago",
                "1 day ago",
                "3 weeks ago"
            ]
        );
    }
}

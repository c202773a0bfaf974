//! `yaml.read`: a file of names and single values, such as one of versions, as an output; here or on a host.
//!
//! Invariant: a value is the text that stands in the file, so `10.0` is not `10`. On a host the file is only copied, by a
//! script that has its name from the environment; it is read here.

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use pitcrew_core::state::{EX_CONFIG, Exit};
use pitcrew_exec::{Command, Ended, StepSpec};
use pitcrew_lang::OnHosts;
use serde_json::{Map, Value, json};

use super::{Action, Call, Job, Plan, WrongInput, object, write_outputs};

/// The largest file, in bytes.
const LARGEST: usize = 1 << 20;
/// The output by which a host hands the file over.
const FILE: &str = "pitcrew_file";
const SCRIPT: &str = include_str!("yaml_read.sh");

pub struct YamlRead;

impl Action for YamlRead {
    fn name(&self) -> &'static str {
        "yaml.read"
    }

    fn schema(&self) -> Value {
        object(
            &["path"],
            json!({
                "path": { "type": "string", "minLength": 1, "description": "The file, relative to the workspace root, or on a host to where its tasks start; there it may be absolute." }
            }),
        )
    }

    fn on_hosts(&self) -> OnHosts {
        OnHosts::Possibly
    }

    fn plan(&self, call: &Call<'_>) -> Result<Plan, String> {
        let path = call.with["path"].as_str().unwrap_or_default();
        if path.is_empty() || path.chars().any(char::is_control) {
            return Err(format!("{path:?} cannot be the name of a file"));
        }
        if call.place.is_none() {
            return Ok(Plan::process(call.with.clone()));
        }
        let script = Command::Script { text: SCRIPT.to_owned(), interpreter: vec!["/bin/sh".to_owned()] };
        let mut step = StepSpec::new(self.name(), script);
        step.env.insert("PITCREW_READ_FILE".to_owned(), path.to_owned());
        step.env.insert("PITCREW_READ_TO".to_owned(), FILE.to_owned());
        Ok(Plan::Remote(vec![step]))
    }

    fn conclude(&self, with: &Value, ended: &mut Ended) {
        let Some(Value::String(text)) = ended.outputs.remove(FILE) else {
            return refuse(ended, "the host did not hand the file over".to_owned());
        };
        match outputs(with["path"].as_str().unwrap_or("the file"), &text) {
            Ok(outputs) => ended.outputs.extend(outputs),
            Err(why) => refuse(ended, why),
        }
    }

    fn execute(&self, job: Job) -> anyhow::Result<ExitCode> {
        let path = job.with["path"].as_str().unwrap_or_default();
        let text = read_file(path)?;
        let outputs = outputs(path, &text).map_err(WrongInput)?;
        println!("{} values in `{path}`", outputs["count"]);
        write_outputs(&Value::Object(outputs))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn read_file(path: &str) -> anyhow::Result<String> {
    let missing = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => anyhow::Error::new(WrongInput(absent(Path::new(path)))),
        _ => anyhow::Error::new(error).context(format!("cannot read `{path}`")),
    };
    if !std::fs::metadata(path).map_err(missing)?.is_file() {
        return Err(WrongInput(format!("`{path}` is no file")).into());
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(missing)?
        .take(LARGEST as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read `{path}`"))?;
    if bytes.len() > LARGEST {
        return Err(WrongInput(format!("`{path}` is larger than 1 MiB; that is no file of values")).into());
    }
    String::from_utf8(bytes).map_err(|_| WrongInput(format!("`{path}` is not a text in UTF-8")).into())
}

/// What is there instead.
fn absent(path: &Path) -> String {
    let shown = path.display();
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(dir) else {
        return format!("there is no file `{shown}`, nor a directory `{}`", dir.display());
    };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names.truncate(10);
    let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    format!("there is no file `{shown}`; its directory holds {names}")
}

fn outputs(path: &str, text: &str) -> Result<Map<String, Value>, String> {
    let values: Map<String, Value> =
        pitcrew_lang::yaml::texts(text, path)?.into_iter().map(|(name, text)| (name, Value::String(text))).collect();
    let outputs = json!({ "count": values.len(), "values": values });
    Ok(outputs.as_object().cloned().unwrap_or_default())
}

/// Ends the attempt as one whose input is wrong.
fn refuse(ended: &mut Ended, why: String) {
    ended.exit = Exit::Code { code: EX_CONFIG };
    ended.failed_step = Some(YamlRead.name().to_owned());
    ended.tail = format!("error: {why}");
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn concluded(outputs: &[(&str, &str)]) -> Ended {
        let mut ended = Ended::bare(Exit::Code { code: 0 }, Timestamp::UNIX_EPOCH);
        ended.outputs = outputs.iter().map(|(k, v)| (k.to_string(), json!(v))).collect();
        YamlRead.conclude(&json!({ "path": "www/version.yaml" }), &mut ended);
        ended
    }

    #[test]
    fn a_file_of_a_host_becomes_values_or_a_failure_that_lasts() {
        let ended = concluded(&[(FILE, "a: 10.0\nb: two\n")]);
        assert!(ended.exit.is_success());
        assert_eq!(
            serde_json::to_value(ended.outputs).unwrap(),
            json!({"count": 2, "values": {"a": "10.0", "b": "two"}})
        );
        for (outputs, told) in [
            (&[(FILE, "- a\n")][..], "error: www/version.yaml:1:1: it must be a mapping"),
            (&[(FILE, "a: {b: c}\n")], "error: www/version.yaml:1:4: `a` must be a single value"),
            (&[], "did not hand the file over"),
        ] {
            let ended = concluded(outputs);
            assert_eq!((ended.exit.code(), ended.outputs.len()), (Some(EX_CONFIG), 0));
            assert!(ended.tail.contains(told), "{}", ended.tail);
        }
    }

    #[test]
    fn what_is_no_file_of_values_is_told_with_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(path("other.yaml"), "a: 1\n").unwrap();
        std::fs::write(path("big"), vec![b'#'; LARGEST + 1]).unwrap();
        std::fs::write(path("binary"), [0xff, 0xfe]).unwrap();
        assert_eq!(read_file(&path("other.yaml")).unwrap(), "a: 1\n");
        for (name, told) in [
            ("version.yaml", "its directory holds big, binary, other.yaml"),
            ("gone/version.yaml", "nor a directory"),
            (".", "is no file"),
            ("big", "larger than 1 MiB"),
            ("binary", "not a text in UTF-8"),
        ] {
            let error = read_file(&path(name)).unwrap_err();
            assert!(error.is::<WrongInput>() && error.to_string().contains(told), "{error:#}");
        }
    }
}

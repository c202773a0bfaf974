//! What a command ends with, and how its error is shown.
//!
//! Exit status: 0 success, 1 something failed, 2 the input was refused and nothing was done.

use std::process::ExitCode;

use pitcrew_control::app::TriggerError;
use pitcrew_control::config::ConfigError;
use pitcrew_control::lookup::LookupError;
use pitcrew_lang::{Diagnostic, render_all};

use super::ui::Ui;

pub const FAILED: u8 = 1;
pub const INVALID: u8 = 2;

/// The input is at fault: exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// The input is at fault, each problem with its place: exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("the file is not right")]
pub struct BadFile(pub Vec<Diagnostic>);

/// Everything was said already.
#[derive(Debug, thiserror::Error)]
#[error("failed")]
pub struct Silent(pub u8);

/// An error for wrong input.
pub fn invalid(message: impl Into<String>) -> anyhow::Error {
    Invalid(message.into()).into()
}

/// An error for wrong input, out of one that says so in its own words.
pub fn refused(error: impl std::fmt::Display) -> anyhow::Error {
    Invalid(format!("{error:#}")).into()
}

impl From<TriggerError> for Invalid {
    fn from(error: TriggerError) -> Self {
        Invalid(error.to_string())
    }
}

/// A trigger that was refused is wrong input; one that could not be stored is a failure.
pub fn trigger(error: TriggerError) -> anyhow::Error {
    match error {
        TriggerError::Store(error) => error.into(),
        TriggerError::Other(error) => error,
        TriggerError::Params(problems) => {
            let missing: Vec<String> = problems
                .iter()
                .filter(|p| p.message.ends_with("is missing"))
                .map(|p| format!("`-p {}=…`", p.param))
                .collect();
            let hint = if missing.is_empty() { String::new() } else { format!("\nhint: give {}", missing.join(" ")) };
            invalid(format!("{}{hint}", TriggerError::Params(problems)))
        }
        refused => Invalid::from(refused).into(),
    }
}

/// What a person named is not there: wrong input.
pub fn lookup(error: LookupError) -> anyhow::Error {
    match error {
        LookupError::Missing(message) => invalid(message),
        LookupError::Store(error) => error.into(),
    }
}

pub fn config(error: ConfigError) -> anyhow::Error {
    match error {
        ConfigError::File(problems) => BadFile(problems).into(),
        ConfigError::Other(error) => refused(error),
    }
}

/// Shows the error and gives its exit status.
pub fn finish(result: anyhow::Result<ExitCode>, ui: &Ui) -> ExitCode {
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    if let Some(Silent(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    if error.downcast_ref::<super::ui::Closed>().is_some() {
        // Whoever read our output has seen enough, as in `pitcrew logs 1 | head`.
        return ExitCode::SUCCESS;
    }
    if let Some(BadFile(problems)) = error.downcast_ref() {
        eprint_quietly(&render_all(problems, ui.err.on));
        return ExitCode::from(INVALID);
    }
    let text = format!("{error:#}");
    let (message, hint) = split_hint(&text);
    let mut shown = format!("{} {}\n", ui.err.red("error:"), message.trim_end());
    if let Some(hint) = hint {
        shown.push_str(&format!("{} {}\n", ui.err.cyan("hint:"), hint.trim()));
    }
    eprint_quietly(&shown);
    let is_input = error.downcast_ref::<Invalid>().is_some();
    ExitCode::from(if is_input { INVALID } else { FAILED })
}

/// A message may end in a line `hint: …`.
fn split_hint(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once("\nhint: ") {
        Some((message, hint)) => (message, Some(hint)),
        None => (text, None),
    }
}

fn eprint_quietly(text: &str) {
    use std::io::Write;
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

//! `variables`: values that workflows read and write, in Airflow's words.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use pitcrew_lang::diagnostic::closest;
use pitcrew_store::{Variable, VariableSet};
use serde_json::{Map, Value, json};

use super::error::{invalid, refused};
use super::target::Target;
use super::{Output, format, load};

/// List, read and set variables
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct VariablesArgs {
    #[command(subcommand)]
    command: VariablesCommand,
}

#[derive(Debug, clap::Subcommand)]
enum VariablesCommand {
    /// List all variables
    List(Output),
    /// Print the value of a variable
    Get { key: String },
    /// Set a variable
    Set {
        key: String,
        /// The value; `-` reads it from stdin
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Delete a variable
    Delete { key: String },
    /// Set variables from a JSON or YAML file, as `export` writes it
    Import { file: PathBuf },
    /// Write all variables as one JSON document
    Export {
        /// The file to write; stdout unless given
        file: Option<PathBuf>,
    },
}

pub async fn command(args: VariablesArgs, target: Target) -> anyhow::Result<ExitCode> {
    let ui = target.ui();
    match args.command {
        VariablesCommand::List(output) => {
            let all = target.variables().await?;
            if output.is_json() {
                let shown = |v: &Variable| json!({ "key": v.key, "value": v.value, "description": v.description });
                ui.json(&all.iter().map(shown).collect::<Vec<_>>())?;
            } else if all.is_empty() {
                ui.say("no variables");
            } else {
                let row = |v: &Variable| vec![v.key.clone(), short(&v.value), short(&v.description)];
                ui.table(&["key", "value", "description"], all.iter().map(row).collect())?;
            }
        }
        VariablesCommand::Get { key } => match target.variable(&key).await? {
            Some(variable) => ui.line(variable.value)?,
            None => return Err(missing(&key, &target).await),
        },
        VariablesCommand::Set { key, value, description } => {
            let value = match value.as_str() {
                "-" => stdin()?,
                _ => value,
            };
            target.set_variable(VariableSet { key: key.clone(), value, description }).await?;
            target.changed().await;
            ui.say(format!("set `{key}`"));
        }
        VariablesCommand::Delete { key } => {
            if !target.delete_variable(&key).await? {
                return Err(missing(&key, &target).await);
            }
            target.changed().await;
            ui.say(format!("deleted `{key}`"));
        }
        VariablesCommand::Import { file } => {
            let sets = import(&file)?;
            let count = sets.len() as u64;
            for variable in sets {
                target.set_variable(variable).await?;
            }
            target.changed().await;
            ui.say(format!("set {} from `{}`", format::plural(count, "variable"), file.display()));
        }
        VariablesCommand::Export { file } => {
            let entry = |v: Variable| {
                let value = match v.description.is_empty() {
                    true => Value::String(v.value),
                    false => json!({ "value": v.value, "description": v.description }),
                };
                (v.key, value)
            };
            let document: Map<String, Value> = target.own_variables().await?.into_iter().map(entry).collect();
            load::export(ui, &document, file.as_deref(), "variable")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn missing(key: &str, target: &Target) -> anyhow::Error {
    let known = target.variables().await.unwrap_or_default();
    let hint = match closest(key, known.iter().map(|variable| variable.key.as_str())) {
        Some(meant) => format!("\nhint: did you mean `{meant}`?"),
        None => String::new(),
    };
    invalid(format!("there is no variable `{key}`{hint}"))
}

/// What is typed or piped, without the last line break.
pub fn stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| refused(format!("cannot read stdin: {error}")))?;
    Ok(text.strip_suffix('\n').map(str::to_owned).unwrap_or(text))
}

/// `{"key": "text"}`, `{"key": {"value": …, "description": …}}`; a value that is no text is kept as JSON.
fn import(file: &std::path::Path) -> anyhow::Result<Vec<VariableSet>> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let entry = |(key, value): (String, Value)| match value.get("value") {
        Some(inner) => {
            let description = value.get("description").filter(|d| !d.is_null()).map(text);
            VariableSet { key, value: text(inner), description }
        }
        None => VariableSet { key, value: text(&value), description: None },
    };
    Ok(load::object(file, "variables")?.into_iter().map(entry).collect())
}

/// The beginning of a value, on one line.
fn short(text: &str) -> String {
    let line = format::one_line(&text.replace('\n', " "));
    if line.chars().count() <= 60 { line } else { line.chars().take(59).chain(['…']).collect() }
}

//! `connections`: how to reach other systems, in Airflow's words.
//!
//! Secrets come from a URI or JSON on stdin or in a file, or from a flag for those who accept that others on this machine
//! can read it; they are shown by nothing but `export`, here, where the key is.

use std::path::PathBuf;
use std::process::ExitCode;

use pitcrew_control::connection::Connection;
use pitcrew_lang::diagnostic::closest;
use serde_json::{Map, Value, json};

use super::error::{invalid, refused};
use super::target::Target;
use super::{Output, format, load, variables};

/// List, read and set connections
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct ConnectionsArgs {
    #[command(subcommand)]
    command: ConnectionsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ConnectionsCommand {
    /// List all connections, without their secrets
    List {
        /// Only this one
        #[arg(long, value_name = "ID")]
        conn_id: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Show a connection, without its secrets
    Get {
        id: String,
        #[command(flatten)]
        output: Output,
    },
    /// Make a connection
    Add(AddArgs),
    /// Sign in to the host of a connection of the type `ssh`, and say who answers
    Test {
        id: String,
        #[command(flatten)]
        output: Output,
    },
    /// Delete a connection
    Delete { id: String },
    /// Set connections from a JSON or YAML file, as `export` writes it
    Import {
        file: PathBuf,
        /// Replace connections that are there
        #[arg(long)]
        overwrite: bool,
    },
    /// Write all connections as one JSON document, with their secrets where they are known
    Export {
        /// The file to write; stdout unless given
        file: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    id: String,
    /// All of it as `type://login:password@host:port/schema?extra=…`; `-` reads it from stdin
    #[arg(long, value_name = "URI", conflicts_with_all = ["conn_json", "conn_type"])]
    conn_uri: Option<String>,
    /// All of it as a JSON object; `-` reads it from stdin
    #[arg(long, value_name = "JSON", conflicts_with = "conn_type")]
    conn_json: Option<String>,
    /// What it leads to, such as `ssh`, `postgres`, `slack`
    #[arg(long, value_name = "TYPE", required_unless_present_any = ["conn_uri", "conn_json"])]
    conn_type: Option<String>,
    #[arg(long, value_name = "TEXT")]
    conn_description: Option<String>,
    #[arg(long, value_name = "NAME")]
    conn_host: Option<String>,
    #[arg(long, value_name = "NAME")]
    conn_login: Option<String>,
    /// The password; `-` reads it from stdin, where nobody else sees it
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    conn_password: Option<String>,
    #[arg(long, value_name = "NAME")]
    conn_schema: Option<String>,
    #[arg(long, value_name = "N")]
    conn_port: Option<u16>,
    /// More, as a JSON object
    #[arg(long, value_name = "JSON")]
    conn_extra: Option<String>,
    /// Replace one that is there
    #[arg(long)]
    overwrite: bool,
}

pub async fn command(args: ConnectionsArgs, target: Target) -> anyhow::Result<ExitCode> {
    let ui = target.ui();
    match args.command {
        ConnectionsCommand::List { conn_id: Some(id), output } | ConnectionsCommand::Get { id, output } => {
            let found = find(&target, &id).await?;
            show(&target, vec![found], output)?;
        }
        ConnectionsCommand::List { conn_id: None, output } => {
            let all = target.connections().await?;
            if all.is_empty() && !output.is_json() {
                ui.say("no connections");
            } else {
                show(&target, all, output)?;
            }
        }
        ConnectionsCommand::Add(args) => {
            let overwrite = args.overwrite;
            let connection = read(args)?;
            let id = connection.id.clone();
            if !overwrite && target.connection(&id).await?.is_some() {
                return Err(invalid(format!(
                    "there is a connection `{id}` already\nhint: replace it with `--overwrite`"
                )));
            }
            target.put_connection(connection).await?;
            target.changed().await;
            ui.say(format!("set the connection `{id}`"));
        }
        ConnectionsCommand::Test { id, output } => return test(&target, &id, output).await,
        ConnectionsCommand::Delete { id } => {
            if !target.delete_connection(&id).await? {
                find(&target, &id).await?;
            }
            target.changed().await;
            ui.say(format!("deleted the connection `{id}`"));
        }
        ConnectionsCommand::Import { file, overwrite } => import(&target, &file, overwrite).await?,
        ConnectionsCommand::Export { file } => {
            let all = target.own_connections().await?;
            let document: Map<String, Value> = all.into_iter().map(|c| (c.id.clone(), c.to_json())).collect();
            if !target.knows_secrets() && !document.is_empty() {
                ui.warn("a server does not give secrets away: passwords are missing in this export");
            }
            load::export(ui, &document, file.as_deref(), "connection")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn find(target: &Target, id: &str) -> anyhow::Result<Connection> {
    if let Some(found) = target.connection(id).await? {
        return Ok(found);
    }
    let known = target.connections().await.unwrap_or_default();
    let hint = match closest(id, known.iter().map(|connection| connection.id.as_str())) {
        Some(meant) => format!("\nhint: did you mean `{meant}`?"),
        None => String::new(),
    };
    Err(invalid(format!("there is no connection `{id}`{hint}")))
}

async fn test(target: &Target, id: &str, output: Output) -> anyhow::Result<ExitCode> {
    let connection = find(target, id).await?;
    let tested = target.test_connection(connection).await?;
    let ui = target.ui();
    if output.is_json() {
        ui.json(&tested)?;
    } else if tested.status {
        ui.say(&tested.message);
        let new = if tested.host_is_new { " (new: it is recorded)" } else { "" };
        let lines = [
            ("time", tested.connect_seconds.map(|seconds| format!("{seconds:.3} s"))),
            ("host key", tested.host_key.map(|key| format!("{key}{new}"))),
            ("signed in with", tested.key),
            ("server", tested.software),
        ];
        for (what, text) in lines {
            ui.line(format!("{what}: {}", format::one_line(&text.unwrap_or_default())))?;
        }
    } else {
        anyhow::bail!("the connection `{id}` does not work: {}", tested.message);
    }
    Ok(if tested.status { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(target: &Target, connections: Vec<Connection>, output: Output) -> anyhow::Result<()> {
    if output.is_json() {
        let shown = |c: &Connection| {
            json!({
                "conn_id": c.id, "conn_type": c.conn_type, "description": c.description, "host": c.host,
                "schema": c.schema, "login": c.login, "port": c.port, "has_password": c.password.is_some(),
                "has_extra": c.extra.is_some(),
            })
        };
        return target.ui().json(&connections.iter().map(shown).collect::<Vec<_>>());
    }
    let secrets = |c: &Connection| match (c.password.is_some(), c.extra.is_some()) {
        (true, true) => "password, extra",
        (true, false) => "password",
        (false, true) => "extra",
        (false, false) => "-",
    };
    let row = |c: &Connection| {
        let port = c.port.map_or_else(String::new, |port| format!(":{port}"));
        let host = format::one_line(&format!("{}{port}", c.host));
        let login = format::one_line(&c.login);
        vec![c.id.clone(), c.conn_type.clone(), host, login, secrets(c).to_owned(), format::one_line(&c.description)]
    };
    target.ui().table(
        &["connection", "type", "host", "login", "secrets", "description"],
        connections.iter().map(row).collect(),
    )
}

/// The connection that the flags say.
fn read(args: AddArgs) -> anyhow::Result<Connection> {
    let typed = |text: String| if text == "-" { variables::stdin() } else { Ok(text) };
    let wrong = |flag: &'static str| move |error: anyhow::Error| invalid(format!("`{flag}` {error}"));
    if let Some(uri) = args.conn_uri {
        return Connection::from_uri(&args.id, typed(uri)?.trim()).map_err(wrong("--conn-uri"));
    }
    if let Some(text) = args.conn_json {
        let value: Value = serde_json::from_str(&typed(text)?).map_err(|error| {
            invalid(format!("`--conn-json` is not JSON (line {}, column {})", error.line(), error.column()))
        })?;
        return Connection::from_json(&args.id, &value).map_err(wrong("--conn-json"));
    }
    let mut connection = Connection {
        id: args.id,
        conn_type: args.conn_type.unwrap_or_default(),
        description: args.conn_description.unwrap_or_default(),
        host: args.conn_host.unwrap_or_default(),
        schema: args.conn_schema.unwrap_or_default(),
        login: args.conn_login.unwrap_or_default(),
        port: args.conn_port,
        password: args.conn_password.map(typed).transpose()?,
        extra: None,
    };
    connection.set_extra(args.conn_extra).map_err(wrong("--conn-extra"))?;
    Ok(connection)
}

/// All of the file is read before anything is set.
async fn import(target: &Target, file: &std::path::Path, overwrite: bool) -> anyhow::Result<()> {
    let mut connections = Vec::new();
    for (id, value) in load::object(file, "connections")? {
        let read = Connection::from_json(&id, &value);
        connections.push(read.map_err(|error| refused(format!("`{id}` in `{}`: {error:#}", file.display())))?);
    }
    let (mut set, mut kept) = (0, 0);
    for connection in connections {
        if !overwrite && target.connection(&connection.id).await?.is_some() {
            kept += 1;
            continue;
        }
        target.put_connection(connection).await?;
        set += 1;
    }
    target.changed().await;
    let ui = target.ui();
    ui.say(format!("set {} from `{}`", format::plural(set, "connection"), file.display()));
    if kept > 0 {
        ui.hint(format!("{} were there already and stay; replace them with `--overwrite`", format::count(kept)));
    }
    Ok(())
}

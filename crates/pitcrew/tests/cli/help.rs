//! Every command explains itself.

use crate::harness::Place;
use crate::snapshot;

const COMMANDS: &[&str] = &[
    "",
    "run",
    "demo",
    "server",
    "worker",
    "validate",
    "graph",
    "explain",
    "simulate",
    "simulate faults",
    "runs",
    "runs list",
    "runs show",
    "runs cancel",
    "runs retry",
    "runs resume",
    "logs",
    "report",
    "report digest",
    "dags",
    "dags list",
    "dags details",
    "dags list-runs",
    "dags state",
    "dags trigger",
    "dags pause",
    "dags unpause",
    "dags backfill",
    "backfill",
    "backfill create",
    "backfill list",
    "backfill pause",
    "backfill unpause",
    "backfill cancel",
    "tasks",
    "tasks list",
    "tasks state",
    "tasks states-for-dag-run",
    "tasks clear",
    "variables",
    "variables list",
    "variables get",
    "variables set",
    "variables delete",
    "variables import",
    "variables export",
    "secrets",
    "secrets get",
    "secrets put",
    "secrets test",
    "connections",
    "connections list",
    "connections get",
    "connections add",
    "connections delete",
    "connections import",
    "connections export",
    "nodes",
    "nodes list",
    "nodes show",
    "nodes cordon",
    "nodes drain",
    "nodes uncordon",
    "nodes label",
    "nodes taint",
    "workers",
    "workers list",
    "workers show",
    "workers token",
    "workers tokens",
    "workers tokens list",
    "workers tokens revoke",
    "workers drain",
    "workers undrain",
    "workers revoke",
    "quotas",
    "quotas list",
    "quotas show",
    "quotas set",
    "quotas delete",
    "pools",
    "pools list",
    "pools get",
    "pools set",
    "pools delete",
    "pools import",
    "pools export",
    "notify",
    "notify test",
    "notify list",
    "notify retry",
    "users",
    "users list",
    "users create",
    "users set-role",
    "users set-password",
    "users deactivate",
    "users activate",
    "users delete",
    "tokens",
    "tokens list",
    "tokens create",
    "tokens revoke",
    "images",
    "images verify",
    "config",
    "config show",
    "doctor",
    "aws",
    "aws jobs",
    "aws import",
    "schema",
    "completions",
    "version",
    "runs list --help",
    "dags trigger --help",
];

#[test]
fn every_command_has_a_readable_help() {
    let place = Place::new();
    let mut all = String::new();
    for &command in COMMANDS {
        let line = if command.ends_with("--help") { command.to_owned() } else { format!("{command} -h") };
        let ran = place.run(line.trim()).ends(0);
        assert!(ran.stderr.is_empty(), "{ran}");
        all.push_str(&format!("{ran}\n"));
    }
    assert!(!place.path("data").exists(), "help needs no data directory");
    snapshot!("help", all);
}

#[test]
fn a_mistyped_command_or_option_is_refused_with_what_was_meant() {
    let place = Place::new();
    let all: String = ["rum x.yaml", "runs list --stat failed", "run", "logs"]
        .map(|l| format!("{}\n", place.run(l).ends(2)))
        .concat();
    snapshot!("usage", all);
}

#[test]
fn completions_are_a_script() {
    let ran = Place::new().run("completions bash").ends(0);
    assert!(ran.stdout.contains("_pitcrew()"), "{ran}");
}

#[test]
fn the_schema_is_json_and_knows_tasks() {
    let schema = Place::new().run("schema").ends(0).json();
    assert!(schema["properties"]["tasks"].is_object(), "{schema}");
}

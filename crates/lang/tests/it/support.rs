//! What the tests share: a few actions, and a workflow refused.

use pitcrew_lang::{ActionInfo, Compiled, OnHosts, Options, parse, render_all};
use serde_json::json;

pub fn actions() -> Vec<ActionInfo> {
    let action = |name: &str, with_schema| {
        let on_hosts = match name {
            "git.checkout" => OnHosts::Possibly,
            "ssh.upload" => OnHosts::Always,
            _ => OnHosts::Never,
        };
        ActionInfo { name: name.into(), with_schema, on_hosts, on_workers: on_hosts != OnHosts::Always }
    };
    vec![
        action(
            "git.checkout",
            json!({
                "type": "object",
                "properties": {
                    "url": {"type": "string"},
                    "revision": {"type": "string"},
                    "into": {"type": "string"},
                    "depth": {"type": "integer", "minimum": 1},
                },
                "required": ["url"],
                "additionalProperties": false,
            }),
        ),
        action("ssh.upload", json!({"type": "object"})),
        action("notebook", json!({"type": "object"})),
        action(
            "variables.set",
            json!({"type": "object", "properties": {"values": {"type": "object"}}, "required": ["values"]}),
        ),
    ]
}

pub fn compile(source: &str) -> Result<Vec<Compiled>, String> {
    let actions = actions();
    parse(source, "w.yaml", &Options { actions: &actions, ..Options::default() })
        .map_err(|found| render_all(&found, false))
}

/// The rendered problems of a source that must not compile.
pub fn refuse(source: &str) -> String {
    match compile(source.trim_start_matches('\n')) {
        Ok(_) => panic!("this compiled:\n{source}"),
        Err(rendered) => rendered,
    }
}

/// A workflow that must compile.
pub fn accept(source: &str) -> Compiled {
    let mut compiled = compile(source.trim_start_matches('\n')).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(compiled.len(), 1);
    compiled.remove(0)
}

//! `ssh.upload` and `ssh.download`: files between the run's workspace here and a host. The `ssh` backend moves them itself.

use std::path::Path;

use pitcrew_exec::{Command, Direction, StepSpec, Transfer};
use pitcrew_lang::OnHosts;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Action, Call, Plan, object};

pub struct SshTransfer(pub Direction);

#[derive(Deserialize)]
struct With {
    from: String,
    to: String,
    mode: Option<String>,
}

const HERE: &str = "A file or directory of this machine, relative to the workspace root.";
const THERE: &str =
    "A file or directory of the host, relative to where its tasks start; there it may be absolute, or begin with `~/`.";
const INTO: &str = " With `/` at its end: the directory into which it goes.";

impl Action for SshTransfer {
    fn name(&self) -> &'static str {
        match self.0 {
            Direction::Upload => "ssh.upload",
            Direction::Download => "ssh.download",
        }
    }

    fn schema(&self) -> Value {
        let (from, to) = match self.0 {
            Direction::Upload => (HERE, format!("{THERE}{INTO}")),
            Direction::Download => (THERE, format!("{HERE}{INTO}")),
        };
        object(
            &["from", "to"],
            json!({
                "from": { "type": "string", "minLength": 1, "description": from },
                "to": { "type": "string", "minLength": 1, "description": to },
                "mode": { "type": "string", "pattern": "^0?[0-7]{3}$", "description": "Permissions of the files, as `\"0644\"`. Default: those of the file that is replaced, else those of the source." }
            }),
        )
    }

    fn on_workers(&self) -> bool {
        false
    }

    fn plan(&self, call: &Call<'_>) -> Result<Plan, String> {
        let With { from, to, mode } = serde_json::from_value(call.with.clone()).map_err(|e| format!("`with`: {e}"))?;
        for (name, path) in [("from", &from), ("to", &to)] {
            if path.is_empty() {
                return Err(format!("`{name}` is empty: name a file or a directory"));
            }
            if path.contains('\0') || path.split('/').any(|part| part == "..") {
                return Err(format!("`{name}`: {path:?} goes up by `..`, or holds a NUL byte: write where it leads"));
            }
        }
        let mode = match mode.filter(|mode| !mode.is_empty()) {
            Some(mode) => Some(octal(&mode).ok_or_else(|| format!("`mode`: `{mode}` is not as `0644`"))?),
            None => None,
        };
        let (here, there) = match self.0 {
            Direction::Upload => (from, to),
            Direction::Download => (to, from),
        };
        let here = call.workspace.join(Path::new(&here));
        let transfer = Transfer { direction: self.0, here, there, mode };
        Ok(Plan::Remote(vec![StepSpec::new(self.name(), Command::Transfer(transfer))]))
    }

    fn on_hosts(&self) -> OnHosts {
        OnHosts::Always
    }
}

fn octal(mode: &str) -> Option<u32> {
    u32::from_str_radix(mode, 8).ok().filter(|bits| *bits <= 0o777)
}

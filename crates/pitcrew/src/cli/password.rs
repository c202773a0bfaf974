//! Reads a password or another secret without showing it: from a terminal, typed twice; else from stdin. Never an argument,
//! because every user of a machine can read those.

use std::io::{BufRead, IsTerminal, Read, Write};

use anyhow::Context as _;
use pitcrew_exec::secrets::Secret;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::error::invalid;
use super::ui::Ui;

/// A new password for `user`: the first line of what is not typed.
pub fn read(user: &str, ui: &Ui) -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return line(&mut stdin.lock());
    }
    twice(&format!("new password of `{user}`: "), ui)
}

/// The value of a secret: all of what is not typed, but for its last line break; at most `most` bytes.
pub fn secret(name: &str, ui: &Ui, most: usize) -> anyhow::Result<Secret> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Ok(Secret::new(twice(&format!("value of `{name}`: "), ui)?));
    }
    let mut bytes = Vec::new();
    let read = stdin.lock().take(most as u64 + 2).read_to_end(&mut bytes);
    read.map_err(|error| invalid(format!("cannot read the secret: {error}")))?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.is_empty() || bytes.len() > most {
        return Err(invalid(format!("a secret has 1 to {most} bytes\nhint: write it to stdin: `… < file`")));
    }
    Ok(Secret::new(bytes))
}

fn twice(prompt: &str, ui: &Ui) -> anyhow::Result<String> {
    let first = typed(prompt, ui)?;
    let second = typed("once more: ", ui)?;
    if first != second {
        return Err(invalid("the two are not the same: nothing was changed"));
    }
    Ok(first)
}

/// Puts the terminal back as it was, whatever happens in between.
struct Silent(Termios);

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}

fn typed(prompt: &str, ui: &Ui) -> anyhow::Result<String> {
    let before = tcgetattr(std::io::stdin()).context("cannot ask the terminal for a password")?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO);
    quiet.local_modes.insert(LocalModes::ECHONL);
    tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet).context("cannot keep the terminal from showing it")?;
    let _silent = Silent(before);
    write!(std::io::stderr(), "{}", ui.err.bold(prompt))?;
    line(&mut std::io::stdin().lock())
}

fn line(from: &mut impl BufRead) -> anyhow::Result<String> {
    let mut text = String::new();
    from.read_line(&mut text).map_err(|error| invalid(format!("cannot read the password: {error}")))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(invalid("no password was given\nhint: type it, or write it to stdin: `… < file`"));
    }
    Ok(text.to_owned())
}

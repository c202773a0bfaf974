//! What the command line writes: data on stdout, talk on stderr, colour only where a person looks.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use owo_colors::Style;
use serde::Serialize;

use super::ColorChoice;

/// Nobody reads stdout any more.
#[derive(Debug, thiserror::Error)]
#[error("stdout is closed")]
pub struct Closed;

/// Tints texts, or leaves them as they are.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    pub on: bool,
}

impl Paint {
    fn tint(self, style: Style, text: impl Display) -> String {
        if self.on { style.style(text).to_string() } else { text.to_string() }
    }

    pub fn red(self, text: impl Display) -> String {
        self.tint(Style::new().red().bold(), text)
    }

    pub fn green(self, text: impl Display) -> String {
        self.tint(Style::new().green(), text)
    }

    pub fn yellow(self, text: impl Display) -> String {
        self.tint(Style::new().yellow(), text)
    }

    pub fn cyan(self, text: impl Display) -> String {
        self.tint(Style::new().cyan(), text)
    }

    pub fn bold(self, text: impl Display) -> String {
        self.tint(Style::new().bold(), text)
    }

    pub fn dim(self, text: impl Display) -> String {
        self.tint(Style::new().dimmed(), text)
    }
}

/// How to write.
#[derive(Debug, Clone, Copy)]
pub struct Ui {
    pub out: Paint,
    pub err: Paint,
    pub out_is_terminal: bool,
    pub err_is_terminal: bool,
    pub quiet: bool,
}

impl Ui {
    pub fn new(choice: ColorChoice, quiet: bool) -> Ui {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let (out_is_terminal, err_is_terminal) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        let paint = |is_terminal| match choice {
            ColorChoice::Always => Paint { on: true },
            ColorChoice::Never => Paint { on: false },
            ColorChoice::Auto => Paint { on: is_terminal && !plain },
        };
        Ui { out: paint(out_is_terminal), err: paint(err_is_terminal), out_is_terminal, err_is_terminal, quiet }
    }

    /// Writes data as it is.
    pub fn print(&self, text: &str) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Closed.into(),
            _ => anyhow::Error::new(error).context("cannot write to stdout"),
        })
    }

    /// Writes a line of data.
    pub fn line(&self, text: impl Display) -> anyhow::Result<()> {
        self.print(&format!("{text}\n"))
    }

    pub fn json(&self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(serde_json::to_string_pretty(value)?)
    }

    /// Says something to the person; not with `--quiet`.
    pub fn say(&self, text: impl Display) {
        if !self.quiet {
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    pub fn warn(&self, text: impl Display) {
        let _ = writeln!(io::stderr().lock(), "{} {text}", self.err.yellow("warning:"));
    }

    pub fn hint(&self, text: impl Display) {
        self.say(format!("{} {text}", self.err.cyan("hint:")));
    }

    /// Writes rows under headings, with states tinted; nothing but the headings when there are none.
    pub fn table(&self, headings: &[&str], rows: Vec<Vec<String>>) -> anyhow::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(headings.iter().map(|h| h.to_uppercase()));
        table.add_rows(rows);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let mut text = String::new();
        for (number, line) in table.lines().enumerate() {
            let line = line.trim_end();
            text.push_str(&if number == 0 { self.out.dim(line) } else { super::format::tint_states(self.out, line) });
            text.push('\n');
        }
        self.print(&text)
    }
}

//! Where progress is written: lasting lines, and on a terminal a picture below them that is drawn anew.

use std::io::{self, Write};

use crate::cli::ui::{Paint, Ui};

/// Which stream progress goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

pub struct Screen {
    stream: Stream,
    pub paint: Paint,
    /// Draw pictures; else only lines.
    pub live: bool,
    quiet: bool,
    /// Lines of the picture on the screen.
    drawn: usize,
    /// Nobody reads any more; the run goes on all the same.
    dead: bool,
}

impl Screen {
    pub fn new(ui: &Ui, stream: Stream) -> Screen {
        let (paint, terminal) = match stream {
            Stream::Stdout => (ui.out, ui.out_is_terminal),
            Stream::Stderr => (ui.err, ui.err_is_terminal),
        };
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Screen { stream, paint, live: terminal && !dumb && !ui.quiet, quiet: ui.quiet, drawn: 0, dead: false }
    }

    /// Writes lines that stay.
    pub fn lasting(&mut self, text: &str) {
        if self.quiet || text.is_empty() {
            return;
        }
        let erase = self.erasure();
        self.write(&format!("{erase}{text}"));
    }

    /// Replaces the picture.
    pub fn draw(&mut self, lines: &[String]) {
        let mut text = String::from("\x1b[?2026h\x1b[?25l");
        text.push_str(&self.erasure());
        // Without line wrap, so that a wide character more or less does not spoil the count of lines.
        text.push_str("\x1b[?7l");
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("\x1b[?7h\x1b[?2026l");
        self.drawn = lines.len();
        self.write(&text);
    }

    /// Leaves the picture as it is, as lasting lines.
    pub fn keep(&mut self) {
        self.drawn = 0;
    }

    fn erasure(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r\x1b[J"),
        }
    }

    fn write(&mut self, text: &str) {
        if self.dead {
            return;
        }
        let written = match self.stream {
            Stream::Stdout => write_all(&mut io::stdout().lock(), text),
            Stream::Stderr => write_all(&mut io::stderr().lock(), text),
        };
        self.dead = written.is_err();
    }

    /// Width and height in characters.
    pub fn size(&self) -> (usize, usize) {
        let size = match self.stream {
            Stream::Stdout => rustix::termios::tcgetwinsize(io::stdout()),
            Stream::Stderr => rustix::termios::tcgetwinsize(io::stderr()),
        };
        match size {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => (80, 24),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.live {
            self.write("\x1b[?25h");
        }
    }
}

fn write_all(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes())?;
    out.flush()
}

//! Programs for tests.
//!
//! A child writes them: a descriptor that is open for writing in this process is for a moment also in whatever another
//! thread starts, and meanwhile the file cannot be executed ("text file busy").

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Makes an executable file of this text.
pub fn write_program(path: &Path, text: &str) {
    let mut child = Command::new("sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "cannot write `{}`", path.display());
}

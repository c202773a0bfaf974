//! Outputs: small values that a step hands on, by writing to the file that `$PITCREW_OUTPUT` names.
//!
//! ```text
//! accuracy=0.93                  one text
//! {"epochs": 3, "tags": ["a"]}   any number of JSON values
//! notes<<END                     a text of several lines, up to a line that is the word given
//! first
//! second
//! END
//! ```
//!
//! Besides, a file `$PITCREW_OUTPUT.NAME` beside it is the output `NAME`: its content is the text, whatever it contains.
//! A later value replaces an earlier one, and a file replaces a line. One value has at most [`MAX_OUTPUT`] bytes and all
//! of them at most [`MAX_TOTAL`]; what is beyond, and what is malformed, is left out and told.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::{Map, Value};

use crate::spec::MAX_OUTPUT;

/// The most bytes that all outputs of an attempt may have together.
pub const MAX_TOTAL: usize = 8 * MAX_OUTPUT;
const MAX_NAME: usize = 250;

/// Outputs, and what was wrong with those that are missing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outputs {
    pub values: BTreeMap<String, Value>,
    /// For people; one sentence each.
    pub problems: Vec<String>,
    total: usize,
}

/// Reads the file and those beside it that belong to it; all may be missing.
pub fn collect(file: &Path) -> Outputs {
    let mut outputs = Outputs::default();
    match read_limited(file, MAX_TOTAL) {
        Ok(Some((text, whole))) => {
            if !whole {
                outputs.problem(format!("the output file is larger than {MAX_TOTAL} bytes; its end was not read"));
            }
            outputs.parse(&text);
        }
        Ok(None) => {}
        Err(error) => outputs.problem(format!("cannot read the output file: {error}")),
    }
    outputs.files(file);
    outputs
}

/// The text of files below `root`, by their path as given, and what is wrong with those that cannot be brought; one that is
/// not there is left out.
pub(crate) fn fetch(root: &Path, paths: &[String]) -> (BTreeMap<String, String>, Vec<String>) {
    let (mut files, mut problems) = (BTreeMap::new(), Vec::new());
    for path in paths {
        match read_limited(&root.join(path), MAX_OUTPUT) {
            Ok(Some((text, true))) => drop(files.insert(path.clone(), text)),
            Ok(Some((_, false))) => {
                problems.push(format!("`{path}` has more than {MAX_OUTPUT} bytes; make it an artifact"))
            }
            Ok(None) => {}
            Err(error) => problems.push(format!("cannot read `{path}`: {error}")),
        }
    }
    (files, problems)
}

fn read_limited(path: &Path, limit: usize) -> io::Result<Option<(String, bool)>> {
    // A step may have left a fifo or a device there, which must not hold up whoever reads.
    let file = match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    let whole = bytes.len() <= limit;
    bytes.truncate(limit);
    let text = String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
    Ok(Some((text, whole)))
}

impl Outputs {
    /// Reads the text form.
    pub fn parse(&mut self, text: &str) {
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let number = number + 1;
            if line.trim().is_empty() {
                continue;
            }
            if line.trim_start().starts_with('{') {
                match serde_json::from_str::<Map<String, Value>>(line) {
                    Ok(object) => object.into_iter().for_each(|(name, value)| self.add(&name, value)),
                    Err(error) => self.problem(format!("output line {number} is no JSON object: {error}")),
                }
                continue;
            }
            // The sign that comes first decides, so that a value may contain the other.
            match (line.find('='), line.find("<<")) {
                (equals, Some(heredoc)) if equals.is_none_or(|e| heredoc < e) => {
                    let (name, word) = (&line[..heredoc], &line[heredoc + 2..]);
                    let mut body: Vec<&str> = Vec::new();
                    let closed = lines.by_ref().map(|(_, l)| l).any(|l| {
                        let end = l == word;
                        if !end {
                            body.push(l);
                        }
                        end
                    });
                    if closed && !word.is_empty() {
                        self.add(name, Value::String(body.join("\n")));
                    } else {
                        self.problem(format!("output `{}` from line {number} is not closed by `{word}`", shown(name)));
                    }
                }
                (Some(equals), _) => self.add(&line[..equals], Value::String(line[equals + 1..].to_owned())),
                (None, _) => self.problem(format!(
                    "output line {number} is neither `name=value`, `name<<WORD` nor a JSON object: `{}`",
                    shown(line)
                )),
            }
        }
    }

    fn files(&mut self, file: &Path) {
        let (Some(dir), Some(prefix)) = (file.parent(), file.file_name()) else { return };
        let prefix = format!("{}.", prefix.to_string_lossy());
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| name.starts_with(&prefix));
        names.sort();
        for (name, path) in names.iter().map(|name| (&name[prefix.len()..], dir.join(name))) {
            match read_limited(&path, MAX_OUTPUT) {
                Ok(Some((text, true))) => self.add(name, Value::String(text)),
                Ok(Some((_, false))) => self.too_large(name),
                Ok(None) => {}
                Err(error) => self.problem(format!("cannot read the file of output `{}`: {error}", shown(name))),
            }
        }
    }

    fn add(&mut self, name: &str, value: Value) {
        if !is_name(name) {
            self.problem(format!(
                "`{}` is no name for an output; use letters, digits, `_`, `-` and `.`, and begin with a letter or `_`",
                shown(name)
            ));
            return;
        }
        let size = match &value {
            Value::String(text) => text.len(),
            other => other.to_string().len(),
        };
        if size > MAX_OUTPUT {
            self.too_large(name);
        } else if self.total + size > MAX_TOTAL {
            self.problem(format!("output `{name}` is left out: all outputs together exceed {MAX_TOTAL} bytes"));
        } else {
            self.total += size;
            self.values.insert(name.to_owned(), value);
        }
    }

    fn too_large(&mut self, name: &str) {
        self.problem(format!(
            "output `{}` is larger than {MAX_OUTPUT} bytes; publish it as an artifact instead",
            shown(name)
        ));
    }

    fn problem(&mut self, problem: String) {
        // A broken file of a million lines needs no million sentences.
        if self.problems.len() < 20 {
            self.problems.push(problem);
        }
    }
}

/// Is it the name of a file beside the output file, of one output?
pub(crate) fn is_file_name(name: &str) -> bool {
    name.strip_prefix("output.").is_some_and(is_name)
}

fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(text: &str) -> Outputs {
        let mut outputs = Outputs::default();
        outputs.parse(text);
        outputs
    }

    #[test]
    fn all_forms_are_read() {
        let outputs = parsed(
            "a=1\n\n b=x\n{\"n\": 3, \"list\": [true]}\nurl=http://x/?a=b<<c\ntext<<END\none=1\n\n{\nEND\na=2\nempty=\n",
        );
        assert_eq!(
            serde_json::to_value(&outputs.values).unwrap(),
            json!({"a": "2", "n": 3, "list": [true], "url": "http://x/?a=b<<c", "text": "one=1\n\n{", "empty": ""})
        );
        assert_eq!(outputs.problems.len(), 1, "{:?}", outputs.problems);
        assert!(outputs.problems[0].contains("` b` is no name"));
    }

    #[test]
    fn what_is_malformed_or_too_large_is_left_out_and_told() {
        let outputs = parsed(&format!("big={}\nnonsense\n{{\"a\"\nopen<<END\nx=1\n", "x".repeat(MAX_OUTPUT + 1)));
        assert!(outputs.values.is_empty());
        let told = outputs.problems.join("\n");
        for part in ["`big` is larger", "line 2 is neither", "line 3 is no JSON", "`open` from line 4 is not closed"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        let many: String = (0..20).map(|n| format!("v{n}={}\n", "x".repeat(MAX_OUTPUT))).collect();
        let outputs = parsed(&many);
        assert_eq!(outputs.values.len(), 8);
        assert_eq!(outputs.problems.len(), 12);
    }

    #[test]
    fn a_file_is_an_output_and_wins_over_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("output");
        assert_eq!(collect(&file), Outputs::default());
        std::fs::write(&file, "a=line\nb=line\n").unwrap();
        std::fs::write(dir.path().join("output.a"), "from\na file\n").unwrap();
        std::fs::write(dir.path().join("output.big"), vec![b'x'; MAX_OUTPUT + 1]).unwrap();
        std::fs::write(dir.path().join("other"), "").unwrap();
        std::fs::create_dir(dir.path().join("output.folder")).unwrap();
        let outputs = collect(&file);
        assert_eq!(outputs.values["a"], "from\na file\n");
        assert_eq!(outputs.values["b"], "line");
        assert_eq!((outputs.values.len(), outputs.problems.len()), (2, 2), "{:?}", outputs.problems);
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("output.endless")).unwrap();
        assert_eq!(collect(&file).problems.len(), 3);
    }
}

//! YAML as Kubernetes' tools parse it, where our parser is stricter: a bracket may close at the indentation of its key.
//!
//! ```yaml
//! args: [
//!   "a",
//! ]
//! ```
//!
//! The parser refuses the last line, as the letter of YAML does. Such a line is moved to the right and the text is
//! parsed again; the places of what it holds are then moved back.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::diagnostic::{Place, Reporter};
use crate::yaml::load::{self, MAX_BYTES};
use crate::yaml::{Node, Yaml};

/// How far a line is moved; deeper texts are moved again.
const FAR: u32 = 128;
/// Each line that is moved costs one more parse.
const MOST_LINES: usize = 400;
/// Bytes that all parses of a file may read.
const MOST_WORK: usize = 2 * MAX_BYTES;

/// The documents of a text. Problems go to the reporter, in places of the text as it is.
pub fn roots(file: &str, text: &str, reporter: &mut Reporter<'_>) -> Vec<Node> {
    let mut moved: BTreeMap<u32, u32> = BTreeMap::new();
    let mut now = Cow::Borrowed(text);
    let mut work = 0;
    loop {
        let mut scratch = Reporter::new(file, &now);
        let documents = load::load(&now, &mut scratch);
        let Some(problem) = scratch.finish().into_iter().next() else {
            let mut roots: Vec<Node> = documents.into_iter().map(|document| document.root).collect();
            if !moved.is_empty() {
                roots.iter_mut().for_each(|root| back(root, &moved));
            }
            return roots;
        };
        work += now.len();
        let is_indentation = matches!(
            problem.message.as_str(),
            "the indentation does not fit the lines above" | "a line inside brackets is indented too little"
        );
        let line = text.lines().nth((problem.line as usize).saturating_sub(1)).unwrap_or("");
        let is_bracket = line.trim_start().starts_with(['[', ']', '{', '}', '"', '\'', ',']);
        if !is_indentation || !is_bracket || moved.len() >= MOST_LINES || work > MOST_WORK {
            let at = Place { line: problem.line, column: problem.column, length: problem.length };
            reporter.error_maybe(original(at, &moved), problem.message, problem.hint);
            return Vec::new();
        }
        *moved.entry(problem.line).or_default() += FAR;
        now = Cow::Owned(shifted(text, &moved));
    }
}

fn shifted(text: &str, moved: &BTreeMap<u32, u32>) -> String {
    let mut out = String::with_capacity(text.len() + moved.len() * FAR as usize);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let by = moved.get(&(number as u32 + 1)).copied().unwrap_or(0);
        out.extend(std::iter::repeat_n(' ', by as usize));
        out.push_str(line);
    }
    out
}

fn original(at: Place, moved: &BTreeMap<u32, u32>) -> Place {
    let by = moved.get(&at.line).copied().unwrap_or(0);
    Place { column: at.column.saturating_sub(by).max(1), ..at }
}

fn back(node: &mut Node, moved: &BTreeMap<u32, u32>) {
    node.at = original(node.at, moved);
    match &mut node.yaml {
        Yaml::Scalar(_) => {}
        Yaml::List(items) => items.iter_mut().for_each(|item| back(item, moved)),
        Yaml::Map(entries) => {
            for entry in entries {
                entry.key.at = original(entry.key.at, moved);
                back(&mut entry.value, moved);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Node>, String> {
        let mut reporter = Reporter::new("f", text);
        let roots = roots("f", text, &mut reporter);
        match reporter.finish().first() {
            Some(found) => Err(format!("{}:{}: {}", found.line, found.column, found.message)),
            None => Ok(roots),
        }
    }

    #[test]
    fn a_bracket_may_close_at_the_indentation_of_its_key() {
        let text = "a:\n  b: [\n    x,\n  ]\n  c: {\n    d: e\n  }\nf: g\n---\nh: [\n]\n";
        let roots = read(text).unwrap();
        let json = |node: &Node| node.to_json().unwrap().to_string();
        assert_eq!(json(&roots[0]), r#"{"a":{"b":["x"],"c":{"d":"e"}},"f":"g"}"#);
        let late = read("a:\n  b: [\n  \"1\",\n\"x\", {y: z}]\n").unwrap();
        let b = late[0].get("a").unwrap().get("b").unwrap().as_list().unwrap();
        assert_eq!((b[1].at.line, b[1].at.column, b[2].at.column), (4, 1, 6));
        assert_eq!(b[2].get("y").unwrap().at.column, 10);
    }

    #[test]
    fn what_is_wrong_stays_wrong_at_its_place() {
        assert!(read("a:\n  b: [\n  x,\n c: d\n").is_err());
        let error = read("a:\n  b: [\n    x\n  ], \"q\n").unwrap_err();
        assert!(error.starts_with("4:"), "{error}");
    }
}

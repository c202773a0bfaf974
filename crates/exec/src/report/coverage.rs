//! Coverage from Cobertura's XML or coverage.py's JSON.

use std::collections::BTreeMap;

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Lines that tests reached, of lines that there are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    pub covered: usize,
    pub total: usize,
    pub percent: f64,
    /// In the order of their paths.
    pub files: Vec<FileCoverage>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FileCoverage {
    pub path: String,
    pub covered: usize,
    pub total: usize,
    pub percent: f64,
    /// Line numbers that no test reached, as in `3, 10-14`.
    pub missing: String,
}

/// Line number to whether it was reached.
type Lines = BTreeMap<usize, bool>;
pub(super) type Files = BTreeMap<String, Lines>;

impl Coverage {
    /// `None` when no file was measured.
    pub(super) fn of(files: Files) -> Option<Self> {
        let files: Vec<FileCoverage> = files
            .into_iter()
            .map(|(path, lines)| {
                let covered = lines.values().filter(|reached| **reached).count();
                let missing: Vec<usize> = lines.iter().filter(|(_, reached)| !**reached).map(|(n, _)| *n).collect();
                let (total, missing) = (lines.len(), ranges(&missing));
                FileCoverage { path, covered, total, percent: percent(covered, total), missing }
            })
            .collect();
        if files.is_empty() {
            return None;
        }
        let (covered, total) = files.iter().fold((0, 0), |(c, t), file| (c + file.covered, t + file.total));
        Some(Coverage { covered, total, percent: percent(covered, total), files })
    }

    /// The files with the most lines that no test reached first.
    pub fn least_covered(&self) -> Vec<&FileCoverage> {
        let mut files: Vec<&FileCoverage> = self.files.iter().collect();
        files.sort_by_key(|file| std::cmp::Reverse(file.total - file.covered));
        files
    }
}

/// A file without lines is covered.
fn percent(covered: usize, total: usize) -> f64 {
    if total == 0 { 100.0 } else { 100.0 * covered as f64 / total as f64 }
}

fn ranges(lines: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &line in lines {
        match parts.last_mut() {
            Some((_, end)) if *end + 1 == line => *end = line,
            _ => parts.push((line, line)),
        }
    }
    let parts: Vec<String> =
        parts.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
    parts.join(", ")
}

/// Adds one file's figures; a line counts as reached when any of the files says so.
pub(super) fn parse(text: &str, files: &mut Files) -> Result<(), String> {
    if text.trim_start().starts_with('{') { parse_json(text, files) } else { parse_xml(text, files) }
}

fn parse_json(text: &str, files: &mut Files) -> Result<(), String> {
    let value: Value = serde_json::from_str(text).map_err(|e| format!("it is malformed: {e}"))?;
    let measured = value["files"].as_object().ok_or("it holds no `files`")?;
    for (path, file) in measured {
        let lines = files.entry(path.clone()).or_default();
        for (name, reached) in [("executed_lines", true), ("missing_lines", false)] {
            let numbers = file[name].as_array().into_iter().flatten().filter_map(Value::as_u64);
            for number in numbers {
                *lines.entry(number as usize).or_default() |= reached;
            }
        }
    }
    Ok(())
}

fn parse_xml(text: &str, files: &mut Files) -> Result<(), String> {
    let mut reader = Reader::from_str(text);
    let mut current: Option<String> = None;
    let mut known = false;
    // Cobertura lists a method's lines under the method too.
    let mut in_methods = false;
    loop {
        match reader.read_event() {
            Ok(Event::Start(tag)) => match tag.local_name().as_ref() {
                b"coverage" => known = true,
                b"methods" => in_methods = true,
                b"class" => current = Some(open(&tag, files)),
                b"line" if !in_methods => line(&tag, current.as_ref(), files),
                _ => {}
            },
            Ok(Event::Empty(tag)) => match tag.local_name().as_ref() {
                b"coverage" => known = true,
                b"class" => drop(open(&tag, files)),
                b"line" if !in_methods => line(&tag, current.as_ref(), files),
                _ => {}
            },
            Ok(Event::End(tag)) if tag.local_name().as_ref() == b"methods" => in_methods = false,
            Ok(Event::Eof) if known => return Ok(()),
            Ok(Event::Eof) => return Err("it holds no coverage".into()),
            Ok(_) => {}
            Err(e) => return Err(format!("it is malformed at byte {}: {e}", reader.error_position())),
        }
    }
}

fn attribute(tag: &BytesStart, name: &str) -> Option<String> {
    let value = tag.try_get_attribute(name).ok().flatten()?;
    value.normalized_value(XmlVersion::Implicit1_0).ok().map(|v| v.into_owned())
}

fn open(tag: &BytesStart, files: &mut Files) -> String {
    let path = attribute(tag, "filename").or_else(|| attribute(tag, "name")).unwrap_or_default();
    files.entry(path.clone()).or_default();
    path
}

fn line(tag: &BytesStart, path: Option<&String>, files: &mut Files) {
    let number = attribute(tag, "number").and_then(|n| n.parse::<usize>().ok());
    let reached = attribute(tag, "hits").and_then(|n| n.parse::<u64>().ok()).is_some_and(|hits| hits > 0);
    if let (Some(lines), Some(number)) = (path.and_then(|path| files.get_mut(path)), number) {
        *lines.entry(number).or_default() |= reached;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read_and_joined_line_by_line() {
        let mut files = Files::new();
        let xml = r#"<coverage line-rate="0.5"><packages><package><classes>
            <class name="a" filename="pkg/a.py"><methods><method><lines><line number="99" hits="1"/></lines></method></methods>
            <lines><line number="1" hits="2"/><line number="2" hits="0"/><line number="3" hits="0"/><line number="7" hits="0"/></lines></class>
            <class name="empty" filename="pkg/__init__.py"><lines/></class></classes></package></packages></coverage>"#;
        parse(xml, &mut files).unwrap();
        parse(r#"{"files": {"pkg/a.py": {"executed_lines": [7], "missing_lines": [1, 2]}, "b.py": {"missing_lines": [1]}}}"#, &mut files)
            .unwrap();
        let coverage = Coverage::of(files).unwrap();
        assert_eq!((coverage.covered, coverage.total), (2, 5));
        let a = coverage.files.iter().find(|f| f.path == "pkg/a.py").unwrap();
        assert_eq!((a.covered, a.total, a.percent, a.missing.as_str()), (2, 4, 50.0, "2-3"));
        let empty = coverage.files.iter().find(|f| f.path == "pkg/__init__.py").unwrap();
        assert_eq!((empty.total, empty.percent), (0, 100.0));
        assert_eq!(coverage.least_covered()[0].path, "pkg/a.py");
    }

    #[test]
    fn what_is_no_coverage_is_told() {
        for text in ["", "<html/>", "{", "{}", "<coverage><class></coverage>"] {
            assert!(parse(text, &mut Files::new()).is_err(), "{text}");
        }
        assert_eq!(Coverage::of(Files::new()), None);
    }
}

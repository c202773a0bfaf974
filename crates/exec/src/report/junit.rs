//! Test results from JUnit's XML.
//!
//! Invariant: what could be read before a file breaks off is kept, and the break is told.

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};
use serde::{Deserialize, Serialize};

use super::text::shortened;

/// A failure's text beyond this is cut; the file of results has it all.
const DETAILS_MAX: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Failed,
    /// The test itself could not be carried out.
    Error,
    Skipped,
    Passed,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Failed => "failed",
            Outcome::Error => "error",
            Outcome::Skipped => "skipped",
            Outcome::Passed => "passed",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    pub name: String,
    /// The class or module that it is in.
    pub class: String,
    pub outcome: Outcome,
    pub seconds: f64,
    /// One line: why it failed or was skipped.
    pub message: String,
    /// The traceback.
    pub details: String,
}

impl Case {
    pub fn full_name(&self) -> String {
        full_name(&self.class, &self.name)
    }

    pub fn is_bad(&self) -> bool {
        matches!(self.outcome, Outcome::Failed | Outcome::Error)
    }
}

pub(super) fn full_name(class: &str, name: &str) -> String {
    if class.is_empty() { name.to_owned() } else { format!("{class}::{name}") }
}

/// All cases of all files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tests {
    pub total: usize,
    pub passed: usize,
    pub failed: usize,
    pub errors: usize,
    pub skipped: usize,
    /// Of all cases together.
    pub seconds: f64,
    pub cases: Vec<Case>,
}

impl Tests {
    pub fn of(cases: Vec<Case>) -> Self {
        let count = |outcome| cases.iter().filter(|case| case.outcome == outcome).count();
        Tests {
            total: cases.len(),
            passed: count(Outcome::Passed),
            failed: count(Outcome::Failed),
            errors: count(Outcome::Error),
            skipped: count(Outcome::Skipped),
            seconds: cases.iter().map(|case| case.seconds).sum(),
            cases,
        }
    }

    pub fn bad(&self) -> impl Iterator<Item = &Case> {
        self.cases.iter().filter(|case| case.is_bad())
    }

    /// The cases that took longest, longest first.
    pub fn slowest(&self, count: usize) -> Vec<&Case> {
        let mut cases: Vec<&Case> = self.cases.iter().filter(|case| case.seconds > 0.0).collect();
        cases.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        cases.truncate(count);
        cases
    }
}

/// The cases of one file, and what is wrong with the file.
pub(super) fn parse(text: &str) -> (Vec<Case>, Option<String>) {
    let mut reader = Reader::from_str(text);
    let mut cases = Vec::new();
    let mut case: Option<Case> = None;
    // Inside a `failure`, `error` or `skipped`.
    let mut in_result = false;
    let mut known = false;
    let problem = loop {
        match reader.read_event() {
            Ok(Event::Start(tag)) => match tag.local_name().as_ref() {
                b"testcase" => case = Some(case_of(&tag)),
                b"failure" | b"error" | b"skipped" => in_result = note(&mut case, &tag),
                b"testsuite" | b"testsuites" => known = true,
                _ => {}
            },
            Ok(Event::Empty(tag)) => match tag.local_name().as_ref() {
                b"testcase" => cases.push(case_of(&tag)),
                b"failure" | b"error" | b"skipped" => drop(note(&mut case, &tag)),
                b"testsuite" | b"testsuites" => known = true,
                _ => {}
            },
            Ok(Event::End(tag)) => match tag.local_name().as_ref() {
                b"testcase" => cases.extend(case.take()),
                b"failure" | b"error" | b"skipped" => in_result = false,
                _ => {}
            },
            Ok(Event::Text(text)) if in_result => add(&mut case, &text.decode().unwrap_or_default()),
            Ok(Event::CData(text)) if in_result => add(&mut case, &text.decode().unwrap_or_default()),
            Ok(Event::GeneralRef(reference)) if in_result => {
                let character = match reference.resolve_char_ref() {
                    Ok(Some(character)) => character.to_string(),
                    _ => match reference.decode().unwrap_or_default().as_ref() {
                        "lt" => "<".into(),
                        "gt" => ">".into(),
                        "amp" => "&".into(),
                        "quot" => "\"".into(),
                        "apos" => "'".into(),
                        other => format!("&{other};"),
                    },
                };
                add(&mut case, &character);
            }
            Ok(Event::Eof) if case.is_some() => break Some("it ends in the middle of a test".to_owned()),
            Ok(Event::Eof) if !known => break Some("it holds no test suite".to_owned()),
            Ok(Event::Eof) => break None,
            Ok(_) => {}
            Err(e) => break Some(format!("it is malformed at byte {}: {e}", reader.error_position())),
        }
    };
    cases.extend(case);
    for case in &mut cases {
        case.details = shortened(case.details.trim(), DETAILS_MAX);
        if case.message.is_empty() {
            case.message = case.details.lines().next().unwrap_or_default().to_owned();
        }
    }
    (cases, problem)
}

fn attribute(tag: &BytesStart, name: &str) -> String {
    let found = tag.try_get_attribute(name).ok().flatten();
    found.and_then(|a| a.normalized_value(XmlVersion::Implicit1_0).ok().map(|v| v.into_owned())).unwrap_or_default()
}

fn case_of(tag: &BytesStart) -> Case {
    Case {
        name: attribute(tag, "name"),
        class: attribute(tag, "classname"),
        outcome: Outcome::Passed,
        // Some writers group thousands.
        seconds: attribute(tag, "time")
            .replace(',', "")
            .parse()
            .ok()
            .filter(|s: &f64| s.is_finite() && *s >= 0.0)
            .unwrap_or(0.0),
        message: String::new(),
        details: String::new(),
    }
}

fn note(case: &mut Option<Case>, tag: &BytesStart) -> bool {
    let Some(case) = case else { return false };
    case.outcome = match tag.local_name().as_ref() {
        b"failure" => Outcome::Failed,
        b"error" => Outcome::Error,
        _ => Outcome::Skipped,
    };
    let message = attribute(tag, "message");
    case.message = shortened(message.lines().next().unwrap_or_default(), 1000);
    true
}

fn add(case: &mut Option<Case>, text: &str) {
    if let Some(case) = case
        && case.details.len() <= DETAILS_MAX
    {
        case.details.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_times_and_texts_are_read_from_nested_suites() {
        let (cases, problem) = parse(
            r#"<?xml version="1.0"?><testsuites><testsuite name="a"><testsuite>
            <testcase classname="m.T" name="ok &lt;b&gt;" time="1,000.5"/>
            <testcase classname="m" name="bad" time="0.1"><failure message="assert 1 == 2&#10;more">a &lt; b
&#955; <![CDATA[<raw>]]></failure><system-out>noise</system-out></testcase>
            <testcase name="off"><skipped message="no GPU"/></testcase>
            <testcase name="odd" time="nan"><error>first
second</error></testcase></testsuite></testsuite></testsuites>"#,
        );
        assert_eq!(problem, None);
        let tests = Tests::of(cases);
        assert_eq!((tests.total, tests.passed, tests.failed, tests.errors, tests.skipped), (4, 1, 1, 1, 1));
        assert_eq!(tests.cases[0].full_name(), "m.T::ok <b>");
        assert_eq!(tests.cases[0].seconds, 1000.5);
        assert_eq!(tests.cases[1].message, "assert 1 == 2");
        assert_eq!(tests.cases[1].details, "a < b\nλ <raw>");
        assert_eq!((tests.cases[3].message.as_str(), tests.cases[3].seconds), ("first", 0.0));
    }

    #[test]
    fn a_broken_file_gives_what_it_holds_and_says_so() {
        let (cases, problem) = parse("<testsuite><testcase name='a'/><testcase name='b'><failure message='x'>cut");
        assert_eq!(cases.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(problem.as_deref(), Some("it ends in the middle of a test"));
        assert!(parse("").1.is_some() && parse("not xml").1.is_some());
        assert!(parse("<testsuite><a></b></testsuite>").1.unwrap().starts_with("it is malformed at byte"));
        assert_eq!(parse("<testsuites/>"), (Vec::new(), None));
    }
}

//! Events of other services: which of them start a run, and what the run is given.
//!
//! A filter is a pattern as Amazon EventBridge has them: an object of the fields that must be there, each with a list of
//! which one must fit. An item of a list is a value, or one of `{prefix}`, `{suffix}`, `{equals-ignore-case}`,
//! `{anything-but}`, `{exists}`, `{numeric}`. A field of an event that is a list fits if one of its items does.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::diagnostic::{did_you_mean, listing};
use crate::template::{Evaluator, analyse, from_json, is_template};

/// A filter that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern(BTreeMap<String, Field>);

#[derive(Debug, Clone, PartialEq)]
enum Field {
    Object(Pattern),
    AnyOf(Vec<Test>),
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    Is(Value),
    Prefix(String),
    Suffix(String),
    IgnoreCase(String),
    /// None of these.
    Not(Vec<Test>),
    Exists(bool),
    /// All of these.
    Numeric(Vec<(Comparison, f64)>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Equal,
    Less,
    AtMost,
    More,
    AtLeast,
}

const TESTS: [&str; 6] = ["prefix", "suffix", "equals-ignore-case", "anything-but", "exists", "numeric"];
/// Deeper patterns are refused.
const DEEPEST: usize = 20;

impl Pattern {
    /// Reads a filter. The error is a sentence without its place.
    pub fn parse(value: &Value) -> Result<Pattern, String> {
        Pattern::read(value, DEEPEST)
    }

    fn read(value: &Value, depth: usize) -> Result<Pattern, String> {
        let map = value.as_object().ok_or("a filter is an object of the fields that must be there")?;
        let depth = depth.checked_sub(1).ok_or("the filter is nested too deeply")?;
        let fields = map.iter().map(|(name, field)| {
            let field = match field {
                Value::Object(_) => Pattern::read(field, depth).map(Field::Object),
                Value::Array(items) if items.is_empty() => {
                    Err(format!("`{name}` lists nothing, so no event would fit"))
                }
                Value::Array(items) => items.iter().map(test).collect::<Result<_, _>>().map(Field::AnyOf),
                _ => Err(format!("`{name}` must be a list of values that fit: write `[{field}]`")),
            };
            field.map(|field| (name.clone(), field))
        });
        fields.collect::<Result<_, _>>().map(Pattern)
    }

    /// Does the event fit?
    pub fn matches(&self, event: &Value) -> bool {
        self.0.iter().all(|(name, field)| match (field, event.get(name)) {
            (Field::Object(pattern), Some(value @ Value::Object(_))) => pattern.matches(value),
            (Field::Object(pattern), Some(Value::Array(items))) => items.iter().any(|item| pattern.matches(item)),
            // Where nothing is, only tests that want nothing can fit.
            (Field::Object(pattern), _) => !pattern.0.is_empty() && pattern.matches(&Value::Null),
            (Field::AnyOf(tests), value) => tests.iter().any(|test| test.fits(value)),
        })
    }
}

fn test(item: &Value) -> Result<Test, String> {
    let Value::Object(map) = item else {
        return match item {
            Value::Array(_) => Err("a list in a list has no meaning in a filter".to_owned()),
            plain => Ok(Test::Is(plain.clone())),
        };
    };
    let mut entries = map.iter();
    let (Some((name, value)), None) = (entries.next(), entries.next()) else {
        return Err(format!("an item of a filter has one of {}", listing(TESTS, "or")));
    };
    let text = || value.as_str().map(str::to_owned).ok_or_else(|| format!("`{name}` takes a text, found `{value}`"));
    Ok(match name.as_str() {
        "prefix" => Test::Prefix(text()?),
        "suffix" => Test::Suffix(text()?),
        "equals-ignore-case" => Test::IgnoreCase(text()?.to_lowercase()),
        "exists" => Test::Exists(value.as_bool().ok_or("`exists` takes `true` or `false`")?),
        "anything-but" => match value {
            Value::Array(items) => Test::Not(items.iter().map(test).collect::<Result<_, _>>()?),
            one => Test::Not(vec![test(one)?]),
        },
        "numeric" => {
            let words = value.as_array().filter(|words| !words.is_empty() && words.len() % 2 == 0);
            let words = words.ok_or("`numeric` takes a list such as `[\">=\", 1, \"<\", 10]`")?;
            let pairs = words.chunks(2).map(|pair| {
                let comparison = match pair[0].as_str() {
                    Some("=") => Comparison::Equal,
                    Some("<") => Comparison::Less,
                    Some("<=") => Comparison::AtMost,
                    Some(">") => Comparison::More,
                    Some(">=") => Comparison::AtLeast,
                    _ => return Err(format!("`numeric` compares by `=`, `<`, `<=`, `>` or `>=`, found `{}`", pair[0])),
                };
                let number =
                    pair[1].as_f64().ok_or_else(|| format!("`numeric` compares numbers, found `{}`", pair[1]))?;
                Ok((comparison, number))
            });
            Test::Numeric(pairs.collect::<Result<_, _>>()?)
        }
        other => {
            let hint = did_you_mean(other, TESTS).unwrap_or_else(|| format!("known: {}", listing(TESTS, "and")));
            return Err(format!("`{other}` is no test of a filter: {hint}"));
        }
    })
}

impl Test {
    fn fits(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Test::Exists(wanted), value) => *wanted == value.is_some(),
            (_, None) => false,
            (_, Some(Value::Array(items))) => items.iter().any(|item| self.fits_one(item)),
            (_, Some(value)) => self.fits_one(value),
        }
    }

    fn fits_one(&self, value: &Value) -> bool {
        match self {
            // 1 and 1.0 are one number.
            Test::Is(wanted) => wanted == value || (wanted.is_number() && wanted.as_f64() == value.as_f64()),
            Test::Prefix(prefix) => value.as_str().is_some_and(|text| text.starts_with(prefix)),
            Test::Suffix(suffix) => value.as_str().is_some_and(|text| text.ends_with(suffix)),
            Test::IgnoreCase(text) => value.as_str().is_some_and(|value| value.to_lowercase() == *text),
            Test::Not(tests) => !tests.iter().any(|test| test.fits_one(value)),
            Test::Exists(wanted) => *wanted,
            Test::Numeric(all) => value.as_f64().is_some_and(|number| {
                all.iter().all(|(comparison, than)| match comparison {
                    Comparison::Equal => number == *than,
                    Comparison::Less => number < *than,
                    Comparison::AtMost => number <= *than,
                    Comparison::More => number > *than,
                    Comparison::AtLeast => number >= *than,
                })
            }),
        }
    }
}

/// Checks a template of a run's params before there is an event. The error is what is wrong and perhaps an advice.
pub fn check(text: &str) -> Result<(), (String, Option<String>)> {
    if !is_template(text) {
        return Ok(());
    }
    let analysis = analyse(text).map_err(|complaint| (complaint.message, complaint.hint))?;
    if let Some(complaint) = analysis.complaints.into_iter().next() {
        return Err((complaint.message, complaint.hint));
    }
    match analysis.references.iter().map(|r| r.path[0].as_str()).find(|name| *name != "event") {
        None => Ok(()),
        Some(name) => {
            let hint = "there is only the event: `event.detail.…`, `event.source`, …";
            Err((format!("there is no `{name}` before a run"), Some(hint.to_owned())))
        }
    }
}

/// What a run is given because of an event: the templates filled in; without any, the event's `detail`. The error is a
/// sentence.
pub fn conf(templates: Option<&Map<String, Value>>, event: &Value) -> Result<Map<String, Value>, String> {
    let Some(templates) = templates else {
        return match event.get("detail") {
            Some(Value::Object(detail)) => Ok(detail.clone()),
            _ => Err("the event has no object `detail`, and the workflow has no `conf` for it".to_owned()),
        };
    };
    let evaluator = Evaluator::default();
    let fill = |(name, value): (&String, &Value)| {
        let filled = fill(&evaluator, value, event).map_err(|why| format!("`conf.{name}`: {why}"))?;
        Ok((name.clone(), filled))
    };
    templates.iter().map(fill).collect()
}

fn fill(evaluator: &Evaluator, value: &Value, event: &Value) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) if is_template(text) => {
            evaluator.value(text, |_| from_json(&serde_json::json!({ "event": event })))?
        }
        Value::Array(items) => items.iter().map(|item| fill(evaluator, item, event)).collect::<Result<_, _>>()?,
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(name, item)| Ok((name.clone(), fill(evaluator, item, event)?)))
                .collect::<Result<_, String>>()?,
        ),
        other => other.clone(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patterns_fit_as_those_of_eventbridge_do() {
        let event = json!({
            "source": "aws.s3", "detail-type": "Object Created", "resources": ["arn:a", "arn:b"],
            "detail": { "bucket": { "name": "Data" }, "object": { "size": 512, "key": "in/x.csv" }, "reason": null },
        });
        let fits = |pattern: Value| Pattern::parse(&pattern).unwrap().matches(&event);
        for pattern in [
            json!({}),
            json!({"source": ["aws.ec2", "aws.s3"]}),
            json!({"resources": ["arn:b"]}),
            json!({"detail": {"bucket": {"name": [{"equals-ignore-case": "data"}]}}}),
            json!({"detail": {"object": {"key": [{"prefix": "in/"}], "size": [{"numeric": [">", 500, "<=", 512]}]}}}),
            json!({"detail": {"object": {"key": [{"suffix": ".csv"}], "size": [512.0]}}}),
            json!({"detail": {"object": {"key": [{"anything-but": ["a", {"prefix": "out/"}]}]}}}),
            json!({"detail": {"reason": [null], "none": [{"exists": false}], "bucket": {"name": [{"exists": true}]}}}),
            json!({"nothing": {"at": {"all": [{"exists": false}]}}}),
        ] {
            assert!(fits(pattern.clone()), "{pattern}");
        }
        for pattern in [
            json!({"source": ["aws.ec2"]}),
            json!({"source": ["aws.s3"], "account": ["1"]}),
            json!({"source": {"x": ["aws.s3"]}}),
            json!({"detail": {"object": {"size": [{"numeric": ["<", 512]}]}}}),
            json!({"detail": {"object": {"size": ["512"]}}}),
            json!({"detail": {"object": {"key": [{"anything-but": {"prefix": "in/"}}]}}}),
            json!({"detail": {"none": [{"anything-but": "x"}]}}),
            json!({"detail": {"reason": [{"exists": false}]}}),
        ] {
            assert!(!fits(pattern.clone()), "{pattern}");
        }
    }

    #[test]
    fn patterns_that_mean_nothing_are_refused() {
        for (pattern, why) in [
            (json!([]), "an object"),
            (json!({"a": "x"}), "write `[\"x\"]`"),
            (json!({"a": []}), "no event would fit"),
            (json!({"a": [[1]]}), "a list in a list"),
            (json!({"a": [{"prefx": "x"}]}), "did you mean `prefix`?"),
            (json!({"a": [{"prefix": 1}]}), "takes a text"),
            (json!({"a": [{"numeric": [">"]}]}), "takes a list"),
            (json!({"a": [{"numeric": ["~", 1]}]}), "compares by"),
            (json!({"a": [{"exists": "yes"}]}), "`true` or `false`"),
            (json!({"a": [{"prefix": "x", "suffix": "y"}]}), "has one of"),
        ] {
            let said = Pattern::parse(&pattern).unwrap_err();
            assert!(said.contains(why), "{pattern}: {said}");
        }
    }

    #[test]
    fn a_run_is_given_what_the_templates_say_or_the_detail() {
        let event = json!({"source": "me", "detail": {"server": "gpu-1", "count": 3}});
        let templates = json!({"server": "{{ event.detail.server }}", "n": "{{ event.detail.count }}", "list": ["{{ event.source }}!"]});
        let filled = conf(templates.as_object(), &event).unwrap();
        assert_eq!(Value::Object(filled), json!({"server": "gpu-1", "n": 3, "list": ["me!"]}));
        assert_eq!(Value::Object(conf(None, &event).unwrap()), json!({"server": "gpu-1", "count": 3}));
        assert!(conf(None, &json!({"detail": 1})).unwrap_err().contains("no object `detail`"));
        let missing = json!({"server": "{{ event.detail.sever }}"});
        assert!(conf(missing.as_object(), &event).unwrap_err().starts_with("`conf.server`: "));
        assert_eq!(check("{{ event.detail.x }}"), Ok(()));
        assert!(check("{{ params.x }}").unwrap_err().0.contains("no `params`"));
    }
}

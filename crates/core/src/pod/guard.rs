//! What a step may use of the steps before it: `$(steps.NAME.results.R)`, and whether its conditions hold.
//!
//! References are replaced when the step is about to begin, by whoever runs the pod. A text that names no step that ended
//! stays as it is written, since shells have `$(…)` too; one that names a result that such a step did not write is a fault.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Container, EnvSource, Guard};

/// What the steps that are over have left, by the names of the steps without `step-`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepFacts(pub BTreeMap<String, StepKnown>);

/// What one step has left; nothing, if it was skipped.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepKnown {
    /// Texts, lists of texts, objects of texts.
    pub results: BTreeMap<String, Value>,
    /// Its artifacts, by name: `{inputs: {…}, outputs: {…}}`.
    pub artifacts: Value,
}

impl StepFacts {
    /// Notes what the container of a step left.
    pub fn insert(&mut self, container: &str, known: StepKnown) {
        self.0.insert(short(container).to_owned(), known);
    }

    /// The text that a reference stands for; `None` if it is none.
    fn value(&self, reference: &str) -> Result<Option<Found>, String> {
        let Some(rest) = reference.strip_prefix("steps.") else { return Ok(None) };
        let Some((step, known, kind, name)) = self.0.iter().find_map(|(step, known)| {
            let rest = rest.strip_prefix(step.as_str())?.strip_prefix('.')?;
            let (kind, name) = ["results", "outputs", "inputs"].into_iter().find_map(|kind| {
                let name = rest.strip_prefix(kind)?;
                (name.starts_with('.') || name.starts_with('[')).then_some((kind, name))
            })?;
            Some((step, known, kind, name))
        }) else {
            return Ok(None);
        };
        let path = path_of(name).ok_or_else(|| format!("`$({reference})` is not a path that can be read"))?;
        let (Some(Part::Name(name)), rest) = (path.first(), &path[1..]) else {
            return Err(format!("`$({reference})` names no result"));
        };
        if kind != "results" {
            let found = known.artifacts.get(kind).and_then(|all| all.get(*name));
            let found = found.ok_or_else(|| format!("step `{step}` has no artifact `{name}` in its {kind}"))?;
            return Ok(Some(Found::Text(found.to_string())));
        }
        let whole = known.results.get(*name);
        let whole = whole.ok_or_else(|| format!("step `{step}` did not write its result `{name}`"))?;
        let missing = || format!("`$({reference})`: the result `{name}` of step `{step}` has no such part");
        Ok(Some(match rest {
            [] => Found::Text(text(whole)),
            [Part::Index(index)] => Found::Text(text(whole.get(*index).ok_or_else(missing)?)),
            [Part::Name(key)] => Found::Text(text(whole.get(*key).ok_or_else(missing)?)),
            [Part::All] => match whole {
                Value::Array(items) => Found::Texts(items.iter().map(text).collect()),
                other => Found::Text(text(other)),
            },
            _ => return Err(missing()),
        }))
    }

    /// The text with all references in it replaced.
    pub fn fill(&self, text: &str) -> Result<String, String> {
        self.fill_where(text, |_| true)
    }

    fn fill_where(&self, text: &str, wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("$(") {
            out.push_str(&rest[..at]);
            let inside = &rest[at + 2..];
            let found = match inside.find(')') {
                Some(end) if wanted(&inside[..end]) => self.value(&inside[..end])?.map(|found| (found, end)),
                _ => None,
            };
            match found {
                Some((found, end)) => {
                    out.push_str(&match found {
                        Found::Text(text) => text,
                        Found::Texts(texts) => Value::from(texts).to_string(),
                    });
                    rest = &inside[end + 1..];
                }
                None => {
                    out.push_str("$(");
                    rest = inside;
                }
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    /// The texts, where one that is nothing but `$(….[*])` becomes as many as the result has.
    pub fn fill_all(&self, texts: &[String]) -> Result<Vec<String>, String> {
        let mut out = Vec::with_capacity(texts.len());
        for text in texts {
            let alone = text.strip_prefix("$(").and_then(|t| t.strip_suffix(')')).filter(|t| !t.contains("$("));
            match alone.map(|reference| self.value(reference)).transpose()?.flatten() {
                Some(Found::Texts(texts)) => out.extend(texts),
                Some(Found::Text(text)) => out.push(text),
                None => out.push(self.fill(text)?),
            }
        }
        Ok(out)
    }

    /// Do all conditions hold? An error says which cannot be told.
    pub fn hold(&self, guards: &[Guard]) -> Result<bool, String> {
        for guard in guards {
            match guard {
                Guard::In { input, values, negate } => {
                    let input = self.fill(input)?;
                    if self.fill_all(values)?.contains(&input) == *negate {
                        return Ok(false);
                    }
                }
                Guard::Cel(expression) => {
                    return Err(format!(
                        "the condition `{expression}` of a step is written in CEL, which is not evaluated between the \
                         steps of a task; write it with `input`, `operator` and `values`"
                    ));
                }
            }
        }
        Ok(true)
    }
}

/// The container with everything put in that earlier steps have left: in its command, arguments, environment and
/// working directory; in its script artifacts alone, because `$(…)` there belongs to the shell.
pub fn substitute_steps(container: &Container, known: &StepFacts) -> Result<Container, String> {
    let mut filled = container.clone();
    if known.0.is_empty() {
        return Ok(filled);
    }
    filled.command = known.fill_all(&container.command)?;
    filled.args = known.fill_all(&container.args)?;
    for env in &mut filled.env {
        if let EnvSource::Text(text) = &mut env.from {
            *text = known.fill(text)?;
        }
    }
    filled.workdir = container.workdir.as_deref().map(|dir| known.fill(dir)).transpose()?;
    let is_artifact = |reference: &str| reference.contains(".outputs") || reference.contains(".inputs");
    filled.script = container.script.as_deref().map(|text| known.fill_where(text, is_artifact)).transpose()?;
    Ok(filled)
}

/// The name of a step, of that of its container.
pub fn short(container: &str) -> &str {
    container.strip_prefix("step-").unwrap_or(container)
}

enum Found {
    Text(String),
    Texts(Vec<String>),
}

#[derive(Debug, PartialEq)]
enum Part<'a> {
    Name(&'a str),
    Index(usize),
    All,
}

/// `.name`, `['name']`, `["name"]`, `[0]` and `[*]`, one after the other.
fn path_of(text: &str) -> Option<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            parts.push(Part::Name(after.get(..end).filter(|name| !name.is_empty())?));
            rest = &after[end..];
            continue;
        }
        let (inside, after) = rest.strip_prefix('[')?.split_once(']')?;
        let quoted = ['\'', '"'].into_iter().find_map(|quote| inside.strip_prefix(quote)?.strip_suffix(quote));
        parts.push(match (inside, quoted) {
            ("*", _) => Part::All,
            (_, Some(name)) => Part::Name(name),
            (number, None) => Part::Index(number.parse().ok()?),
        });
        rest = after;
    }
    Some(parts)
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts() -> StepFacts {
        let mut facts = StepFacts::default();
        let results = [
            ("one", json!("first\n")),
            ("many", json!(["a", "b"])),
            ("map", json!({"url": "u", "n": "2"})),
            ("d.o.t", json!("dotted")),
        ];
        let results = results.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
        let artifacts = json!({"outputs": {"image": [{"uri": "pkg:x"}]}});
        facts.insert("step-s", StepKnown { results, artifacts });
        facts.insert("step-skipped", StepKnown::default());
        facts
    }

    #[test]
    fn references_become_what_a_step_left_and_other_texts_stay() {
        for (text, wanted) in [
            ("<$(steps.s.results.one)>", "<first\n>"),
            ("$(steps.s.results.many[1])$(steps.s.results.map.url)", "bu"),
            ("$(steps.s.results['d.o.t'])", "dotted"),
            ("$(steps.s.results.many[*])", r#"["a","b"]"#),
            ("$(steps.other.results.one) $(date) $(", "$(steps.other.results.one) $(date) $("),
            ("$(steps.s.outputs.image)", r#"[{"uri":"pkg:x"}]"#),
        ] {
            assert_eq!(facts().fill(text).unwrap(), wanted, "{text}");
        }
        let texts = ["x".to_owned(), "$(steps.s.results.many[*])".to_owned()];
        assert_eq!(facts().fill_all(&texts).unwrap(), ["x", "a", "b"]);
    }

    #[test]
    fn what_a_step_did_not_write_is_a_fault_with_its_name() {
        for (text, part) in [
            ("$(steps.s.results.none)", "result `none`"),
            ("$(steps.skipped.results.one)", "step `skipped`"),
            ("$(steps.s.results.many[2])", "no such part"),
            ("$(steps.s.outputs.none)", "artifact `none`"),
        ] {
            assert!(facts().fill(text).unwrap_err().contains(part), "{text}");
        }
    }

    #[test]
    fn guards_compare_texts_exactly() {
        let guard = |input: &str, values: &[&str], negate| Guard::In {
            input: input.into(),
            values: values.iter().map(|v| (*v).to_owned()).collect(),
            negate,
        };
        let hold = |guards: &[Guard]| facts().hold(guards);
        assert!(hold(&[]).unwrap());
        assert!(hold(&[guard("$(steps.s.results.one)", &["first\n"], false)]).unwrap());
        assert!(!hold(&[guard("$(steps.s.results.one)", &["first"], false)]).unwrap());
        assert!(hold(&[guard("a", &["$(steps.s.results.many[*])"], false)]).unwrap());
        assert!(!hold(&[guard("a", &["a"], false), guard("a", &["$(steps.s.results.many[*])"], true)]).unwrap());
        assert!(hold(&[guard("$(steps.skipped.results.r)", &["a"], true)]).is_err());
        assert!(hold(&[Guard::Cel("true".into())]).unwrap_err().contains("CEL"));
    }
}

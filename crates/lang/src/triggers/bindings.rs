//! Params of bindings: texts with `$(…)`, which an event fills.

use std::collections::BTreeMap;

use super::jsonpath::{Path, Root, find, render};
use super::model::{Param, ParamSpec};
use super::stop::Stop;

/// A text taken apart: literal pieces, and paths with how they were written.
#[derive(Debug, Clone, PartialEq)]
enum Piece<'t> {
    Text(&'t str),
    Path(&'t str),
}

/// The text, and what stands in `$(…)` in it. An expression that is not closed is told by its beginning.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("$(") {
        let inner = &rest[start + 2..];
        let mut depth = 0;
        let end = inner.char_indices().find_map(|(at, c)| {
            match c {
                '(' => depth += 1,
                ')' if depth == 0 => return Some(at),
                ')' => depth -= 1,
                _ => {}
            }
            None
        });
        let end = end.ok_or_else(|| format!("`{}` is not closed by `)`", &rest[start..]))?;
        pieces.push(Piece::Text(&rest[..start]));
        pieces.push(Piece::Path(&inner[..end]));
        rest = &inner[end + 1..];
    }
    pieces.push(Piece::Text(rest));
    pieces.retain(|piece| *piece != Piece::Text(""));
    Ok(pieces)
}

/// The path, with the name of a header in its canonical form.
fn path(text: &str) -> Result<Path, String> {
    match text.strip_prefix("header.") {
        Some(name) => Path::parse(&format!("header.{}", super::event::canonical(name))),
        None => Path::parse(text),
    }
}

/// What is wrong with the value of a param, before there is an event.
pub fn check(value: &str) -> Result<(), String> {
    for piece in pieces(value)? {
        if let Piece::Path(text) = piece {
            path(text)?;
        }
    }
    Ok(())
}

/// The params of a template: its defaults, and what the bindings find in the event. Where a path finds nothing, the
/// default stands in for it; without one the trigger stops.
pub(super) fn params(
    bindings: &[Param],
    declared: &[ParamSpec],
    root: &Root<'_>,
) -> Result<BTreeMap<String, String>, Stop> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for spec in declared {
        if let Some(default) = &spec.default {
            values.insert(spec.name.clone(), default.clone());
        }
    }
    for param in bindings {
        let wrong = |why: String| {
            Stop::failed(format!("the param `{}` is `{}`: {why}", param.name, param.value)).by("bindings")
        };
        let mut value = String::new();
        for piece in pieces(&param.value).map_err(wrong)? {
            match piece {
                Piece::Text(text) => value.push_str(text),
                Piece::Path(text) => match path(text).and_then(|path| find(root, &path)) {
                    Ok(found) => value.push_str(&render(&found)),
                    Err(why) => match values.get(&param.name) {
                        Some(default) => value.push_str(default),
                        None => return Err(wrong(why)),
                    },
                },
            }
        }
        values.insert(param.name.clone(), value);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bound(value: &str, default: Option<&str>) -> Result<String, String> {
        let body = json!({"n": 7, "s": "a \"b\" $(header.X-A)", "o": {"b": [1]}, "empty": ""});
        let header = json!({"X-A": "one,two"});
        let (extensions, context) = (json!({}), json!({"eventID": "e"}));
        let root = Root { body: &body, header: &header, extensions: &extensions, context: &context };
        let declared = [ParamSpec { name: "p".into(), default: default.map(Into::into), ..ParamSpec::default() }];
        let bindings = [Param { name: "p".into(), value: value.into() }];
        let params = params(&bindings, &declared, &root).map_err(|stop| stop.to_string())?;
        Ok(params["p"].clone())
    }

    #[test]
    fn values_are_filled_and_fit_into_json() {
        assert_eq!(bound("plain", None).unwrap(), "plain");
        assert_eq!(bound("n=$(body.n), $(body.o)", None).unwrap(), "n=7, {\"b\":[1]}");
        assert_eq!(bound("$(header.x-a)", None).unwrap(), "one,two");
        assert_eq!(bound("$(context.eventID)", None).unwrap(), "e");
        assert_eq!(bound("$(body.empty)", Some("d")).unwrap(), "");
        assert_eq!(bound("a)(b", None).unwrap(), "a)(b");
    }

    /// What an event says is never read as an expression.
    #[test]
    fn what_was_filled_in_is_not_filled_again() {
        assert_eq!(bound("$(body.s) $(header.X-A)", None).unwrap(), "a \\\"b\\\" $(header.X-A) one,two");
    }

    #[test]
    fn what_is_not_there_is_the_default_or_a_stop() {
        assert_eq!(bound("x-$(body.nothing)", Some("d")).unwrap(), "x-d");
        let told = "bindings: the param `p` is `x-$(body.nothing)`: `nothing` is not found";
        assert_eq!(bound("x-$(body.nothing)", None).unwrap_err(), told);
        assert!(bound("$(body.a", None).unwrap_err().contains("is not closed"));
        assert!(check("$(bodi.a)").unwrap_err().contains("begins with `body`"));
        assert_eq!(check("$(body.a[?(@.b == 'c')].d) and $(header.X)"), Ok(()));
    }
}

//! Templates: what a trigger makes, as text with `$(tt.params.x)` and `$(uid)`.
//!
//! Values are put into the text in one pass, so nothing that an event says is read as a variable; and `$(` in them
//! becomes `$$(`, which Tekton takes for plain text when the object runs.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::stop::Stop;

/// The annotation of a TriggerTemplate whose values hold quotes that are to be escaped once more.
pub const OLD_ESCAPE: &str = "triggers.tekton.dev/old-escape-quotes";
const PARAM: &str = "$(tt.params.";
const UID: &str = "$(uid)";

/// An object that a trigger makes.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    /// Empty if it has only the beginning of one (`generateName`).
    pub name: String,
    /// All of it, with its namespace and labels.
    pub object: Value,
}

/// Which trigger made it, for its labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maker<'m> {
    pub listener: &'m str,
    pub trigger: &'m str,
    pub event: &'m str,
    pub namespace: &'m str,
}

/// What can be made here. Anything else would need a cluster.
pub const KINDS: [(&str, &str); 7] = [
    ("tekton.dev/v1", "PipelineRun"),
    ("tekton.dev/v1beta1", "PipelineRun"),
    ("tekton.dev/v1", "TaskRun"),
    ("tekton.dev/v1beta1", "TaskRun"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "PersistentVolumeClaim"),
];

/// Why an object of this kind cannot be made; one whose kind is a param shows only when it is.
pub(super) fn refusal(api_version: &str, kind: &str) -> Option<String> {
    let is_known = KINDS.contains(&(api_version, kind));
    let is_open = api_version.contains(PARAM) || kind.contains(PARAM);
    (!is_known && !is_open).then(|| {
        format!(
            "`{kind}` of `{api_version}` cannot be made here: a trigger makes PipelineRuns and TaskRuns of tekton.dev/v1 \
             or v1beta1, ConfigMaps, Secrets and PersistentVolumeClaims"
        )
    })
}

/// The names of params in a template.
pub(super) fn names(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices(PARAM).filter_map(|(at, found)| text[at + found.len()..].split_once(')').map(|(name, _)| name))
}

/// The text with everything in its place.
fn fill(text: &str, params: &BTreeMap<String, String>, old_escape: bool, uid: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("$(") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix(UID) {
            out.push_str(uid);
            rest = after;
            continue;
        }
        let Some((name, after)) = rest.strip_prefix(PARAM).and_then(|rest| rest.split_once(')')) else {
            out.push_str("$(");
            rest = &rest[2..];
            continue;
        };
        let value = params.get(name).ok_or_else(|| format!("the param `{name}` has neither a value nor a default"))?;
        let value = if old_escape { value.replace('"', "\\\"") } else { value.clone() };
        out.push_str(&value.replace("$(", "$$("));
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// The objects, each with the labels that tell where it came from.
pub(super) fn resources(
    templates: &[Value],
    params: &BTreeMap<String, String>,
    old_escape: bool,
    uid: &str,
    maker: &Maker<'_>,
) -> Result<Vec<Resource>, Stop> {
    let made = templates.iter().enumerate().map(|(n, template)| {
        let text = fill(&template.to_string(), params, old_escape, uid)?;
        let object: Value = serde_json::from_str(&text).map_err(|error| {
            let hint = "a value that is an object, a list, or a text with quotes of its own does not fit into a text";
            format!("resourcetemplates[{n}] is no JSON any more: {error}; {hint}")
        })?;
        finish(object, maker).map_err(|why| format!("resourcetemplates[{n}]: {why}"))
    });
    made.collect::<Result<_, String>>().map_err(|why| Stop::failed(why).by("template"))
}

fn finish(mut object: Value, maker: &Maker<'_>) -> Result<Resource, String> {
    let root = object.as_object_mut().ok_or("it is no object")?;
    let text = |root: &Map<String, Value>, key: &str| root.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let (api_version, kind) = (text(root, "apiVersion"), text(root, "kind"));
    if api_version.is_empty() || kind.is_empty() {
        return Err("`apiVersion` and `kind` must be there".into());
    }
    let meta = root.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    let meta = meta.as_object_mut().ok_or("`metadata` is no mapping")?;
    let name = text(meta, "name");
    if name.is_empty() && text(meta, "generateName").is_empty() {
        return Err("`metadata` needs `name` or `generateName`".into());
    }
    let mut namespace = text(meta, "namespace");
    if namespace.is_empty() {
        namespace = maker.namespace.to_owned();
        meta.insert("namespace".into(), namespace.clone().into());
    }
    let labels = meta.entry("labels").or_insert_with(|| Value::Object(Map::new()));
    if labels.is_null() {
        *labels = Value::Object(Map::new());
    }
    let labels = labels.as_object_mut().ok_or("`metadata.labels` is no mapping")?;
    for (key, value) in
        [("eventlistener", maker.listener), ("trigger", maker.trigger), ("triggers-eventid", maker.event)]
    {
        labels.insert(format!("triggers.tekton.dev/{key}"), value.into());
    }
    for (key, value) in labels {
        let value = value.as_str().ok_or_else(|| format!("the label `{key}` is no text"))?;
        if !is_label(value) {
            let rule =
                "a label has at most 63 letters, digits, `-`, `_` and `.`, with a letter or a digit at both ends";
            return Err(format!("the label `{key}` cannot be `{value}`: {rule}"));
        }
    }
    Ok(Resource { api_version, kind, namespace, name, object })
}

/// What Kubernetes takes as the value of a label.
pub(super) fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()].into_iter().flatten().all(u8::is_ascii_alphanumeric);
    let all = bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    bytes.len() <= 63 && ends && all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MAKER: Maker<'static> = Maker { listener: "el", trigger: "t", event: "e-1", namespace: "ci" };

    fn one(template: Value, params: &[(&str, &str)], old_escape: bool) -> Result<Value, String> {
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let made = resources(&[template], &params, old_escape, "u-1", &MAKER).map_err(|stop| stop.to_string())?;
        Ok(made[0].object.clone())
    }

    #[test]
    fn an_object_is_filled_and_labelled() {
        let template = json!({"apiVersion": "v1", "kind": "X", "metadata": {"generateName": "run-$(uid)-"},
            "spec": {"$(tt.params.a)": "a=$(tt.params.a) $(params.b) $(uid)"}});
        let labels = json!({"triggers.tekton.dev/eventlistener": "el", "triggers.tekton.dev/trigger": "t",
            "triggers.tekton.dev/triggers-eventid": "e-1"});
        let expected = json!({"apiVersion": "v1", "kind": "X",
            "metadata": {"generateName": "run-u-1-", "namespace": "ci", "labels": labels},
            "spec": {"main": "a=main $(params.b) u-1"}});
        assert_eq!(one(template, &[("a", "main")], false).unwrap(), expected);
    }

    #[test]
    fn values_stay_values() {
        let template = |text: &str| json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "n"}, "x": text});
        let x = |text: &str, params: &[(&str, &str)]| one(template(text), params, false).map(|made| made["x"].clone());
        // Bindings give texts that were escaped for JSON.
        assert_eq!(x("$(tt.params.a)", &[("a", "a \\\"b\\\"\\n")]).unwrap(), "a \"b\"\n");
        // Neither a variable of Tekton, nor of the template, is made by an event.
        let params = [("a", "$(tt.params.b) $(params.secret) $(uid)"), ("b", "!")];
        assert_eq!(x("$(tt.params.a)", &params).unwrap(), "$$(tt.params.b) $$(params.secret) $$(uid)");
        assert!(x("$(tt.params.a)", &[("a", "{\"b\":1}")]).unwrap_err().contains("is no JSON any more"));
        assert!(x("$(tt.params.c)", &params).unwrap_err().contains("the param `c` has neither a value nor a default"));
        let old = one(template("$(tt.params.a)"), &[("a", "{\"b\":1}")], true).unwrap();
        assert_eq!(old["x"], "{\"b\":1}");
    }

    #[test]
    fn what_kubernetes_would_not_take_is_refused() {
        let with = |meta: Value| {
            one(json!({"apiVersion": "v1", "kind": "X", "metadata": meta}), &[("r", "refs/heads/main")], false)
        };
        let told = with(json!({"name": "n", "labels": {"ref": "$(tt.params.r)"}})).unwrap_err();
        assert!(told.contains("resourcetemplates[0]: the label `ref` cannot be `refs/heads/main`"), "{told}");
        assert!(with(json!({"labels": {}})).unwrap_err().contains("`name` or `generateName`"));
        assert!(one(json!({"kind": "X", "metadata": {"name": "n"}}), &[], false).unwrap_err().contains("`apiVersion`"));
        assert!(is_label("") && is_label("a.B-1_c") && !is_label("-a") && !is_label(&"a".repeat(64)));
    }
}

//! What is given to a run on the command line: `-p` and `-w`, in the forms of `tkn`.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::cli::error::invalid;
use crate::cli::load;

/// Puts params into a run's document. How a text is read follows from the declaration of the param: `a,b` is an array,
/// `k:v,k:v` an object.
pub fn params(run: &mut Value, declared: &[Value], given: &[String]) -> anyhow::Result<()> {
    for argument in given {
        let (name, text) = argument
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| invalid(format!("`-p {argument}` is no param\nhint: write `-p NAME=VALUE`")))?;
        let Some(param) = declared.iter().find(|param| param["name"] == name) else {
            let names = declared.iter().filter_map(|param| param["name"].as_str());
            let hint = match pitcrew_lang::diagnostic::closest(name, names.clone()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None if declared.is_empty() => "it has no params".to_owned(),
                None => format!("it has {}", names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
            };
            return Err(invalid(format!("what is to run has no param `{name}`\nhint: {hint}")));
        };
        let value = value(text, kind(param)).map_err(|why| invalid(format!("`-p {argument}`: {why}")))?;
        put(run, "params", json!({ "name": name, "value": value }))?;
    }
    Ok(())
}

/// The type of a param, as Tekton finds it out where none is written.
fn kind(param: &Value) -> &str {
    match param["type"].as_str() {
        Some(kind) => kind,
        None if param["default"].is_array() => "array",
        None if param["default"].is_object() || param["properties"].is_object() => "object",
        None => "string",
    }
}

fn value(text: &str, kind: &str) -> Result<Value, String> {
    match kind {
        // `tkn` has no way to give an empty list; an empty text is one here.
        "array" if text.is_empty() => Ok(json!([])),
        "array" => Ok(text.split(',').map(str::trim).map(Value::from).collect()),
        "object" => {
            let mut object = Map::new();
            for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
                let (key, value) =
                    pair.split_once(':').ok_or_else(|| format!("`{}` is not `KEY:VALUE`", pair.trim()))?;
                object.insert(key.trim().to_owned(), Value::from(value.trim()));
            }
            Ok(Value::Object(object))
        }
        _ => Ok(Value::from(text)),
    }
}

/// Binds workspaces in a run's document.
pub fn workspaces(run: &mut Value, given: &[String]) -> anyhow::Result<()> {
    for argument in given {
        let binding = workspace(argument)?;
        put(run, "workspaces", binding)?;
    }
    Ok(())
}

const FORMS: &str = "write `-w name=NAME,emptyDir=`, `-w name=NAME,claimName=CLAIM[,subPath=DIR]`, \
     `-w name=NAME,config=CONFIGMAP`, `-w name=NAME,secret=SECRET` or `-w name=NAME,volumeClaimTemplateFile=FILE`";

fn workspace(argument: &str) -> anyhow::Result<Value> {
    let wrong = |why: &str| invalid(format!("`-w {argument}`: {why}\nhint: {FORMS}"));
    let (mut name, mut sub_path, mut kind) = (None, None, None::<(&str, Value)>);
    let mut items = Vec::new();
    for part in argument.split(',') {
        let (key, text) = part.split_once('=').ok_or_else(|| wrong(&format!("`{part}` is not `KEY=VALUE`")))?;
        let bound = match key.trim() {
            "name" => {
                name = Some(text);
                continue;
            }
            "subPath" => {
                sub_path = Some(text);
                continue;
            }
            "item" => {
                let (key, path) = text.split_once('=').ok_or_else(|| wrong("an item is `item=KEY=PATH`"))?;
                items.push(json!({ "key": key, "path": path }));
                continue;
            }
            "emptyDir" => match text {
                "" => ("emptyDir", json!({})),
                medium => ("emptyDir", json!({ "medium": medium })),
            },
            "claimName" => ("persistentVolumeClaim", json!({ "claimName": text })),
            "config" => ("configMap", json!({ "name": text })),
            "secret" => ("secret", json!({ "secretName": text })),
            "volumeClaimTemplateFile" => ("volumeClaimTemplate", template(Path::new(text))?),
            other => return Err(wrong(&format!("`{other}` is not known"))),
        };
        if kind.replace(bound).is_some() {
            return Err(wrong("a workspace is bound to one thing"));
        }
    }
    let name = name.filter(|name| !name.is_empty()).ok_or_else(|| wrong("the name of the workspace is missing"))?;
    let (field, mut source) = kind.ok_or_else(|| wrong("what it is bound to is missing"))?;
    if !items.is_empty() {
        match field {
            "configMap" | "secret" => source["items"] = Value::Array(items),
            _ => return Err(wrong("only a ConfigMap or a Secret has items")),
        }
    }
    let mut binding = json!({ "name": name, field: source });
    if let Some(path) = sub_path {
        binding["subPath"] = json!(path);
    }
    Ok(binding)
}

fn template(path: &Path) -> anyhow::Result<Value> {
    let document = Value::Object(load::object(path, "claim")?);
    let mut template = json!({ "spec": document["spec"] });
    if document["metadata"].is_object() {
        template["metadata"] = document["metadata"].clone();
    }
    Ok(template)
}

/// Sets the entry of that name in a list of `spec`.
fn put(run: &mut Value, list: &str, entry: Value) -> anyhow::Result<()> {
    let wrong = || invalid(format!("the run's `spec.{list}` is not a list"));
    let spec = run["spec"].as_object_mut().ok_or_else(wrong)?;
    let all = spec.entry(list).or_insert_with(|| json!([])).as_array_mut().ok_or_else(wrong)?;
    match all.iter_mut().find(|old| old["name"] == entry["name"]) {
        Some(old) => *old = entry,
        None => all.push(entry),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(declared: Value, arguments: &[&str]) -> Result<Value, String> {
        let mut run = json!({ "spec": { "params": [{ "name": "a", "value": "old" }] } });
        let arguments: Vec<String> = arguments.iter().map(|text| text.to_string()).collect();
        params(&mut run, declared.as_array().unwrap(), &arguments).map_err(|error| error.to_string())?;
        Ok(run["spec"]["params"].clone())
    }

    #[test]
    fn params_are_read_by_their_declaration_and_win_over_the_file() {
        let declared = json!([
            { "name": "a" },
            { "name": "list", "type": "array" },
            { "name": "map", "properties": { "k": {} } },
            { "name": "dotted.name", "default": ["x"] },
        ]);
        let found = given(declared.clone(), &["a=x=y,z", "list=1, 2", "map=k: v, url:http://h:80", "dotted.name="]);
        assert_eq!(
            found.unwrap(),
            json!([
                { "name": "a", "value": "x=y,z" },
                { "name": "list", "value": ["1", "2"] },
                { "name": "map", "value": { "k": "v", "url": "http://h:80" } },
                { "name": "dotted.name", "value": [] },
            ])
        );
        for (argument, expected) in [
            ("a", "`-p a` is no param\nhint: write `-p NAME=VALUE`"),
            ("lst=1", "what is to run has no param `lst`\nhint: did you mean `list`?"),
            ("map=k", "`-p map=k`: `k` is not `KEY:VALUE`"),
        ] {
            assert_eq!(given(declared.clone(), &[argument]).unwrap_err(), expected);
        }
    }

    #[test]
    fn workspaces_are_bound_as_tkn_does_it() {
        for (argument, expected) in [
            ("name=w,emptyDir=", json!({ "name": "w", "emptyDir": {} })),
            ("name=w,emptyDir=Memory", json!({ "name": "w", "emptyDir": { "medium": "Memory" } })),
            (
                "name=w,claimName=data,subPath=a/b",
                json!({ "name": "w", "persistentVolumeClaim": { "claimName": "data" }, "subPath": "a/b" }),
            ),
            (
                "name=w,config=c,item=k=p",
                json!({ "name": "w", "configMap": { "name": "c", "items": [{ "key": "k", "path": "p" }] } }),
            ),
            ("name=w,secret=s", json!({ "name": "w", "secret": { "secretName": "s" } })),
        ] {
            let mut run = json!({ "spec": { "workspaces": [{ "name": "w", "emptyDir": {} }] } });
            workspaces(&mut run, &[argument.to_owned()]).unwrap();
            assert_eq!(run["spec"]["workspaces"], json!([expected]), "{argument}");
        }
        for (argument, why) in [
            ("w", "`w` is not `KEY=VALUE`"),
            ("name=w", "what it is bound to is missing"),
            ("emptyDir=", "the name of the workspace is missing"),
            ("name=w,emptyDir=,secret=s", "a workspace is bound to one thing"),
            ("name=w,claim=c", "`claim` is not known"),
            ("name=w,emptyDir=,item=a=b", "only a ConfigMap or a Secret has items"),
        ] {
            let mut run = json!({ "spec": {} });
            let found = workspaces(&mut run, &[argument.to_owned()]).unwrap_err().to_string();
            assert_eq!(found, format!("`-w {argument}`: {why}\nhint: {FORMS}"));
        }
    }
}

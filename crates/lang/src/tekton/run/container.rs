//! A step or a sidecar of Tekton, after substitution, as a container of a pod.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use pitcrew_core::pod::{
    Container, ContainerResources, Env, EnvFrom, EnvSource, Guard, Mount, OnError, Probe, ProbeHow, Probes, Pull,
    ResultDecl, ResultKind, Security,
};
use serde_json::{Map, Value};

use crate::tekton::model::GoDuration;
use crate::tekton::substitute::text_of;

/// What goes before a script that names no interpreter.
const PREAMBLE: &str = "#!/bin/sh\nset -e\n";

/// What Kubernetes alone understands of a container.
const OF_CLUSTERS: [&str; 8] = [
    "lifecycle",
    "tty",
    "stdin",
    "stdinOnce",
    "volumeDevices",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "restartPolicy",
];

/// Makes a container called `name` of a step or a sidecar. An error is a sentence about a value that cannot be used.
pub fn container(name: String, from: &Value) -> Result<Container, String> {
    let wrong = |field: &str, why: String| format!("`{field}` of `{name}`: {why}");
    let image = text(from, "image");
    if image.is_empty() {
        return Err(wrong("image", "it names none".into()));
    }
    let timeout = match from["timeout"].as_str() {
        None => None,
        Some(written) => Some(duration(written).map_err(|why| wrong("timeout", why))?),
    };
    let on_error = match from["onError"].as_str() {
        None | Some("" | "stopAndFail") => OnError::Stop,
        Some("continue") => OnError::Continue,
        Some(other) => {
            return Err(wrong("onError", format!("it is `continue` or `stopAndFail`, not `{other}`")));
        }
    };
    let mut cluster = Map::new();
    for field in OF_CLUSTERS {
        if let Some(value) = from.get(field) {
            cluster.insert(field.to_owned(), value.clone());
        }
    }
    Ok(Container {
        image,
        pull: match from["imagePullPolicy"].as_str() {
            Some("Always") => Pull::Always,
            Some("Never") => Pull::Never,
            _ => Pull::IfNotPresent,
        },
        command: texts(&from["command"]),
        args: texts(&from["args"]),
        script: from["script"].as_str().filter(|script| !script.is_empty()).map(script),
        env: items(&from["env"]).iter().map(env).collect(),
        env_from: items(&from["envFrom"]).iter().map(env_from).collect(),
        workdir: Some(text(from, "workingDir")).filter(|dir| !dir.is_empty()),
        mounts: items(&from["volumeMounts"]).iter().map(mount).collect(),
        security: security(&from["securityContext"]),
        resources: resources(&from["computeResources"]),
        timeout: timeout.filter(|limit| *limit > SignedDuration::ZERO),
        on_error,
        when: items(&from["when"]).iter().map(guard).collect(),
        results: results(&from["results"]),
        stdout_to: from["stdoutConfig"]["path"].as_str().map(str::to_owned),
        stderr_to: from["stderrConfig"]["path"].as_str().map(str::to_owned),
        probes: Probes {
            startup: probe(&from["startupProbe"], &from["ports"]).map_err(|why| wrong("startupProbe", why))?,
            readiness: probe(&from["readinessProbe"], &from["ports"]).map_err(|why| wrong("readinessProbe", why))?,
            liveness: probe(&from["livenessProbe"], &from["ports"]).map_err(|why| wrong("livenessProbe", why))?,
        },
        ports: items(&from["ports"]).to_vec(),
        cluster: if cluster.is_empty() { Value::Null } else { Value::Object(cluster) },
        name,
    })
}

/// A script as it is executed.
fn script(text: &str) -> String {
    match text.trim_start() {
        named if named.starts_with("#!") => named.to_owned(),
        _ => format!("{PREAMBLE}{text}"),
    }
}

pub fn duration(text: &str) -> Result<SignedDuration, String> {
    text.parse::<GoDuration>().map(|duration| duration.0)
}

/// A condition, of a step or of a task of a pipeline.
pub fn guard(from: &Value) -> Guard {
    match from["cel"].as_str() {
        Some(cel) if !cel.is_empty() => Guard::Cel(cel.to_owned()),
        _ => Guard::In {
            input: text(from, "input"),
            values: texts(&from["values"]),
            negate: from["operator"].as_str().is_some_and(|operator| operator.eq_ignore_ascii_case("notin")),
        },
    }
}

/// Declared results.
pub fn results(from: &Value) -> Vec<ResultDecl> {
    let declared = |result: &Value| ResultDecl {
        name: text(result, "name"),
        kind: match result["type"].as_str() {
            Some("array") => ResultKind::List,
            Some("object") => ResultKind::Map,
            Some(_) => ResultKind::Text,
            None if result["properties"].is_object() => ResultKind::Map,
            None => ResultKind::Text,
        },
        value: result.get("value").filter(|value| !value.is_null()).map(text_of),
    };
    items(from).iter().map(declared).collect()
}

pub fn env(from: &Value) -> Env {
    let source = &from["valueFrom"];
    let key = |of: &Value| (text(of, "name"), text(of, "key"), is_true(&of["optional"]));
    let from_where = if let Some(of) = source.get("secretKeyRef") {
        let (name, key, optional) = key(of);
        EnvSource::Secret { name, key, optional }
    } else if let Some(of) = source.get("configMapKeyRef") {
        let (name, key, optional) = key(of);
        EnvSource::ConfigMap { name, key, optional }
    } else if let Some(of) = source.get("fieldRef") {
        EnvSource::Field(text(of, "fieldPath"))
    } else if let Some(of) = source.get("resourceFieldRef") {
        EnvSource::Resource(of.clone())
    } else {
        EnvSource::Text(text_of(&from["value"]))
    };
    Env { name: text(from, "name"), from: from_where }
}

/// A path with `$(NAME)` of variables whose values are written out, as Kubernetes fills it in. It must stay in its volume.
pub fn expanded(path: &str, env: &[Env]) -> Result<String, String> {
    let mut known = BTreeMap::new();
    for variable in env {
        if let EnvSource::Text(text) = &variable.from {
            let value = substituted(text, |name| known.get(name).cloned());
            known.insert(variable.name.clone(), value);
        }
    }
    let mut missing = None;
    let filled = substituted(path, |name| {
        let found = known.get(name).cloned();
        missing = missing.take().or_else(|| found.is_none().then(|| name.to_owned()));
        found
    });
    if let Some(name) = missing {
        return Err(format!("`{name}` is no variable of it whose value is written out"));
    }
    if filled.starts_with('/') || filled.split('/').any(|part| part == "..") {
        return Err(format!("`{filled}` leaves the volume: it must be relative and without `..`"));
    }
    Ok(filled)
}

/// `$(NAME)` by what it stands for; what is not known stays, and `$$(` is `$(`.
fn substituted(text: &str, mut value: impl FnMut(&str) -> Option<String>) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let name = rest.strip_prefix('(').and_then(|inner| Some(&inner[..inner.find(')')?]));
        match name.map(|name| (name, value(name))) {
            Some((name, Some(value))) => {
                out.push_str(&value);
                rest = &rest[name.len() + 2..];
            }
            _ => out.push('$'),
        }
    }
    out.push_str(rest);
    out
}

fn env_from(from: &Value) -> EnvFrom {
    let is_secret = from.get("secretRef").is_some();
    let of = if is_secret { &from["secretRef"] } else { &from["configMapRef"] };
    EnvFrom { prefix: text(from, "prefix"), is_secret, name: text(of, "name"), optional: is_true(&of["optional"]) }
}

fn mount(from: &Value) -> Mount {
    Mount {
        volume: text(from, "name"),
        at: text(from, "mountPath"),
        sub_path: Some(text(from, "subPath")).filter(|path| !path.is_empty()),
        read_only: is_true(&from["readOnly"]),
    }
}

pub fn security(from: &Value) -> Security {
    const OURS: [&str; 7] = [
        "runAsUser",
        "runAsGroup",
        "runAsNonRoot",
        "privileged",
        "allowPrivilegeEscalation",
        "readOnlyRootFilesystem",
        "capabilities",
    ];
    Security {
        run_as_user: id(&from["runAsUser"]),
        run_as_group: id(&from["runAsGroup"]),
        run_as_non_root: from["runAsNonRoot"].as_bool(),
        privileged: from["privileged"].as_bool(),
        allow_privilege_escalation: from["allowPrivilegeEscalation"].as_bool(),
        read_only_root: from["readOnlyRootFilesystem"].as_bool(),
        add_capabilities: texts(&from["capabilities"]["add"]),
        drop_capabilities: texts(&from["capabilities"]["drop"]),
        cluster: rest(from, &OURS),
    }
}

/// What is left of an object without these fields; null if nothing is.
pub fn rest(from: &Value, without: &[&str]) -> Value {
    let Some(map) = from.as_object() else { return Value::Null };
    let rest: Map<String, Value> =
        map.iter().filter(|(key, _)| !without.contains(&key.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect();
    if rest.is_empty() { Value::Null } else { Value::Object(rest) }
}

pub fn resources(from: &Value) -> ContainerResources {
    ContainerResources { requests: text_of_map(&from["requests"]), limits: text_of_map(&from["limits"]) }
}

fn probe(from: &Value, ports: &Value) -> Result<Option<Probe>, String> {
    let port = |of: &Value| -> Result<u16, String> {
        let number = match &of["port"] {
            Value::String(name) => match items(ports).iter().find(|port| port["name"] == name.as_str()) {
                Some(port) => port["containerPort"].as_u64(),
                None => name.parse().ok(),
            },
            other => other.as_u64(),
        };
        number.and_then(|number| u16::try_from(number).ok()).ok_or_else(|| format!("{} is no port of it", of["port"]))
    };
    let host = |of: &Value| of["host"].as_str().map(str::to_owned);
    let how = if let Some(of) = from.get("exec") {
        ProbeHow::Exec(texts(&of["command"]))
    } else if let Some(of) = from.get("httpGet") {
        let headers = items(&of["httpHeaders"]);
        ProbeHow::Http {
            host: host(of),
            port: port(of)?,
            path: of["path"].as_str().unwrap_or("/").to_owned(),
            https: of["scheme"].as_str().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
            headers: headers.iter().map(|header| (text(header, "name"), text(header, "value"))).collect(),
        }
    } else if let Some(of) = from.get("tcpSocket") {
        ProbeHow::Tcp { host: host(of), port: port(of)? }
    } else if from.is_null() {
        return Ok(None);
    } else {
        return Err("it says neither `exec`, `httpGet` nor `tcpSocket`".into());
    };
    let seconds = |field: &str, usual: i64| SignedDuration::from_secs(from[field].as_i64().unwrap_or(usual));
    let count = |field: &str, usual: u32| from[field].as_u64().map_or(usual, |n| n.min(u32::MAX.into()) as u32);
    Ok(Some(Probe {
        how,
        initial_delay: seconds("initialDelaySeconds", 0),
        period: seconds("periodSeconds", 10),
        timeout: seconds("timeoutSeconds", 1),
        successes: count("successThreshold", 1),
        failures: count("failureThreshold", 3),
    }))
}

pub fn id(from: &Value) -> Option<u32> {
    from.as_u64().and_then(|id| u32::try_from(id).ok())
}

pub fn is_true(value: &Value) -> bool {
    value.as_bool() == Some(true)
}

pub fn text(of: &Value, field: &str) -> String {
    of.get(field).map(text_of).unwrap_or_default()
}

pub fn texts(of: &Value) -> Vec<String> {
    items(of).iter().map(text_of).collect()
}

pub fn items(of: &Value) -> &[Value] {
    of.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// An object of texts.
pub fn text_of_map(of: &Value) -> BTreeMap<String, String> {
    of.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), text_of(value))).collect()
}

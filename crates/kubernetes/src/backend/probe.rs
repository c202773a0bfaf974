//! Probes of containers, by Kubernetes' names.

use jiff::SignedDuration;
use pitcrew_core::pod::{Probe, ProbeHow};
use serde_json::{Value, json};

pub fn probe(from: &Probe) -> Value {
    let mut of = match &from.how {
        ProbeHow::Exec(command) => json!({ "exec": { "command": command } }),
        ProbeHow::Http { host, port, path, https, headers } => {
            let headers: Vec<Value> =
                headers.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
            let scheme = if *https { "HTTPS" } else { "HTTP" };
            let mut get = json!({ "port": port, "path": path, "scheme": scheme, "httpHeaders": headers });
            if let Some(host) = host {
                get["host"] = host.clone().into();
            }
            json!({ "httpGet": get })
        }
        ProbeHow::Tcp { host, port } => {
            let mut socket = json!({ "port": port });
            if let Some(host) = host {
                socket["host"] = host.clone().into();
            }
            json!({ "tcpSocket": socket })
        }
    };
    let seconds = |of: SignedDuration, least: i64| of.as_secs().max(least);
    of["initialDelaySeconds"] = seconds(from.initial_delay, 0).into();
    of["periodSeconds"] = seconds(from.period, 1).into();
    of["timeoutSeconds"] = seconds(from.timeout, 1).into();
    of["successThreshold"] = from.successes.max(1).into();
    of["failureThreshold"] = from.failures.max(1).into();
    of
}

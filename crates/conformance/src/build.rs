//! Pods, shortly said.

use serde_json::{Value, json};

/// A pod of Tekton's shape with these steps.
pub fn pod(steps: Value) -> Value {
    pod_with(steps, json!({}))
}

/// As [`pod`], with these fields besides.
pub fn pod_with(steps: Value, fields: Value) -> Value {
    let pod = json!({"name": "p", "hostname": "the-pod", "namespace": "default", "steps": steps, "shape": "tekton"});
    with(pod, fields)
}

/// A step of alpine with a script.
pub fn step(name: &str, script: &str) -> Value {
    json!({"name": format!("step-{name}"), "image": "alpine", "script": script})
}

/// As [`step`], with these fields besides.
pub fn step_with(name: &str, script: &str, fields: Value) -> Value {
    with(step(name, script), fields)
}

/// The fields of a pod with one sidecar, `sidecar-s`, of alpine.
pub fn sidecar(script: &str, probes: Value) -> Value {
    json!({"sidecars": [{"name": "sidecar-s", "image": "alpine", "script": script, "probes": probes}]})
}

/// A probe that asks often, and has failed after so many times.
pub fn probe(how: Value, failures: u32) -> Value {
    json!({"how": how, "initial_delay": "0s", "period": "20ms", "timeout": "10s", "successes": 1, "failures": failures})
}

fn with(mut object: Value, fields: Value) -> Value {
    if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
        object.extend(fields);
    }
    object
}

//! What LimitRanges say of containers: amounts for those that say nothing, and bounds for all.

use std::collections::BTreeMap;

use pitcrew_core::pod::ContainerResources;
use serde_json::{Value, json};

use super::container::text_of_map;
use crate::quantity::{parse_cpu, parse_memory};

/// Gives a container what it did not ask for. `limits`: the items of LimitRanges for containers; of two, the first says it.
pub fn fill(resources: &mut ContainerResources, limits: &[Value]) {
    let lay = |on: &mut BTreeMap<String, String>, by: &BTreeMap<String, String>| {
        for (name, amount) in by {
            on.entry(name.clone()).or_insert_with(|| amount.clone());
        }
    };
    if limits.is_empty() {
        return;
    }
    // Whoever has a limit and says nothing more asks for all of it.
    lay(&mut resources.requests, &resources.limits);
    for item in limits {
        lay(&mut resources.limits, &text_of_map(&item["default"]));
        lay(&mut resources.requests, &text_of_map(&item["defaultRequest"]));
        lay(&mut resources.requests, &text_of_map(&item["default"]));
        // Steps are no less than what any container must be.
        for (name, least) in text_of_map(&item["min"]) {
            let is_less =
                |own: &String| amount(&name, own).zip(amount(&name, &least)).is_some_and(|(own, least)| own < least);
            if resources.requests.get(&name).is_none_or(is_less) {
                resources.requests.insert(name, least);
            }
        }
    }
}

/// Whether a container keeps within all bounds, by its name; an error is what Kubernetes says of one that does not.
pub fn check(name: &str, resources: &ContainerResources, limits: &[Value]) -> Result<(), String> {
    for item in limits {
        for (what, most) in text_of_map(&item["max"]) {
            let Some(limit) = resources.limits.get(&what) else {
                return Err(format!("maximum {what} usage per Container is {most}, and `{name}` has no limit"));
            };
            if amount(&what, limit) > amount(&what, &most) {
                return Err(format!(
                    "maximum {what} usage per Container is {most}, but the limit of `{name}` is {limit}"
                ));
            }
        }
        for (what, most) in text_of_map(&item["maxLimitRequestRatio"]) {
            let amounts = [resources.limits.get(&what), resources.requests.get(&what)].map(|own| amount(&what, own?));
            let ([Some(limit), Some(request)], Some(most)) = (amounts, amount(&what, &most)) else { continue };
            if limit > request * most {
                return Err(format!(
                    "{what} max limit to request ratio per Container is {most}, but that of `{name}` is {}",
                    limit / request
                ));
            }
        }
        // A limit below the least is below the request.
        for (what, least) in text_of_map(&item["min"]) {
            let limit = resources.limits.get(&what);
            if let Some(limit) = limit.filter(|limit| amount(&what, limit) < amount(&what, &least)) {
                return Err(format!(
                    "minimum {what} usage per Container is {least}, but the limit of `{name}` is {limit}"
                ));
            }
        }
    }
    Ok(())
}

/// A quantity as a number; `None`: it is none, which was told where it is written.
fn amount(name: &str, text: &str) -> Option<f64> {
    match name {
        "cpu" => parse_cpu(&json!(text)).ok().map(|milli| f64::from(milli) / 1_000.0),
        _ => text.parse().ok().or_else(|| parse_memory(&json!(text)).ok().map(|bytes| bytes as f64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(limits: &[(&str, &str)], requests: &[(&str, &str)]) -> ContainerResources {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        ContainerResources { limits: map(limits), requests: map(requests) }
    }

    fn limits() -> Vec<Value> {
        vec![
            json!({
                "max": {"cpu": "800m", "memory": "1Gi"}, "min": {"cpu": "100m"}, "default": {"cpu": "700m", "memory": "900Mi"},
                "defaultRequest": {"cpu": "110m"}, "maxLimitRequestRatio": {"memory": 4},
            }),
            json!({"default": {"cpu": "2", "nvidia.com/gpu": 1}}),
        ]
    }

    #[test]
    fn what_is_not_said_is_what_the_first_range_says() {
        for (mut own, expected) in [
            (
                resources(&[], &[]),
                resources(
                    &[("cpu", "700m"), ("memory", "900Mi"), ("nvidia.com/gpu", "1")],
                    &[("cpu", "110m"), ("memory", "900Mi"), ("nvidia.com/gpu", "1")],
                ),
            ),
            (
                resources(&[("cpu", "0.5"), ("nvidia.com/gpu", "2")], &[("memory", "5Mi")]),
                resources(
                    &[("cpu", "0.5"), ("memory", "900Mi"), ("nvidia.com/gpu", "2")],
                    &[("cpu", "0.5"), ("memory", "5Mi"), ("nvidia.com/gpu", "2")],
                ),
            ),
            (
                resources(&[], &[("cpu", "10m")]),
                resources(
                    &[("cpu", "700m"), ("memory", "900Mi"), ("nvidia.com/gpu", "1")],
                    &[("cpu", "100m"), ("memory", "900Mi"), ("nvidia.com/gpu", "1")],
                ),
            ),
        ] {
            fill(&mut own, &limits());
            assert_eq!(own, expected);
        }
        let mut own = resources(&[("cpu", "1")], &[]);
        fill(&mut own, &[]);
        assert_eq!(own, resources(&[("cpu", "1")], &[]));
    }

    #[test]
    fn a_container_beyond_a_bound_is_told() {
        for (own, expected) in [
            (resources(&[("cpu", "0.8"), ("memory", "1024Mi")], &[("memory", "256Mi")]), None),
            (
                resources(&[("memory", "1Gi")], &[]),
                Some("maximum cpu usage per Container is 800m, and `step-a` has no limit"),
            ),
            (
                resources(&[("cpu", "0.5"), ("memory", "1025Mi")], &[]),
                Some("maximum memory usage per Container is 1Gi, but the limit of `step-a` is 1025Mi"),
            ),
            (
                resources(&[("cpu", "50m"), ("memory", "1Gi")], &[]),
                Some("minimum cpu usage per Container is 100m, but the limit of `step-a` is 50m"),
            ),
            (
                resources(&[("cpu", "0.5"), ("memory", "1Gi")], &[("memory", "128Mi")]),
                Some("memory max limit to request ratio per Container is 4, but that of `step-a` is 8"),
            ),
        ] {
            assert_eq!(check("step-a", &own, &limits()).err().as_deref(), expected);
        }
    }
}

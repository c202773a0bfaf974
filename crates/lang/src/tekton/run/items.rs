//! The combinations of a matrix.

use serde_json::{Map, Value};

use super::container::{items as list, text};
use super::facts::Facts;
use crate::tekton::substitute::normal;

/// All combinations of a matrix, each the params that it adds. The first param changes fastest. A matrix with an empty list has none.
pub fn combinations(matrix: &Value, facts: &Facts) -> Result<Vec<Value>, String> {
    let matrix = facts.replacements().fill_value(matrix);
    let axes = list(&matrix["params"]);
    let mut found: Vec<Map<String, Value>> = if axes.is_empty() { Vec::new() } else { vec![Map::new()] };
    for axis in axes.iter().rev() {
        let name = text(axis, "name");
        let Value::Array(values) = normal(&axis["value"]) else {
            return Err(format!("the param `{name}` of the matrix is no list: {}", axis["value"]));
        };
        found = found
            .iter()
            .flat_map(|before| {
                values.iter().map(|value| {
                    let mut combination = before.clone();
                    combination.insert(name.clone(), value.clone());
                    combination
                })
            })
            .collect();
    }
    if !axes.is_empty() && found.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = axes.iter().map(|axis| text(axis, "name")).collect();
    let mut added = Vec::new();
    for include in list(&matrix["include"]) {
        let own: Map<String, Value> =
            list(&include["params"]).iter().map(|param| (text(param, "name"), normal(&param["value"]))).collect();
        let mut is_met = false;
        for combination in &mut found {
            let fits = own
                .iter()
                .filter(|(name, _)| names.contains(name))
                .all(|(name, value)| combination.get(name) == Some(value));
            if fits {
                combination.extend(own.clone());
                is_met = true;
            }
        }
        if !is_met {
            added.push(own);
        }
    }
    found.extend(added);
    Ok(found.into_iter().map(Value::Object).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_param_changes_fastest() {
        let matrix =
            json!({"params": [{"name": "os", "value": ["linux", "mac"]}, {"name": "arch", "value": ["a", "b"]}]});
        let expected = [
            json!({"os": "linux", "arch": "a"}),
            json!({"os": "mac", "arch": "a"}),
            json!({"os": "linux", "arch": "b"}),
            json!({"os": "mac", "arch": "b"}),
        ];
        assert_eq!(combinations(&matrix, &Facts::default()), Ok(expected.to_vec()));
    }

    #[test]
    fn an_include_extends_what_it_fits_or_adds_one() {
        let matrix = json!({
            "params": [{"name": "a", "value": ["1", "2"]}],
            "include": [
                {"params": [{"name": "a", "value": "2"}, {"name": "x", "value": "two"}]},
                {"params": [{"name": "y", "value": "all"}]},
                {"params": [{"name": "a", "value": "3"}, {"name": "z", "value": "new"}]},
            ],
        });
        let expected =
            [json!({"a": "1", "y": "all"}), json!({"a": "2", "x": "two", "y": "all"}), json!({"a": "3", "z": "new"})];
        assert_eq!(combinations(&matrix, &Facts::default()), Ok(expected.to_vec()));
        let explicit =
            json!({"include": [{"params": [{"name": "a", "value": "1"}]}, {"params": [{"name": "a", "value": "2"}]}]});
        assert_eq!(combinations(&explicit, &Facts::default()), Ok(vec![json!({"a": "1"}), json!({"a": "2"})]));
    }

    #[test]
    fn an_empty_list_gives_nothing() {
        let matrix = json!({"params": [{"name": "a", "value": []}, {"name": "b", "value": ["x"]}]});
        assert_eq!(combinations(&matrix, &Facts::default()), Ok(vec![]));
    }
}

//! The user's pages of the language: every example in them compiles, and fits the JSON Schema.

use pitcrew_lang::yaml;

use crate::support::compile;

const PAGE: &str = include_str!("../../../../docs/language.md");
const GANGS: &str = include_str!("../../../../docs/gangs.md");
const ECS: &str = include_str!("../../../../docs/ecs.md");
const WEBHOOKS: &str = include_str!("../../../../docs/webhooks.md");
const PLACEMENT: &str = include_str!("../../../../docs/placement.md");

#[test]
fn every_example_of_the_page_compiles_and_fits_the_schema() {
    let schema = serde_json::from_str(pitcrew_lang::schema::TEXT).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let of = |page: &'static str| page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    assert!(of(PAGE).count() >= 9 && of(PLACEMENT).count() >= 2 && of(GANGS).count() >= 2 && of(WEBHOOKS).count() >= 2);
    for example in of(PAGE).chain(of(PLACEMENT)).chain(of(GANGS)).chain(of(ECS)).chain(of(WEBHOOKS)) {
        if example.starts_with("ecs:") || example.starts_with("metadata:") {
            // Of `pitcrew.yaml`.
            continue;
        }
        compile(example).unwrap_or_else(|problems| panic!("{problems}\n{example}"));
        let value = yaml::to_json(example).unwrap();
        let problems: Vec<String> = schema.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(problems.is_empty(), "{problems:?}\n{example}");
    }
}

#[test]
fn the_page_names_every_key() {
    let schema: serde_json::Value = serde_json::from_str(pitcrew_lang::schema::TEXT).unwrap();
    for part in ["/properties", "/$defs/task/properties", "/$defs/step/properties", "/$defs/schedule/properties"] {
        for key in schema.pointer(part).unwrap().as_object().unwrap().keys() {
            // `retry_delay` and its like are named together.
            assert!(PAGE.contains(&format!("`{key}")), "the page does not name `{key}`");
        }
    }
}

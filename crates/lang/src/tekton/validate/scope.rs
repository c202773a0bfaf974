//! Which params a text may use.

use std::collections::{BTreeMap, BTreeSet};

use super::super::model::{Param, ParamKind, ParamSpec, ParamValue, TaskSpec};

/// What is known of a param.
#[derive(Debug, Clone)]
pub struct Known {
    /// `None`: it follows from a value that is only known later.
    pub kind: Option<ParamKind>,
    /// Of an object; empty where they are not known.
    pub keys: BTreeSet<String>,
}

/// Params by their names.
#[derive(Debug, Clone, Default)]
pub struct Scope(BTreeMap<String, Known>);

impl Scope {
    pub fn of_task(spec: &TaskSpec) -> Scope {
        Scope::of(&spec.params)
    }

    pub fn of(params: &[ParamSpec]) -> Scope {
        Scope::default().declared(params)
    }

    pub fn get(&self, name: &str) -> Option<&Known> {
        self.0.get(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// With params that are declared further out: what is there already is nearer.
    pub fn declared(mut self, params: &[ParamSpec]) -> Scope {
        for param in params {
            let mut keys: BTreeSet<String> = param.properties.keys().cloned().collect();
            if let Some(ParamValue::Map(fields)) = &param.default {
                keys.extend(fields.keys().cloned());
            }
            self.add(&param.name, Some(param.kind()), keys);
        }
        self
    }

    /// With params that are given further out.
    pub fn given(mut self, params: &[Param]) -> Scope {
        for param in params {
            let (kind, keys) = match &param.value {
                ParamValue::Text(text) if text.contains("$(") => (None, BTreeSet::new()),
                ParamValue::Text(_) => (Some(ParamKind::String), BTreeSet::new()),
                ParamValue::List(_) => (Some(ParamKind::Array), BTreeSet::new()),
                ParamValue::Map(fields) => (Some(ParamKind::Object), fields.keys().cloned().collect()),
            };
            self.add(&param.name, kind, keys);
        }
        self
    }

    /// With all of another.
    pub fn within(mut self, outer: &Scope) -> Scope {
        for (name, known) in &outer.0 {
            self.add(name, known.kind, known.keys.clone());
        }
        self
    }

    /// Keys of an object come together from all places where it is written.
    fn add(&mut self, name: &str, kind: Option<ParamKind>, keys: BTreeSet<String>) {
        let known = self.0.entry(name.to_owned()).or_insert_with(|| Known { kind, keys: BTreeSet::new() });
        known.keys.extend(keys);
    }
}

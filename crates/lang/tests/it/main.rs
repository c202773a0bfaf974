//! The language from the outside: what it refuses and in which words, what it compiles to, and how it renders.

mod backends;
mod bad_names;
mod bad_shapes;
mod bad_templates;
mod bad_values;
mod bad_yaml;
mod docs;
mod drawings;
mod fuzz;
mod gangs;
mod graphs;
mod notify;
mod on;
mod params;
mod recovery;
mod rendering;
mod support;

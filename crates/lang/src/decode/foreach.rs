//! `foreach`: the lists that a task or group is mapped over.

use pitcrew_core::ir::{Foreach, Shape};
use serde_json::Value;

use super::{Decoder, Owner, Role};
use crate::yaml::Node;

/// Instances of one mapping, unless `foreach_max` says otherwise.
pub const DEFAULT_ITEMS: u32 = 1_024;
/// The most that `foreach_max` may allow.
pub const MOST_ITEMS: i64 = 100_000;

impl Decoder<'_, '_> {
    /// A list (the items themselves: an axis without a name), one template, or a mapping of names to lists,
    /// all combined or, inside `zip`, side by side.
    pub fn foreach(&mut self, node: &Node, owner: Owner) -> Option<Foreach> {
        let mut shape = Shape::Product;
        let mut axes = Vec::new();
        match node.as_map() {
            None => axes.push((String::new(), self.axis(node, "foreach", owner)?)),
            Some(entries) => {
                let zipped = match entries {
                    [only] if &*only.key.text == "zip" => only.value.as_map(),
                    _ => None,
                };
                if zipped.is_some() {
                    shape = Shape::Zip;
                }
                for entry in zipped.unwrap_or(entries) {
                    let name = entry.key.text.to_string();
                    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                    if !is_name {
                        let hint = "use letters, digits and `_`: it is used as `item.name`";
                        self.r.error_hint(
                            entry.key.at,
                            format!("`{name}` is not a name for a list of `foreach`"),
                            hint,
                        );
                        continue;
                    }
                    if let Some(list) = self.axis(&entry.value, &format!("foreach.{name}"), owner) {
                        axes.push((name, list));
                    }
                }
            }
        }
        if axes.is_empty() {
            if self.r.errors() == 0 {
                self.mismatch(node, "`foreach`", "a list, or a mapping of names to lists");
            }
            return None;
        }
        self.check_lengths(node, shape, &axes);
        Some(Foreach { shape, axes, refs: Vec::new(), max_items: DEFAULT_ITEMS })
    }

    fn axis(&mut self, node: &Node, key: &str, owner: Owner) -> Option<Value> {
        let is_template = node.as_scalar().is_some_and(|s| crate::template::is_template(&s.text));
        if node.as_list().is_none() && !is_template {
            let hint = "write a list, or a template that gives one: `\"{{ params.servers }}\"`";
            let message = format!("`{key}` must be a list, found {}", node.describe());
            self.r.error_hint(node.at, message, hint);
            return None;
        }
        self.sites_in(owner, Role::Foreach, node);
        self.json(node)
    }

    /// What can be said about literal lists: that `zip` finds them equally long.
    fn check_lengths(&mut self, node: &Node, shape: Shape, axes: &[(String, Value)]) {
        if shape != Shape::Zip {
            return;
        }
        let mut literal = axes.iter().filter_map(|(name, list)| Some((name, list.as_array()?.len())));
        let Some((first, length)) = literal.next() else { return };
        if let Some((other, n)) = literal.find(|(_, n)| *n != length) {
            let message = format!("`zip` needs lists of one length: `{first}` has {length} items, `{other}` has {n}");
            self.r.error_hint(node.at, message, "without `zip`, every item is combined with every other");
        }
    }
}

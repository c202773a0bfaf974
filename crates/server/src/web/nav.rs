//! The navigation that every page shows: the parts of the site, the key that leads to each, and who sees it.
//!
//! A page is named here when it is there, and only then; who may not open it does not see it.

use crate::auth::Role;

/// A part of the site.
pub struct Entry {
    /// What [`Shell::section`](super::page::Shell::section) calls it.
    pub section: &'static str,
    pub name: &'static str,
    pub href: &'static str,
    /// After `g`, the key that leads there.
    pub key: &'static str,
    /// Who may open it.
    pub role: Role,
}

const fn entry(section: &'static str, name: &'static str, href: &'static str, key: &'static str, role: Role) -> Entry {
    Entry { section, name, href, key, role }
}

/// Always in sight.
pub const MAIN: &[Entry] = &[
    entry("overview", "Overview", "/", "o", Role::Viewer),
    entry("workflows", "Workflows", "/workflows", "w", Role::Viewer),
    entry("runs", "Runs", "/runs", "r", Role::Viewer),
    entry("fleet", "Fleet", "/fleet", "f", Role::Viewer),
    entry("workers", "Workers", "/workers", "k", Role::Viewer),
];

/// Behind the menu for administration.
pub const ADMIN: &[Entry] = &[
    entry("incidents", "Incidents", "/incidents", "i", Role::Viewer),
    entry("backfills", "Backfills", "/backfills", "b", Role::Viewer),
    entry("variables", "Variables", "/variables", "v", Role::Viewer),
    entry("connections", "Connections", "/connections", "c", Role::Op),
    entry("pools", "Pools", "/pools", "p", Role::Viewer),
    entry("quotas", "Quotas", "/quotas", "q", Role::Viewer),
    entry("notifications", "Notifications", "/notifications", "n", Role::Viewer),
    entry("deliveries", "Webhooks", "/deliveries", "h", Role::Viewer),
    entry("audit", "Audit log", "/audit", "a", Role::Viewer),
    entry("users", "Users", "/users", "u", Role::Admin),
    entry("tokens", "Tokens", "/tokens", "t", Role::Viewer),
    entry("settings", "Settings", "/settings", "s", Role::Admin),
];

/// The entries that a role may open.
pub fn seen_by(entries: &'static [Entry], role: Role) -> Vec<&'static Entry> {
    entries.iter().filter(|entry| role >= entry.role).collect()
}

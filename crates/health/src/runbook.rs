//! The pages of `docs/` about XIDs and errors of DCGM, written from the tables so that they cannot differ.

use std::fmt::Write;

use crate::action::Action;
use crate::tables::{Rule, Tables};

/// `docs/xids.md`.
pub fn page(tables: &Tables) -> String {
    let mut out = String::from(HEAD);
    for action in Action::ALL {
        if tables.xids().any(|xid| xid.action == action) {
            let _ = writeln!(out, "| `{action}` | {} | {} |", action.what_is_done(), action.for_person());
        }
    }
    out += BEFORE_XIDS;
    for xid in tables.xids() {
        let rule = xid.when.map_or_else(String::new, |rule| format!("; {}", rule_in_words(rule)));
        let person = xid.person.as_deref().unwrap_or_else(|| xid.action.for_person());
        let _ = writeln!(
            out,
            "\n## XID {}: {}\n\n{}. By itself it is the fault of the {}.\n\n- Pitcrew: `{}`{rule}.\n- You: {person}.",
            xid.xid,
            xid.name,
            capital(&xid.about),
            xid.blame.name(),
            xid.action,
        );
    }
    out += BEFORE_DCGM;
    for error in tables.dcgm_errors().filter(|error| error.id != 0) {
        let _ = writeln!(out, "| {} | `{}` | {} | `{}` |", error.id, error.name, error.about, error.action);
    }
    out
}

fn rule_in_words(rule: Rule) -> &'static str {
    match rule {
        Rule::Secondary => "`ignore`, when another XID of the same GPU came within 10 seconds before",
        Rule::RemapPending => "`reset_when_idle`, when `remapped_rows.pending` says that a row waits",
        Rule::SramThreshold => "`field_diag`, when errors of SRAM are over the threshold",
        Rule::RecoveryText => {
            "what the line says: `reset_gpu`, `reboot_node`, `reset_when_idle`, or `ignore` when nothing is needed any more"
        }
        Rule::LinkSeverity => "`ignore`, when the line calls it not fatal",
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

const HEAD: &str = "\
# XIDs, one by one

The driver of NVIDIA writes an **XID** to the kernel log when something goes wrong with a GPU. This page has each of them: what it
means, what Pitcrew does, and what is left to you. How it is seen, and how to override what is done, is in [signals.md](signals.md). A number
that is not here is `contact_support`.

| action | Pitcrew | you, unless it says otherwise below |
|---|---|---|
";

const BEFORE_XIDS: &str = "
Whatever Pitcrew does, it tells in the incident: the line, the node, the GPU, what was done and what is left to do.
";

const BEFORE_DCGM: &str = "
## Errors of DCGM

What `dcgmi diag` and the health watches of DCGM report, by the numbers and names of DCGM (`DCGM_FR_…`).

| | name | what it says | action |
|---|---|---|---|
";

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/xids.md");

    #[test]
    fn the_page_is_what_the_tables_say() {
        let page = page(Tables::usual());
        if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
            std::fs::write(PATH, &page).unwrap();
        }
        let written = std::fs::read_to_string(PATH).unwrap_or_default();
        let differs = page.lines().zip(written.lines().chain(std::iter::repeat(""))).find(|(new, old)| new != old);
        assert!(
            page == written,
            "docs/xids.md differs from the tables at {differs:?}; `INSTA_UPDATE=always cargo test -p pitcrew-health` writes it"
        );
    }
}

//! Pages for those who keep the place in order: variables, pools, the audit log, settings and what else they set.
//!
//! Each is a list with forms beside it. A form that was taken leads back to its list; one that was not is shown again.

mod audit;
mod backfills;
mod connections;
mod deliveries;
mod fleet;
mod incidents;
mod listed;
mod notices;
mod pools;
mod quotas;
mod settings;
mod tokens;
mod users;
mod variables;
mod worker_tokens;
mod workers;

use jiff::Timestamp;
use pitcrew_store::AuditEntry;
use serde_json::Value;

use crate::auth::Role::{Admin, Op, User, Viewer};
use crate::routes::Access::Role;
use crate::routes::Routes;

pub fn routes() -> Routes {
    Routes::pages()
        .get("/variables", Role(Viewer), variables::page)
        .get("/variables/new", Role(Op), variables::blank)
        .post("/variables/new", Role(Op), variables::create)
        .get("/variables/edit", Role(Op), variables::form)
        .post("/variables/edit", Role(Op), variables::edit)
        .post("/variables/delete", Role(Op), variables::delete)
        .get("/variables/import", Role(Op), variables::import_form)
        .post("/variables/import", Role(Op), variables::import)
        .get("/variables/export", Role(Viewer), variables::export)
        .post("/variables/export", Role(Admin), variables::export_all)
        .get("/connections", Role(Op), connections::page)
        .get("/connections/new", Role(Op), connections::blank)
        .post("/connections/new", Role(Op), connections::create)
        .get("/connections/edit", Role(Op), connections::form)
        .post("/connections/edit", Role(Op), connections::edit)
        .post("/connections/delete", Role(Op), connections::delete)
        .get("/connections/import", Role(Op), connections::import_form)
        .post("/connections/import", Role(Op), connections::import)
        .get("/connections/export", Role(Op), connections::export)
        .post("/connections/export", Role(Admin), connections::export_all)
        .get("/pools", Role(Viewer), pools::page)
        .get("/live/pools", Role(Viewer), pools::live)
        .get("/pools/new", Role(Op), pools::blank)
        .post("/pools/new", Role(Op), pools::create)
        .get("/pools/edit", Role(Op), pools::form)
        .post("/pools/edit", Role(Op), pools::edit)
        .post("/pools/delete", Role(Op), pools::delete)
        .get("/quotas", Role(Viewer), quotas::page)
        .get("/live/quotas", Role(Viewer), quotas::live)
        .get("/quotas/new", Role(Op), quotas::blank)
        .post("/quotas/new", Role(Op), quotas::create)
        .get("/quotas/edit", Role(Op), quotas::form)
        .post("/quotas/edit", Role(Op), quotas::edit)
        .post("/quotas/delete", Role(Op), quotas::delete)
        .get("/backfills", Role(Viewer), backfills::page)
        .get("/live/backfills", Role(Viewer), backfills::live)
        .get("/backfills/new", Role(User), backfills::blank)
        .post("/backfills/new", Role(User), backfills::create)
        .post("/backfills/change", Role(User), backfills::change)
        .get("/notifications", Role(Viewer), notices::page)
        .post("/notifications/again", Role(Op), notices::again)
        .get("/deliveries", Role(Viewer), deliveries::page)
        .get("/deliveries/{delivery}", Role(Viewer), deliveries::one)
        .post("/deliveries/{delivery}/redeliver", Role(Op), deliveries::again)
        .get("/audit", Role(Viewer), audit::page)
        .get("/users", Role(Admin), users::page)
        .get("/users/new", Role(Admin), users::blank)
        .post("/users/new", Role(Admin), users::create)
        .get("/users/edit", Role(Admin), users::form)
        .post("/users/edit", Role(Admin), users::edit)
        .get("/tokens", Role(Viewer), tokens::page)
        .get("/tokens/new", Role(Viewer), tokens::blank)
        .post("/tokens/new", Role(Viewer), tokens::create)
        .post("/tokens/revoke", Role(Viewer), tokens::revoke)
        .get("/settings", Role(Admin), settings::page)
        .get("/fleet", Role(Viewer), fleet::page)
        .get("/live/fleet", Role(Viewer), fleet::live)
        .get("/fleet/{node}", Role(Viewer), fleet::one)
        .get("/live/fleet/{node}", Role(Viewer), fleet::live_one)
        .post("/fleet/{node}/cordon", Role(Op), fleet::cordon)
        .get("/fleet/{node}/marks", Role(Op), fleet::form)
        .post("/fleet/{node}/marks", Role(Op), fleet::marks)
        .get("/workers", Role(Viewer), workers::page)
        .get("/live/workers", Role(Viewer), workers::live)
        .get("/workers/{worker}", Role(Viewer), workers::one)
        .get("/live/workers/{worker}", Role(Viewer), workers::live_one)
        .post("/workers/{worker}/drain", Role(Admin), workers::drain)
        .post("/workers/{worker}/revoke", Role(Admin), workers::revoke)
        .get("/worker-tokens", Role(Admin), worker_tokens::page)
        .get("/worker-tokens/new", Role(Admin), worker_tokens::blank)
        .post("/worker-tokens/new", Role(Admin), worker_tokens::create)
        .post("/worker-tokens/delete", Role(Admin), worker_tokens::delete)
        .get("/incidents", Role(Viewer), incidents::page)
        .get("/incidents/{incident}", Role(Viewer), incidents::one)
        .get("/live/incidents/{incident}", Role(Viewer), incidents::live)
        .post("/incidents/{incident}/approve", Role(Op), incidents::approve)
        .post("/incidents/{incident}/dismiss", Role(Op), incidents::dismiss)
        .post("/incidents/{incident}/retry", Role(Op), incidents::retry)
}

/// Who did what on a page.
fn noted(user: &crate::auth::User, event: &str, detail: Value, now: Timestamp) -> AuditEntry {
    let mut entry = AuditEntry::new(now, user.name.clone(), event);
    entry.detail = detail;
    entry
}

//! Who somebody whom the provider knows is here: the user with that subject, or a new one.
//!
//! Invariants: only the subject says that two logins are of one person; a name or an address of mail can be given to
//! another, so it never opens an account that is there. What role somebody has is decided here, from what is configured.

use jiff::Timestamp;
use pitcrew_store::{AuditEntry, Role, Store, StoreError, UserRow};
use serde_json::{Map, Value, json};

use super::OidcConfig;
use crate::auth::manage;

/// Why somebody whom the provider knows does not come in, for that person.
#[derive(Debug)]
pub enum NotIn {
    Refused(String),
    Store(StoreError),
}

impl From<StoreError> for NotIn {
    fn from(error: StoreError) -> Self {
        NotIn::Store(error)
    }
}

/// The user whom these claims are about, made or brought up to date.
pub async fn find(
    store: &Store,
    config: &OidcConfig,
    claims: &Map<String, Value>,
    now: Timestamp,
) -> Result<UserRow, NotIn> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    check_domain(config, claims).map_err(NotIn::Refused)?;
    let mapped = role_of(config, claims);
    let subject = format!("{} {}", config.issuer, text("sub"));
    if let Some(row) = store.user_by_subject(&subject).await? {
        if !row.active {
            return Err(NotIn::Refused(format!("the account `{}` is deactivated", row.name)));
        }
        // Without a mapping, roles are the admins' to give.
        let role = if config.roles.is_empty() { Some(row.role) } else { mapped.or(config.default_role) };
        let Some(role) = role else { return Err(NotIn::Refused(no_role())) };
        if role == row.role {
            return Ok(row);
        }
        let mut audit = AuditEntry::new(now, "server", "user.role");
        audit.detail = json!({ "user": row.name, "from": row.role.name(), "to": role.name(), "by": "oidc" });
        let row = UserRow { role, epoch: manage::next_epoch(&row, now), ..row };
        store.put_user(row.clone(), audit).await?;
        return Ok(row);
    }
    let Some(role) = mapped.or(config.default_role) else { return Err(NotIn::Refused(no_role())) };
    let wished = ["preferred_username", "email", "sub"].map(text).into_iter().find(|name| !name.is_empty());
    let name = manage::user_name(wished.unwrap_or_default()).map_err(|error| NotIn::Refused(error.to_string()))?;
    if store.user(&name).await?.is_some() {
        return Err(NotIn::Refused(format!(
            "there is a user `{name}` already that is not yours at the provider: ask an admin to rename or delete it"
        )));
    }
    let row = UserRow {
        subject: Some(subject),
        full_name: text("name").to_owned(),
        email: text("email").to_owned(),
        ..manage::blank(&name, role, now)
    };
    let mut audit = AuditEntry::new(now, "server", "user.create");
    audit.detail = json!({ "user": name, "role": role.name(), "by": "oidc" });
    store.put_user(row.clone(), audit).await?;
    Ok(row)
}

fn no_role() -> String {
    "the provider gives you no role here: ask an admin to add you to a group that has one".to_owned()
}

/// If only some domains are let in, the address of mail must be in one, and the provider must have checked it.
fn check_domain(config: &OidcConfig, claims: &Map<String, Value>) -> Result<(), String> {
    if config.domains.is_empty() {
        return Ok(());
    }
    let email = claims.get("email").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    let domain = email.rsplit_once('@').map_or("", |(_, domain)| domain);
    match claims.get("email_verified") {
        _ if !config.domains.iter().any(|allowed| allowed == domain) => {
            Err("your address of mail is not of a domain that is let in".to_owned())
        }
        Some(Value::Bool(true)) => Ok(()),
        Some(Value::String(word)) if word == "true" => Ok(()),
        _ => Err("the provider did not check your address of mail".to_owned()),
    }
}

/// The highest role that a claim gives. Dots lead into objects: `realm_access.roles`.
fn role_of(config: &OidcConfig, claims: &Map<String, Value>) -> Option<Role> {
    // A name with dots of its own, such as `https://example.com/groups`, comes first.
    let found = claims.get(&config.role_claim).or_else(|| {
        let mut parts = config.role_claim.split('.');
        let first = claims.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    })?;
    let groups: Vec<&str> = match found {
        Value::String(one) => vec![one],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    config.roles.iter().filter(|(group, _)| groups.contains(&group.as_str())).map(|(_, role)| *role).max()
}

#[cfg(test)]
mod tests {
    use pitcrew_store::StoreUrl;

    use super::*;
    use crate::auth::User;
    use pitcrew_control::clock;

    fn config() -> OidcConfig {
        OidcConfig {
            issuer: "https://id.example".into(),
            roles: vec![("dev".into(), Role::User), ("ops".into(), Role::Op)],
            role_claim: "groups".into(),
            ..OidcConfig::default()
        }
    }

    async fn login(store: &Store, config: &OidcConfig, claims: Value) -> Result<UserRow, String> {
        let Value::Object(claims) = claims else { panic!("not an object") };
        find(store, config, &claims, clock::now()).await.map_err(|error| format!("{error:?}"))
    }

    #[tokio::test]
    async fn the_role_follows_the_groups_at_each_login() {
        let store = Store::open(&StoreUrl::Memory).await.unwrap();
        let ada = |groups: Value| json!({ "sub": "1", "preferred_username": "Ada", "groups": groups });
        assert!(login(&store, &config(), ada(json!(["guests"]))).await.unwrap_err().contains("no role"));
        let row = login(&store, &config(), ada(json!(["dev", "ops", 7]))).await.unwrap();
        assert_eq!((row.name.as_str(), row.role, row.password), ("ada", Role::Op, None));
        let later = login(&store, &config(), ada(json!("dev"))).await.unwrap();
        assert!(later.role == Role::User && later.epoch > row.epoch);
        assert!(login(&store, &config(), ada(json!([]))).await.is_err());
        let nested = OidcConfig { role_claim: "realm_access.roles".into(), ..config() };
        let claims = json!({ "sub": "1", "realm_access": { "roles": ["ops"] } });
        assert_eq!(login(&store, &nested, claims).await.unwrap().role, Role::Op);
    }

    #[tokio::test]
    async fn a_name_or_an_address_opens_nobody_elses_account() {
        let store = Store::open(&StoreUrl::Memory).await.unwrap();
        let (boss, now) = (User::local("boss"), clock::now());
        let new = manage::NewUser { name: "admin".into(), role: Some(Role::Admin), ..manage::NewUser::default() };
        manage::create_user(&store, &boss, new, now).await.unwrap();
        let open = OidcConfig { default_role: Some(Role::Viewer), ..config() };
        for claims in [json!({ "sub": "9", "preferred_username": "ADMIN" }), json!({ "sub": "9", "email": "admin" })] {
            assert!(login(&store, &open, claims).await.unwrap_err().contains("already"));
        }
        for claims in [json!({ "sub": "<script>" }), json!({ "sub": "1", "preferred_username": "../x" })] {
            assert!(login(&store, &open, claims).await.unwrap_err().contains("a user's name"));
        }
        let eve = login(&store, &open, json!({ "sub": "9", "email": "eve@example.com" })).await.unwrap();
        assert_eq!((eve.name.as_str(), eve.role), ("eve@example.com", Role::Viewer));
        manage::set_active(&store, &boss, &eve.name, false, now).await.unwrap();
        let again = login(&store, &open, json!({ "sub": "9", "email": "other@example.com" })).await;
        assert!(again.unwrap_err().contains("deactivated"));
    }

    #[tokio::test]
    async fn only_checked_addresses_of_the_right_domains_come_in() {
        let store = Store::open(&StoreUrl::Memory).await.unwrap();
        let open = OidcConfig { default_role: Some(Role::Viewer), domains: vec!["example.com".into()], ..config() };
        let claims = |email: &str, checked: Value| json!({ "sub": email, "email": email, "email_verified": checked });
        assert!(login(&store, &open, claims("a@Example.com", json!(true))).await.is_ok());
        for (email, checked) in [
            ("b@example.com", json!(false)),
            ("c@example.com", json!(null)),
            ("d@evil.example", json!(true)),
            ("e@example.com.evil.example", json!(true)),
            ("example.com", json!(true)),
        ] {
            assert!(login(&store, &open, claims(email, checked)).await.is_err(), "{email}");
        }
    }
}

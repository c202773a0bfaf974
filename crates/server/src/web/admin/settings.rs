//! What the server was started with: each setting, its value and where that came from; secrets left out.

use askama::Template;
use axum::extract::{Extension, State};
use pitcrew_control::config::Setting;

use crate::Site;
use crate::auth::User;
use crate::web::fmt;
use crate::web::page::{PageResult, Shell, html};

/// Variables of the environment that a server reads besides its settings, what they are for, and whether one is a
/// secret.
const VARIABLES: [(&str, &str, bool); 2] = [
    ("PITCREW_HOSTS", "names under which browsers may reach a server on loopback", false),
    ("PITCREW_ADMIN_PASSWORD", "the password of `admin`", true),
];

struct Variable {
    name: &'static str,
    about: &'static str,
    /// `None`: it is not set.
    value: Option<String>,
}

#[derive(Template)]
#[template(path = "admin/settings.html")]
struct SettingsPage {
    shell: Shell,
    settings: Vec<Setting>,
    variables: Vec<Variable>,
    file: Option<String>,
    environment: Option<String>,
    version: &'static str,
    listen: String,
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult {
    let variable = |(name, about, is_secret): (&'static str, &'static str, bool)| {
        let value = std::env::var(name).ok().filter(|text| !text.is_empty());
        let value = value.map(|text| if is_secret { "set, hidden".to_owned() } else { text });
        Variable { name, about, value }
    };
    let shown = &site.settings;
    Ok(html(SettingsPage {
        shell: Shell::new(&site, &user, "Settings").section("settings"),
        settings: shown.shown(),
        variables: VARIABLES.into_iter().map(variable).collect(),
        file: shown.file.as_ref().map(|path| path.display().to_string()),
        environment: shown.environment.clone(),
        version: env!("CARGO_PKG_VERSION"),
        listen: site.listen.to_string(),
    }))
}

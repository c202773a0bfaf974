//! What the tasks run on. Until Pitcrew manages machines of its own that is this one, and there are no incidents.

use askama::Template;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};

use crate::scheduler::Queue;
use crate::server::Site;
use crate::server::auth::User;
use crate::server::live::{Look, Part, Watch, follow};
use crate::server::web::page::{PageResult, Shell, html, render};

#[derive(Template)]
#[template(path = "admin/fleet.html")]
struct FleetPage {
    shell: Shell,
    machine: String,
}

#[derive(Template)]
#[template(path = "admin/fleet_machine.html")]
struct Machine {
    queue: Queue,
}

#[derive(Template)]
#[template(path = "admin/incidents.html")]
struct IncidentsPage {
    shell: Shell,
}

async fn machine(site: &Site) -> String {
    render(Machine { queue: site.app.scheduler.queue(0).await })
}

pub async fn page(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult {
    let shell = Shell::new(&site, &user, "Fleet").section("fleet").live("/live/fleet".to_owned());
    Ok(html(FleetPage { shell, machine: machine(&site).await }))
}

pub async fn live(State(site): State<Site>) -> PageResult<Response> {
    let watch = Watch::everything(&site.app);
    let looker = site.clone();
    let look = move || {
        let site = looker.clone();
        async move { Some(Look { parts: vec![Part { id: "machine", html: machine(&site).await }], elsewhere: true }) }
    };
    Ok(follow(&site, "fleet".to_owned(), watch, look).into_response())
}

pub async fn incidents(State(site): State<Site>, Extension(user): Extension<User>) -> PageResult {
    Ok(html(IncidentsPage { shell: Shell::new(&site, &user, "Incidents").section("incidents") }))
}

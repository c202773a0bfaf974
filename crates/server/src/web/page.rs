//! What all pages share: the frame around them, how they become answers, and pages for errors.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};

use super::{assets, fmt, nav};
use crate::Site;
use crate::auth::{Role, User};
use crate::error::ApiError;

/// What the frame of a page needs.
pub struct Shell {
    pub title: String,
    /// Nobody on the login page.
    pub user: Option<String>,
    pub role: Role,
    pub can_log_out: bool,
    /// The part of the navigation that is open.
    pub section: &'static str,
    /// Where the page's live events come from; empty: nowhere.
    pub live: String,
}

impl Shell {
    pub fn new(site: &Site, user: &User, title: impl Into<String>) -> Shell {
        let title = title.into();
        let can_log_out = !site.auth.is_off();
        Shell {
            title,
            user: Some(if can_log_out { user.name.clone() } else { String::new() }),
            role: user.role,
            can_log_out,
            section: "",
            live: String::new(),
        }
    }

    /// Without a user.
    pub fn bare(_site: &Site, title: &str) -> Shell {
        Shell::nobody(title)
    }

    fn nobody(title: &str) -> Shell {
        let (section, live) = ("", String::new());
        Shell { title: title.to_owned(), user: None, role: Role::Viewer, can_log_out: false, section, live }
    }

    /// May the reader start, stop and pause? What one may not do is not shown.
    pub fn is_user(&self) -> bool {
        self.role >= Role::User
    }

    /// May the reader change variables, connections and pools?
    pub fn is_op(&self) -> bool {
        self.role >= Role::Op
    }

    pub fn is_admin(&self) -> bool {
        self.role >= Role::Admin
    }

    pub fn section(mut self, section: &'static str) -> Shell {
        self.section = section;
        self
    }

    pub fn live(mut self, address: String) -> Shell {
        self.live = address;
        self
    }

    /// The parts of the site that the user may open.
    pub fn nav(&self) -> Vec<&'static nav::Entry> {
        nav::seen_by(nav::MAIN, self.role)
    }

    /// The same, behind the menu for administration.
    pub fn admin(&self) -> Vec<&'static nav::Entry> {
        nav::seen_by(nav::ADMIN, self.role)
    }

    /// Whether the page is one of those behind that menu.
    pub fn is_admin_section(&self) -> bool {
        self.admin().iter().any(|entry| entry.section == self.section)
    }

    pub fn asset(&self, name: &str) -> &'static str {
        assets::address(name)
    }
}

/// A rendered template, or part of one, as text. Our templates write to memory and cannot fail.
pub fn render(template: impl Template) -> String {
    template.render().unwrap_or_else(|error| {
        tracing::error!("a page could not be rendered: {error}");
        "this part of the page could not be rendered".to_owned()
    })
}

/// A rendered template as an answer.
pub fn html(template: impl Template) -> Response {
    match template.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!("a page could not be rendered: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, "this page could not be rendered").into_response()
        }
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    shell: Shell,
    status: u16,
    message: String,
}

/// Why there is no page, as a page.
#[derive(Clone)]
pub struct PageError {
    status: StatusCode,
    message: String,
}

pub type PageResult<T = Response> = Result<T, PageError>;

impl PageError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> PageError {
        PageError { status, message: message.into() }
    }

    pub fn not_found(message: impl Into<String>) -> PageError {
        PageError::new(StatusCode::NOT_FOUND, message)
    }

    fn title(&self) -> &'static str {
        match self.status.as_u16() {
            400 | 422 => "That is not valid",
            401 => "Log in first",
            403 => "You may not do that",
            404 => "Not found",
            409 => "Not possible now",
            413 => "That is too much",
            429 => "Too often",
            _ => self.status.canonical_reason().unwrap_or("Error"),
        }
    }

    fn page(&self, shell: Shell) -> Response {
        let mut response = html(ErrorPage { shell, status: self.status.as_u16(), message: self.message.clone() });
        *response.status_mut() = self.status;
        response
    }
}

impl<E: Into<ApiError>> From<E> for PageError {
    fn from(error: E) -> Self {
        let error = error.into();
        PageError { status: error.status(), message: in_our_words(error.message()) }
    }
}

/// What the API says with Airflow's names of things, as the pages call them.
fn in_our_words(message: String) -> String {
    let names =
        [("The Dag with ID: ", "workflow"), ("The DagRun with run_id: ", "run"), ("The Task with ID: ", "task")];
    let found = names.iter().find_map(|(theirs, ours)| {
        let name = message.strip_prefix(theirs)?.strip_suffix(" was not found")?;
        Some(format!("There is no {ours} {name}."))
    });
    let run_of = |message: &str| {
        let names = message.strip_prefix("The DagRun with dag_id: ")?.strip_suffix(" was not found")?;
        let (workflow, run) = names.split_once(" and run_id: ")?;
        Some(format!("The workflow {workflow} has no run {run}."))
    };
    found.or_else(|| run_of(&message)).unwrap_or(message)
}

/// An answer as it is; an error once more, with the parts of the site that its reader may open.
pub fn with_navigation(site: &Site, user: &User, response: Response) -> Response {
    match response.extensions().get::<PageError>() {
        Some(error) => error.page(Shell::new(site, user, error.title())),
        None => response,
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let mut response = self.page(Shell::nobody(self.title()));
        response.extensions_mut().insert(self);
        response
    }
}

//! The table of routes: every address that the server answers, who may use it, and what its documentation says.
//!
//! Invariant: a route cannot be added without an [`Access`]. The router, the check of roles, the tests that walk all
//! routes and the OpenAPI document are made from this one table, so none of them can forget a route.
//!
//! Parameters of paths have names with a meaning: `{dag}`, `{dag_id}` and `{workflow}` name a workflow and `{run_key}`
//! a run by its number. A token that is limited to some workflows opens only routes with one of those; so a route
//! that shows or changes a workflow's things must name it in one of these ways, and nothing else may.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};
use serde_json::Value;

use super::auth::{self, Role};
use super::own::workers;
use super::{Site, pass_on};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody, without saying who it is.
    Open,
    /// Users with this role, or a higher one.
    Role(Role),
    /// Other servers of the same database.
    Server,
    /// A machine with a token to enrol as a worker.
    Enrolment,
    /// A worker, by its credential.
    Worker,
    /// Whoever sends events: what they prove is looked at with their bodies.
    Hook,
}

/// What a refusal looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// JSON.
    Api,
    /// A page, or the way to the login.
    Pages,
}

impl Surface {
    pub fn name(self) -> &'static str {
        match self {
            Surface::Api => "api",
            Surface::Pages => "pages",
        }
    }
}

/// What the OpenAPI document says of a route. Schemas are those of OpenAPI, and may refer to its components.
#[derive(Debug, Clone, Default)]
pub struct Doc {
    pub summary: &'static str,
    pub tag: &'static str,
    /// Parameters of the query, and of the path where more is to be said than that they are texts.
    pub params: Vec<Value>,
    /// The schema of the body.
    pub body: Option<Value>,
    /// Status and schema of the answer when all is well.
    pub answer: Option<(u16, Value)>,
    /// The media type of the answer; empty: JSON.
    pub media: &'static str,
    /// The schema of an answer with status 400, if it is not that of all errors.
    pub refusal: Option<Value>,
}

/// A route, without what answers it.
#[derive(Debug, Clone)]
pub struct RouteInfo {
    pub method: Method,
    /// As axum writes it: `/api/v2/dags/{dag}`.
    pub path: String,
    pub access: Access,
    pub surface: Surface,
    /// Whichever server is asked answers, not the one that leads.
    pub here: bool,
    pub doc: Option<Doc>,
}

/// Routes of one or both surfaces, in the order in which they were added.
pub struct Routes {
    surface: Surface,
    routes: Vec<(RouteInfo, MethodRouter<Site>)>,
}

impl Routes {
    /// For programs.
    pub fn api() -> Routes {
        Routes { surface: Surface::Api, routes: Vec::new() }
    }

    /// For browsers.
    pub fn pages() -> Routes {
        Routes { surface: Surface::Pages, routes: Vec::new() }
    }

    /// Answers HEAD too.
    pub fn get<H: Handler<T, Site>, T: 'static>(self, path: impl Into<String>, access: Access, handler: H) -> Self {
        self.add(Method::GET, path.into(), access, on(MethodFilter::GET, handler))
    }

    pub fn post<H: Handler<T, Site>, T: 'static>(self, path: impl Into<String>, access: Access, handler: H) -> Self {
        self.add(Method::POST, path.into(), access, on(MethodFilter::POST, handler))
    }

    pub fn put<H: Handler<T, Site>, T: 'static>(self, path: impl Into<String>, access: Access, handler: H) -> Self {
        self.add(Method::PUT, path.into(), access, on(MethodFilter::PUT, handler))
    }

    pub fn patch<H: Handler<T, Site>, T: 'static>(self, path: impl Into<String>, access: Access, handler: H) -> Self {
        self.add(Method::PATCH, path.into(), access, on(MethodFilter::PATCH, handler))
    }

    pub fn delete<H: Handler<T, Site>, T: 'static>(self, path: impl Into<String>, access: Access, handler: H) -> Self {
        self.add(Method::DELETE, path.into(), access, on(MethodFilter::DELETE, handler))
    }

    /// Documents the route that was added last.
    pub fn doc(mut self, doc: Doc) -> Self {
        if let Some((info, _)) = self.routes.last_mut() {
            info.doc = Some(doc);
        }
        self
    }

    /// The route that was added last is about the server that is asked.
    pub fn here(mut self) -> Self {
        if let Some((info, _)) = self.routes.last_mut() {
            info.here = true;
        }
        self
    }

    pub fn merge(mut self, others: Routes) -> Self {
        self.routes.extend(others.routes);
        self
    }

    fn add(mut self, method: Method, path: String, access: Access, answer: MethodRouter<Site>) -> Self {
        let info = RouteInfo { method, path, access, surface: self.surface, here: false, doc: None };
        self.routes.push((info, answer));
        self
    }

    pub fn infos(&self) -> impl Iterator<Item = &RouteInfo> {
        self.routes.iter().map(|(info, _)| info)
    }

    /// The router, each route behind the check of who may use it, and then passed on where another server leads.
    pub fn build(self, site: &Site) -> Router<Site> {
        let guarded = |info: RouteInfo, answer: MethodRouter<Site>| match info.access {
            Access::Open | Access::Hook => answer,
            Access::Server => answer.route_layer(from_fn_with_state(site.clone(), auth::guard_server)),
            Access::Enrolment | Access::Worker => {
                // Who it is, is looked up in the same database, whichever server is asked.
                let gate = auth::Gate { site: site.clone(), role: Role::Viewer, surface: info.surface };
                let answer = answer.layer(DefaultBodyLimit::max(workers::MOST));
                let answer = answer.route_layer(from_fn_with_state(gate, pass_on::pass_on));
                match info.access {
                    Access::Worker => answer.route_layer(from_fn_with_state(site.clone(), workers::guard)),
                    _ => answer.route_layer(from_fn_with_state(site.clone(), workers::guard_enrolment)),
                }
            }
            Access::Role(role) => {
                let gate = auth::Gate { site: site.clone(), role, surface: info.surface };
                let answer = match info.here {
                    true => answer,
                    false => answer.route_layer(from_fn_with_state(gate.clone(), pass_on::pass_on)),
                };
                answer.route_layer(from_fn_with_state(gate, auth::guard))
            }
        };
        self.routes.into_iter().fold(Router::new(), |router, (info, answer)| {
            let path = info.path.clone();
            router.route(&path, guarded(info, answer))
        })
    }
}

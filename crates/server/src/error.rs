//! What a request is told when it cannot be answered.
//!
//! Two shapes, both FastAPI's, because Airflow's clients parse them: `{"detail": "…"}`, and for input of a wrong shape
//! status 422 with a list of places. A fault of ours is logged here, once, and the client learns no more than that.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use pitcrew_control::app::TriggerError;
use pitcrew_control::backfill::BackfillError;
use pitcrew_control::scheduler::AskError;
use pitcrew_store::StoreError;
use serde_json::{Value, json};

/// Why a request failed.
#[derive(Debug, Clone)]
pub enum ApiError {
    /// A status and a sentence for the client.
    Status(StatusCode, String),
    /// Input of a wrong shape.
    Invalid(Vec<Problem>),
}

/// One wrong part of the input.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// From `body`, `query` or `path` down to the part.
    pub place: Vec<Value>,
    pub message: String,
    /// A word of pydantic's for the kind of problem, such as `missing`.
    pub kind: &'static str,
}

pub type ApiResult<T = Response> = Result<T, ApiError>;

impl ApiError {
    pub fn not_found(what: impl Into<String>) -> Self {
        ApiError::Status(StatusCode::NOT_FOUND, what.into())
    }

    pub fn bad_request(what: impl Into<String>) -> Self {
        ApiError::Status(StatusCode::BAD_REQUEST, what.into())
    }

    pub fn conflict(what: impl Into<String>) -> Self {
        ApiError::Status(StatusCode::CONFLICT, what.into())
    }

    /// One problem with one part of the input.
    pub fn invalid(place: &[&str], kind: &'static str, message: impl Into<String>) -> Self {
        let place = place.iter().map(|part| json!(part)).collect();
        ApiError::Invalid(vec![Problem { place, message: message.into(), kind }])
    }

    /// A fault that is not the client's.
    fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!("a request failed: {error}");
        ApiError::Status(StatusCode::INTERNAL_SERVER_ERROR, "the server failed; its log says why".to_owned())
    }

    pub fn status(&self) -> StatusCode {
        match self {
            ApiError::Status(status, _) => *status,
            ApiError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }

    /// The whole story as one text.
    pub fn message(&self) -> String {
        match self {
            ApiError::Status(_, message) => message.clone(),
            ApiError::Invalid(problems) => {
                let lines: Vec<String> = problems.iter().map(Problem::sentence).collect();
                lines.join("\n")
            }
        }
    }
}

impl Problem {
    fn sentence(&self) -> String {
        let part = self.place.last().map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned));
        format!("`{}`: {}", part.unwrap_or_default(), self.message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let error = self.clone();
        let detail = match self {
            ApiError::Status(_, message) => json!(message),
            ApiError::Invalid(problems) => problems
                .into_iter()
                .map(|p| json!({ "loc": p.place, "msg": p.message, "type": p.kind }))
                .collect::<Vec<_>>()
                .into(),
        };
        let mut response = (status, Json(json!({ "detail": detail }))).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
        }
        // Who speaks another dialect of errors can say it anew.
        response.extensions_mut().insert(error);
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Unavailable(_) | StoreError::Full(_) => {
                tracing::warn!("a request failed: {error}");
                ApiError::Status(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
            StoreError::Conflict(_) => ApiError::conflict(error.to_string()),
            StoreError::Invalid(_) => ApiError::bad_request(error.to_string()),
            StoreError::NotFound { .. } => ApiError::not_found(error.to_string()),
            StoreError::TooNew { .. } | StoreError::Corrupt(_) | StoreError::Backend(_) => ApiError::internal(&error),
        }
    }
}

impl From<AskError> for ApiError {
    fn from(error: AskError) -> Self {
        let status = match &error {
            AskError::NoSuchRun(_) | AskError::NoSuchTask { .. } => StatusCode::NOT_FOUND,
            AskError::Output { exists: false, .. } => StatusCode::NOT_FOUND,
            AskError::Output { exists: true, .. } | AskError::OwnedElsewhere(_) | AskError::Other(_) => {
                StatusCode::CONFLICT
            }
            AskError::Standby | AskError::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        };
        ApiError::Status(status, error.to_string())
    }
}

impl From<TriggerError> for ApiError {
    fn from(error: TriggerError) -> Self {
        match error {
            TriggerError::NoSuchWorkflow(_) => ApiError::not_found(error.to_string()),
            TriggerError::Params(_) => ApiError::bad_request(error.to_string()),
            TriggerError::Exists(_) => ApiError::conflict(error.to_string()),
            TriggerError::Store(error) => error.into(),
            TriggerError::Other(error) => ApiError::internal(&format!("{error:#}")),
        }
    }
}

impl From<BackfillError> for ApiError {
    fn from(error: BackfillError) -> Self {
        let status = match error {
            BackfillError::Store(error) => return error.into(),
            BackfillError::Other(error) => return error.into(),
            BackfillError::NoSuchWorkflow(_) | BackfillError::NoSuchBackfill(_) => StatusCode::NOT_FOUND,
            BackfillError::UnderWay(_) | BackfillError::Over(_) => StatusCode::CONFLICT,
            BackfillError::NoSchedule(_)
            | BackfillError::EndsFirst { .. }
            | BackfillError::NoTimes { .. }
            | BackfillError::TooMany
            | BackfillError::Params(_) => StatusCode::BAD_REQUEST,
        };
        ApiError::Status(status, error.to_string())
    }
}

impl From<anyhow::Error> for ApiError {
    fn from(error: anyhow::Error) -> Self {
        ApiError::internal(&format!("{error:#}"))
    }
}

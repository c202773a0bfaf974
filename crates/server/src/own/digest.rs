//! What the last days came to, for whoever may see every run.

use axum::Json;
use axum::extract::State;
use jiff::SignedDuration;
use pitcrew_control::clock;
use pitcrew_control::digest::{Digest, HOURS_MAX, WEEK, over};

use crate::Site;
use crate::error::{ApiError, ApiResult};
use crate::input::Query;

/// `hours`: how far back, from now.
pub async fn digest(State(site): State<Site>, query: Query) -> ApiResult<Json<Digest>> {
    let length = match query.number::<i64>("hours")? {
        None => WEEK,
        Some(hours) if (1..=HOURS_MAX).contains(&hours) => SignedDuration::from_hours(hours),
        Some(hours) => {
            return Err(ApiError::bad_request(format!("`hours` must be 1 to {HOURS_MAX}, found {hours}")));
        }
    };
    let (app, url) = (&site.app, site.base_url.to_string());
    Ok(Json(over(&app.store, &app.data, &url, length, clock::now()).await?))
}

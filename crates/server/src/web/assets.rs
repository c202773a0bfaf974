//! Style, script and picture of the pages, part of the binary. Their addresses carry a hash of what they hold, so a
//! browser keeps them for ever and gets new ones with a new version.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

struct Asset {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
    /// Put before the text: the style of what another crate draws.
    prefix: &'static str,
    /// With its hash: `pitcrew.1a2b3c4d.css`.
    address: LazyLock<String>,
}

macro_rules! asset {
    ($name:literal, $content_type:literal, $prefix:expr) => {
        asset!($name, $content_type, $prefix, include_str!(concat!("../../assets/", $name)))
    };
    ($name:literal, $content_type:literal, $prefix:expr, $text:expr) => {{
        const TEXT: &str = $text;
        const PREFIX: &str = $prefix;
        Asset {
            name: $name,
            content_type: $content_type,
            text: TEXT,
            prefix: PREFIX,
            address: LazyLock::new(|| {
                let hash: String =
                    Sha256::digest([PREFIX, TEXT].concat()).iter().take(5).map(|byte| format!("{byte:02x}")).collect();
                let (stem, extension) = $name.rsplit_once('.').unwrap_or(($name, ""));
                format!("/assets/{stem}.{hash}.{extension}")
            }),
        }
    }};
}

static ASSETS: [Asset; 3] = [
    asset!(
        "pitcrew.css",
        "text/css; charset=utf-8",
        pitcrew_lang::graph::svg::STYLE,
        concat!(include_str!("../../assets/pitcrew.css"), include_str!("../../assets/admin.css"))
    ),
    asset!(
        "live.js",
        "text/javascript; charset=utf-8",
        "",
        concat!(
            include_str!("../../assets/script/page.js"),
            include_str!("../../assets/script/times.js"),
            include_str!("../../assets/script/parts.js"),
            include_str!("../../assets/script/log.js"),
            include_str!("../../assets/script/grid.js"),
            include_str!("../../assets/script/keys.js"),
            include_str!("../../assets/script/fields.js"),
        )
    ),
    asset!("favicon.svg", "image/svg+xml", ""),
];

/// The address of an asset by its name.
pub fn address(name: &str) -> &'static str {
    ASSETS.iter().find(|asset| asset.name == name).map_or("", |asset| asset.address.as_str())
}

pub async fn serve(Path(name): Path<String>) -> Response {
    let path = format!("/assets/{name}");
    match ASSETS.iter().find(|asset| *asset.address == path) {
        Some(asset) => {
            let headers = [(CONTENT_TYPE, asset.content_type), (CACHE_CONTROL, "public, max-age=31536000, immutable")];
            (headers, [asset.prefix, asset.text].concat()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Browsers ask for it by this name, whatever the page says.
pub async fn favicon() -> Response {
    let asset = &ASSETS[2];
    ([(CONTENT_TYPE, asset.content_type), (CACHE_CONTROL, "public, max-age=86400")], asset.text).into_response()
}

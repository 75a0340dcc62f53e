//! The page's files, compiled in, so that it works without a network.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// Path, type and content.
const FILES: [(&str, &str, &str); 11] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/style.css", STYLE, include_str!("page/style.css")),
    ("/icon.svg", PICTURE, include_str!("page/icon.svg")),
    ("/theme.js", SCRIPT, include_str!("page/theme.js")),
    ("/app.js", SCRIPT, include_str!("page/app.js")),
    ("/api.js", SCRIPT, include_str!("page/api.js")),
    ("/calls.js", SCRIPT, include_str!("page/calls.js")),
    ("/timeline.js", SCRIPT, include_str!("page/timeline.js")),
    ("/dead.js", SCRIPT, include_str!("page/dead.js")),
    ("/receivers.js", SCRIPT, include_str!("page/receivers.js")),
    ("/show.js", SCRIPT, include_str!("page/show.js")),
];

pub fn routes() -> Router {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, content)| {
        let answer = move || async move {
            // The next version of callhook has another page.
            ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], content).into_response()
        };
        router.route(path, get(answer))
    })
}

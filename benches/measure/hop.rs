//! The barest hop: it takes a body in, posts it to a URL over pooled connections, and hands the answer
//! back. No queue, no order, no retry: what is left between its figures and callhook's is what
//! callhook's own work costs.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::serving;

type Pool = Client<HttpConnector, Full<Bytes>>;

/// Serves until the process is ended, on the runtime that callhook would have.
pub fn serve(target: Uri) -> anyhow::Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let pool = Client::builder(TokioExecutor::new()).build(connector);
    // The socket is read where it is spawned, not on the thread that waits here.
    serving::runtime_of_callhook()?
        .block_on(async { tokio::spawn(accept(Arc::new((pool, target)))).await? })
}

async fn accept(hop: Arc<(Pool, Uri)>) -> anyhow::Result<()> {
    let listener = serving::listen().await?;
    loop {
        let stream = serving::accept(&listener).await?;
        let hop = Arc::clone(&hop);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&hop), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .half_close(true) // as callhook does: nothing is read ahead
                .serve_connection(TokioIo::new(stream), service);
            // A client that hangs up in the middle is no news here.
            drop(connection.await);
        });
    }
}

async fn answer(
    hop: Arc<(Pool, Uri)>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let Ok(body) = request.into_body().collect().await else {
        return Ok(status(StatusCode::BAD_REQUEST));
    };
    let (pool, target) = &*hop;
    let forwarded = pass_on(pool, target.clone(), body.to_bytes()).await;
    Ok(forwarded.unwrap_or_else(|_| status(StatusCode::BAD_GATEWAY)))
}

async fn pass_on(pool: &Pool, target: Uri, body: Bytes) -> anyhow::Result<Response<Full<Bytes>>> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(target)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let response = pool.request(request).await?;
    let code = response.status();
    let mut passed = json(response.into_body().collect().await?.to_bytes());
    *passed.status_mut() = code;
    Ok(passed)
}

fn json(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn status(code: StatusCode) -> Response<Full<Bytes>> {
    let mut response = json(Bytes::new());
    *response.status_mut() = code;
    response
}

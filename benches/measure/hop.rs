//! The barest hop: it takes a body in, posts it to a URL over pooled connections, and hands the answer
//! back. No queue, no order, no retry: what is left between its figures and callhook's is what
//! callhook's own work costs.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::serving;

type Pool = Client<HttpConnector, Full<Bytes>>;

/// Serves until the process is ended, on the runtime that callhook would have.
pub fn serve(target: Uri) -> anyhow::Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let pool = Client::builder(TokioExecutor::new()).build(connector);
    let hop = Arc::new((pool, target));
    serving::serve_as_callhook(move |stream| relay(stream, Arc::clone(&hop)))
}

async fn relay(stream: TcpStream, hop: Arc<(Pool, Uri)>) -> anyhow::Result<()> {
    let service = service_fn(move |request| answer(Arc::clone(&hop), request));
    http1::Builder::new()
        .half_close(true) // as callhook does: nothing is read ahead
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
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

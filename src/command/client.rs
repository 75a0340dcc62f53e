//! The client of the running callhook's own ports, which are found by its settings.

use std::time::Duration;

use axum::body::Bytes;
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::listener::ListenAddress;
use crate::text::{innermost, printable};
use crate::wire::client_builder;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0}_PORT=0 takes any free port, so callhook cannot be found; set {0}_PORT")]
    UnknownPort(&'static str),
    #[error(
        "{request}: no answer ({cause}); is callhook running, with these {port}_HOST and {port}_PORT?"
    )]
    NoAnswer { request: String, cause: String, port: &'static str },
    #[error("{request} returned {status}: {error}")]
    Refused { request: String, status: StatusCode, error: String },
}

pub struct Client {
    http: reqwest::Client,
    base: Url,
    /// The prefix of the port's settings: `HTTP` or `ADMIN`.
    port: &'static str,
    pub token: Option<SecretString>,
}

impl Client {
    /// `patience` is the time for one answer.
    ///
    /// # Errors
    /// Where the settings name no port, or the client cannot be set up.
    pub fn new(
        port: &'static str,
        listen: &ListenAddress,
        patience: Duration,
    ) -> Result<Self, ClientError> {
        if listen.port == 0 {
            return Err(ClientError::UnknownPort(port));
        }
        let address = format!("http://{}", listen.reachable());
        let base = Url::parse(&address).expect("a checked host and a port make a URL");
        let http = client_builder().timeout(patience).build().map_err(|error| {
            ClientError::NoAnswer { request: address, cause: innermost(&error), port }
        })?;
        Ok(Self { http, base, port, token: None })
    }

    /// As [`Self::send`], for an answer in JSON.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, ClientError> {
        let (request, status, body) = self.send(method, path, query).await?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Refused {
            request,
            status,
            error: error.to_string(),
        })
    }

    /// Returns what was asked, and a 2xx answer.
    ///
    /// # Errors
    /// [`ClientError`], for any other answer too.
    pub async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<(String, StatusCode, Bytes), ClientError> {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("an http URL has a path").extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = format!("{method} {url}");
        let no_answer = |error: reqwest::Error| ClientError::NoAnswer {
            request: request.clone(),
            cause: innermost(&error),
            port: self.port,
        };
        let mut asked = self.http.request(method, url);
        if let Some(token) = &self.token {
            asked = asked.bearer_auth(token.expose_secret());
        }
        let response = asked.send().await.map_err(no_answer)?;
        let status = response.status();
        let body = response.bytes().await.map_err(no_answer)?;
        if status.is_success() {
            return Ok((request, status, body));
        }
        Err(ClientError::Refused { request, status, error: error_of(&body) })
    }
}

/// callhook's own error; of anybody else's answer the first line.
fn error_of(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct ErrorBody {
        error: String,
    }
    match serde_json::from_slice(body) {
        Ok(ErrorBody { error }) => error,
        Err(_) => {
            let text = String::from_utf8_lossy(body);
            printable(text.trim_start().lines().next().unwrap_or_default())
        }
    }
}

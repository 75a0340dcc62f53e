//! `POST /hangup`, `/transfer`, `/variables`: what an agent's tools ask of a live call, as they ask it of avr-ami. `POST
//! /originate` and `/setvar`, which that one does too, are told to go there.
//!
//! Every answer has a `message`, a sentence that a model can act on: the tools hand it back to theirs. Those tools pass
//! on only a 2xx's words, so a request that is understood and not allowed is a 200, with `refused`.
//!
//! What is asked about a call is remembered in the history with its answer, also where an operator asks.
//!
//! Limits: [`MAX_BODY`]; [`MOST_REQUESTS`] a second and call.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::body;
use super::error::{HttpError, Reason};
use super::front::Front;
use crate::calls::asked::{CallRequest, NotTaken, Taken};
use crate::calls::{Calls, MOST_REQUESTS};
use crate::event::{CallId, Payload};
use crate::history::{History, RequestRecord};
use crate::routing::destination::{Destination, Destinations, MAX_NAME, Wish};
use crate::text::{excerpt, printable};
use crate::time::unix_millis;

/// The longest body, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// What AVR's tools send where the model names no context.
const USUAL_CONTEXT: &str = "demo";

#[derive(Serialize)]
struct AgentAnswer {
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'static str>,
}

/// Who asks something of a call.
#[derive(Clone, Copy, Debug, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Asker {
    Agent,
    Inspector,
}

/// Of whose calls something is asked, who asks, and where that is remembered.
pub struct Asking<'a> {
    pub calls: &'a Calls,
    pub history: &'a History,
    pub by: Asker,
}

pub async fn hang_up(
    State(front): State<Arc<Front>>,
    request: Request,
) -> Result<Response, HttpError> {
    let body = read(&front, request).await?;
    let message = Asking::of_agent(&front).hang_up(call_in(&body)?)?;
    Ok(Json(AgentAnswer { message, refused: None }).into_response())
}

pub async fn transfer(
    State(front): State<Arc<Front>>,
    request: Request,
) -> Result<Response, HttpError> {
    let body = read(&front, request).await?;
    let call = call_in(&body)?;
    let json = body::strict_json(&body)?;
    let wish = Wish::read(json, Some(USUAL_CONTEXT)).map_err(HttpError::bad_request)?;
    let request = CallRequest::Transfer(granted(&wish, &front.transfer_to));
    let asking = Asking::of_agent(&front);
    let answer = match asking.ask(call, request, Some(shown_wish(&wish))) {
        Err(NotTaken::NotAllowed) => {
            let (context, exten) = (shown(&wish.context), shown(&wish.exten));
            warn!(
                uuid = %call,
                by = <&str>::from(Asker::Agent),
                context,
                exten,
                "a transfer is refused: TRANSFER_TO does not list it"
            );
            let message = not_allowed(&context, &exten, &front.transfer_to);
            AgentAnswer { message, refused: Some("not_allowed") }
        }
        answered => answer_of(call, "transfer", asking.by, answered)?,
    };
    Ok(Json(answer).into_response())
}

pub async fn variables(
    State(front): State<Arc<Front>>,
    request: Request,
) -> Result<Response, HttpError> {
    let body = read(&front, request).await?;
    let call = call_in(&body)?;
    let at = unix_millis();
    let payload = front.calls.payload_of(call, Instant::now());
    Asking::of_agent(&front).remember(call, at, "variables", None, &payload);
    let payload = payload.map_err(|not_taken| error_of(call, not_taken))?;
    debug!(uuid = %call, "an agent asks what was announced");
    let json = HeaderValue::from_static("application/json");
    Ok(([(CONTENT_TYPE, json)], with_uuid(call, payload.as_ref())).into_response())
}

/// `POST /originate`, `POST /setvar`: not callhook's to do.
pub async fn of_avr_ami(
    State(front): State<Arc<Front>>,
    request: Request,
) -> Result<Response, HttpError> {
    front.authorise_agent(request.headers())?;
    let path = request.uri().path();
    Err(HttpError::new(
        StatusCode::NOT_IMPLEMENTED,
        format!(
            "callhook does not do {path}, since it does not log in to Asterisk; only avr-ami does, so this cannot be \
             done here"
        ),
    ))
}

/// What an error of these routes looks like, wherever it was made: `{"message":…}`.
pub fn shaped(mut answer: Response) -> Response {
    if let Some(Reason(reason)) = answer.extensions().get() {
        let body = json!({"message": reason}).to_string();
        answer.headers_mut().remove(CONTENT_LENGTH);
        *answer.body_mut() = Body::from(body);
    }
    answer
}

impl<'a> Asking<'a> {
    fn of_agent(front: &'a Front) -> Self {
        Self { calls: &front.calls, history: &front.history, by: Asker::Agent }
    }

    /// Asks a call to end, and returns what is to be said of that.
    ///
    /// # Errors
    /// 404 where it is not live, 429 for too many requests.
    pub fn hang_up(&self, call: CallId) -> Result<String, HttpError> {
        let answered = self.ask(call, CallRequest::HangUp, None);
        answer_of(call, "hang_up", self.by, answered).map(|answer| answer.message)
    }

    /// `next` is where a transfer should lead.
    fn ask(
        &self,
        call: CallId,
        request: CallRequest,
        next: Option<String>,
    ) -> Result<Taken, NotTaken> {
        // Before what follows from it.
        let (at, asked) = (unix_millis(), <&str>::from(&request));
        let answered = self.calls.ask(call, request, Instant::now());
        self.remember(call, at, asked, next, &answered);
        answered
    }

    fn remember<T>(
        &self,
        call: CallId,
        at: u64,
        asked: &'static str,
        next: Option<String>,
        answered: &Result<T, NotTaken>,
    ) {
        let answer = match answered {
            Ok(_) => "taken",
            Err(not_taken) => not_taken.into(),
        };
        let next = next.map(Into::into);
        self.history.asked(call, RequestRecord { at, by: self.by.into(), asked, next, answer });
    }
}

fn answer_of(
    call: CallId,
    asked: &'static str,
    by: Asker,
    answered: Result<Taken, NotTaken>,
) -> Result<AgentAnswer, HttpError> {
    let by = <&str>::from(by);
    match answered {
        Ok(taken) => {
            let (message, next) = message_of(&taken);
            info!(uuid = %call, by, asked, next, answer = "taken", "a call is asked to end");
            Ok(AgentAnswer { message, refused: None })
        }
        Err(NotTaken::NoNext) => {
            warn!(
                uuid = %call,
                by,
                asked,
                "a transfer is refused: the call's dialplan never asked GET /call/UUID/next, so its caller would only \
                 be hung up on; config/extensions.conf shows how it asks"
            );
            let message = "This caller cannot be transferred, since the telephone system is not set up for it (its \
                           dialplan does not ask where to; the operator finds how in config/extensions.conf). Tell \
                           the caller so, and go on with the conversation."
                .to_owned();
            Ok(AgentAnswer { message, refused: Some("no_next") })
        }
        Err(not_taken) => Err(error_of(call, not_taken)),
    }
}

/// What is said of a request that was taken, and where the caller will be sent.
fn message_of(taken: &Taken) -> (String, Option<String>) {
    match taken {
        Taken::HangUp => {
            let message = "The call ends as soon as you have said goodbye. Say it now, in one sentence, unless you have \
                           already, and then nothing more.";
            (message.to_owned(), None)
        }
        Taken::Transfer(to) => {
            let message = format!(
                "The caller is transferred to extension {} as soon as you are silent. Say so now, in one sentence, \
                 unless you have already, and then nothing more.",
                to.exten()
            );
            (message, Some(to.to_string()))
        }
        Taken::TransferAnyway(to) => {
            let message = format!(
                "The caller is already being transferred to extension {}, which cannot be undone; the conversation \
                 with you ends with that. Say nothing more.",
                to.exten()
            );
            (message, Some(to.to_string()))
        }
    }
}

fn not_allowed(context: &str, exten: &str, allowed: &Destinations) -> String {
    let allowed = allowed.to_string();
    let instead = match allowed.is_empty() {
        true => "No transfers are allowed at all: tell the caller that you cannot transfer them, and go on.".to_owned(),
        false => format!(
            "Allowed are only: {allowed}. Use one of these if it is what the caller wants, else tell the caller that \
             you cannot transfer them there."
        ),
    };
    format!("A transfer to extension {exten} in context {context} is not allowed. {instead}")
}

fn error_of(call: CallId, not_taken: NotTaken) -> HttpError {
    debug!(uuid = %call, ?not_taken, "a request about a call is refused");
    match not_taken {
        NotTaken::TooMany => HttpError::new(
            StatusCode::TOO_MANY_REQUESTS,
            format!(
                "more than {MOST_REQUESTS} requests a second about call {call}; wait for a second before you ask again"
            ),
        ),
        NotTaken::NotLive | NotTaken::NotAllowed | NotTaken::NoNext => {
            HttpError::not_found(format!(
                "no live call {call} is known here: it has ended, or is not connected yet; nothing can be done with it"
            ))
        }
    }
}

async fn read(front: &Front, request: Request) -> Result<Bytes, HttpError> {
    front.authorise_agent(request.headers())?;
    body::read(request.into_body(), MAX_BODY, &front.requests.bodies).await
}

fn call_in(body: &[u8]) -> Result<CallId, HttpError> {
    body::event(body)?.call().map_err(HttpError::bad_request)
}

/// Where an agent may send its caller, if it wants that.
fn granted(wish: &Wish<'_>, allowed: &Destinations) -> Option<Destination> {
    wish.destination().ok().filter(|destination| allowed.admits(destination))
}

/// As a dialplan would be told it.
fn shown_wish(wish: &Wish<'_>) -> String {
    [&wish.context, &wish.exten, &wish.priority].map(|name| shown(name)).join(",")
}

fn shown(name: &str) -> String {
    excerpt(&printable(name), MAX_NAME)
}

/// The payload with the call's uuid, unless it has a field of that name itself.
fn with_uuid(call: CallId, payload: Option<&Payload>) -> String {
    let (open, fields) = match payload {
        Some(payload) if payload.fields().iter().any(|(name, _)| &*name.0 == b"uuid") => {
            return payload.as_str().to_owned();
        }
        Some(payload) => (payload.as_str(), payload.fields().len()),
        None => ("{}", 0),
    };
    let rest = open.trim_start().strip_prefix('{').expect("a payload is an object");
    let comma = if fields > 0 { "," } else { "" };
    format!(r#"{{"uuid":"{call}"{comma}{rest}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_granted_only_if_it_is_listed_with_priority_1() {
        let allowed = Destinations::new(vec!["demo/100".parse().unwrap()]);
        for (json, granted) in [
            (r#"{"exten":"100"}"#, true),
            (r#"{"exten":100,"priority":1}"#, true),
            (r#"{"exten":"100","priority":2}"#, false),
            (r#"{"exten":"100","priority":"n"}"#, false),
            (r#"{"exten":"100","context":"people"}"#, false),
            (r#"{"exten":"101"}"#, false),
            (r#"{"exten":"100 "}"#, false),
            (r#"{"exten":"0100"}"#, false),
        ] {
            let wish = Wish::read(json, Some(USUAL_CONTEXT)).unwrap();
            assert_eq!(super::granted(&wish, &allowed).is_some(), granted, "{json}");
        }
    }

    #[test]
    fn what_was_announced_is_told_byte_for_byte_with_the_uuid() {
        let call: CallId = "7f9c1f3e-0d6c-4c7e-9f43-0b6f6a0f3d21".parse().unwrap();
        let told = |json: &str| {
            let payload = Payload::from_strict(json).unwrap();
            with_uuid(call, Some(&payload))
        };
        let uuid = format!(r#"{{"uuid":"{call}""#);
        assert_eq!(with_uuid(call, None), format!("{uuid}}}"));
        assert_eq!(told("{}"), format!("{uuid}}}"));
        assert_eq!(
            told(r#"{ "a":"\ud83c","n":1E400 }"#),
            format!(r#"{uuid}, "a":"\ud83c","n":1E400 }}"#)
        );
        assert_eq!(told(r#"{"uuid":"its own"}"#), r#"{"uuid":"its own"}"#);
    }

    #[test]
    fn a_refusal_names_what_is_allowed() {
        let message = not_allowed("demo", "999", &Destinations::default());
        assert!(
            message.contains("extension 999 in context demo") && message.contains("No transfers")
        );
        let allowed =
            Destinations::new(vec!["people/100".parse().unwrap(), "people/h".parse().unwrap()]);
        let message = not_allowed("demo", "999", &allowed);
        assert!(
            message.contains("Allowed are only: extension 100 in context people."),
            "{message}"
        );
    }
}

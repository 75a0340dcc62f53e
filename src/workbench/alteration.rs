//! Alterations: what a request on purpose does otherwise than delivery's own.
//!
//! A sender takes the request that [`Webhook::request`](crate::delivery::Webhook::request) builds,
//! applies these, and sends it through delivery's client: whatever is not altered is as in service.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{Either, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use hyper::{Method, Request};
use tokio::time::sleep;

use crate::delivery::SECRET_HEADER;
use crate::delivery::signature::{SIGNATURE_HEADER, SigningKeys, TIMESTAMP_HEADER};
use crate::event::Event;
use crate::wire::connections::RequestBody;

/// The age of an old signature. Standard Webhooks leaves the limit to the receiver; its libraries
/// use five minutes.
pub const OLD: Duration = Duration::from_secs(60 * 60);

/// Wrong secrets, of which one differs from whatever the right one is.
const WRONG_SECRETS: [&str; 2] = ["not-the-secret", "quite-another-one"];

/// 32 zero bytes: well formed, and in practice no key makes it.
const WRONG_SIGNATURE: &str = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alteration {
    WrongSecret,
    NoSecret,
    WrongSignature,
    /// Neither signature nor timestamp.
    NoSignature,
    /// Signed correctly, but [`OLD`].
    OldSignature,
    /// GET without a body.
    Get,
    /// HEAD without a body.
    Head,
    /// The head, then the body in this many pieces of equal length, each after this pause.
    Pieces(u32, Duration),
}

impl Alteration {
    /// Alters the request for this event; `keys` are those that delivery signed it with.
    pub fn apply(
        self,
        request: &mut Request<RequestBody>,
        event: &Event,
        keys: Option<&SigningKeys>,
    ) {
        let headers = request.headers_mut();
        match self {
            Self::WrongSecret => {
                let own = headers.get(SECRET_HEADER);
                let wrong =
                    WRONG_SECRETS.into_iter().find(|wrong| own.is_none_or(|own| own != wrong));
                headers.insert(SECRET_HEADER, fixed(wrong.expect("one differs of two")));
            }
            Self::NoSecret => {
                headers.remove(SECRET_HEADER);
            }
            Self::WrongSignature => {
                headers.insert(SIGNATURE_HEADER, fixed(WRONG_SIGNATURE));
            }
            Self::NoSignature => {
                headers.remove(TIMESTAMP_HEADER);
                headers.remove(SIGNATURE_HEADER);
            }
            Self::OldSignature => {
                let keys = keys.expect("an old signature is asked for only where there is a key");
                let signed = keys.sign(&event.id.to_string(), SystemTime::now() - OLD, &event.body);
                let signature = HeaderValue::from_str(&signed.signatures);
                headers.insert(TIMESTAMP_HEADER, signed.timestamp.into());
                headers.insert(SIGNATURE_HEADER, signature.expect("base64 is visible ASCII"));
            }
            Self::Get | Self::Head => {
                *request.method_mut() = self.method();
                *request.body_mut() = Either::Left(Full::default());
            }
            Self::Pieces(pieces, pause) => {
                // Without a length, the body would be chunked, which is a different request.
                headers.insert(CONTENT_LENGTH, event.body.len().into());
                *request.body_mut() = in_pieces(event.body.clone(), pieces, pause);
            }
        }
    }

    pub fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Head => Method::HEAD,
            _ => Method::POST,
        }
    }
}

fn fixed(text: &'static str) -> HeaderValue {
    HeaderValue::from_static(text)
}

/// hyper flushes what it has before a pause, so each piece is a TCP segment of its own.
fn in_pieces(body: Bytes, pieces: u32, pause: Duration) -> RequestBody {
    let pieces = usize::try_from(pieces).unwrap_or(usize::MAX).max(1);
    let length = body.len().div_ceil(pieces).max(1);
    Either::Right(BoxBody::new(StreamBody::new(stream::unfold(body, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        sleep(pause).await;
        let piece = rest.split_to(length.min(rest.len()));
        Some((Ok::<_, Infallible>(Frame::data(piece)), rest))
    }))))
}

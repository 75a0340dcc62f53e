//! What a receiver did not get: its dead letters, as the admin port lists them.

use std::net::SocketAddr;

use crate::support::service::{Wire, request_to};

pub struct Letter {
    pub call: String,
    pub id: String,
    /// The event's number within its call.
    pub n: usize,
    pub code: String,
}

/// All of them, oldest first.
pub async fn of(admin: SocketAddr, receiver: &str) -> Vec<Letter> {
    let (mut letters, mut cursor) = (Vec::new(), Some(0));
    while let Some(at) = cursor {
        let path = format!("/api/dead?receiver={receiver}&limit=1000&cursor={at}");
        let mut wire = Wire::open(admin).await;
        wire.send(request_to("localhost", "GET", &path, &[], "")).await;
        let page = wire.answer().await.expect("a page of dead letters").json();
        for item in page["items"].as_array().unwrap_or_else(|| panic!("dead letters in {page}")) {
            let text = |field: &str| item[field].as_str().expect("text").to_owned();
            let n = item["payload"]["n"].as_u64().expect("a numbered event");
            let n = usize::try_from(n).expect("a small number");
            letters.push(Letter { call: text("uuid"), id: text("id"), n, code: text("code") });
        }
        cursor = page["next"].as_u64();
    }
    letters
}

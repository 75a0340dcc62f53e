//! The tools of AVR's STS servers, `avr_hangup` and `avr_transfer`: they post to `AMI_URL` by axios, without a header of
//! their own, and give the answer's message back to the model.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::service::{Answer, Service};

/// What axios sends beside `Host` and `Content-Length`.
const AXIOS: [(&str, &str); 5] = [
    ("Accept", "application/json, text/plain, */*"),
    ("Content-Type", "application/json"),
    ("User-Agent", "axios/1.8.4"),
    ("Accept-Encoding", "gzip, compress, deflate, br"),
    ("Connection", "keep-alive"),
];

/// The tools of a server whose `AMI_URL` is the service's front.
pub struct Tools<'a> {
    service: &'a Service,
    authorization: Option<String>,
}

impl<'a> Tools<'a> {
    pub fn of(service: &'a Service) -> Tools<'a> {
        Tools { service, authorization: None }
    }

    /// With a user and a password in the URL.
    pub fn with(service: &'a Service, user: &str, password: &str) -> Tools<'a> {
        let pair = STANDARD.encode(format!("{user}:{password}"));
        Tools { service, authorization: Some(format!("Basic {pair}")) }
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        let mut headers = AXIOS.to_vec();
        if let Some(authorization) = &self.authorization {
            headers.push(("Authorization", authorization));
        }
        self.service.post_with(path, &headers, body).await
    }

    pub async fn hang_up(&self, uuid: &str) -> Answer {
        self.post("/hangup", &json!({ "uuid": uuid }).to_string()).await
    }

    /// To an extension of the context `people`.
    pub async fn transfer(&self, uuid: &str, exten: &str) -> Answer {
        let body = json!({ "uuid": uuid, "exten": exten, "context": "people", "priority": 1 });
        self.post("/transfer", &body.to_string()).await
    }

    /// What `avr_hangup` gives back to the model.
    pub async fn hung_up(&self, uuid: &str) -> String {
        message(&self.hang_up(uuid).await, None)
    }

    /// What `avr_transfer` gives back to the model.
    pub async fn transferred(&self, uuid: &str, exten: &str) -> String {
        message(&self.transfer(uuid, exten).await, None)
    }
}

/// The message of a 200, which was refused for this reason or not at all.
pub fn message(answer: &Answer, refused: Option<&str>) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    assert_eq!(json.get("refused").and_then(Value::as_str), refused, "{answer:?}");
    let message = json["message"].as_str().expect("a message is text");
    assert!(message.ends_with('.') && message.len() > 20, "a sentence: {message}");
    message.to_owned()
}

/// The message of an error with this status.
pub fn complaint(answer: &Answer, status: u16) -> String {
    assert_eq!(answer.status, status, "{answer:?}");
    let json = answer.json();
    assert_eq!(json.as_object().map(serde_json::Map::len), Some(1), "{answer:?}");
    json["message"].as_str().filter(|text| !text.is_empty()).expect("a message").to_owned()
}

//! callhook with everybody it talks to in a call: a receiver, an STS server, and as many Asterisks as a test
//! wants.

use serde_json::{Value, json};

use super::asterisk::{Asterisk, Ear};
use super::event::new_uuid;
use super::receiver::{Receiver, Seen};
use super::service::{Answer, Service};
use super::sts::{Manner, Session, Sts};

pub struct Stage {
    pub receiver: Receiver,
    pub sts: Sts,
    pub service: Service,
}

/// One call, bridged.
pub struct Call {
    pub uuid: String,
    pub asterisk: Asterisk,
    pub ear: Ear,
    pub session: Session,
}

impl Stage {
    /// A receiver that answers everything with 200, an STS server that takes every call, `STS_URL` naming it,
    /// and these settings.
    pub async fn set(vars: &[(&str, &str)]) -> Stage {
        Stage::with(Sts::start(Manner::Usual).await, vars).await
    }

    /// The same with this STS server.
    pub async fn with(sts: Sts, vars: &[(&str, &str)]) -> Stage {
        Stage::of(Receiver::content().await, sts, vars).await
    }

    /// The same with this receiver, too.
    pub async fn of(receiver: Receiver, sts: Sts, vars: &[(&str, &str)]) -> Stage {
        let usual = [("WEBHOOK_URL", receiver.url.as_str()), ("STS_URL", sts.url.as_str())];
        let service = Service::start(&[&usual, vars].concat()).await;
        Stage { receiver, sts, service }
    }

    /// A connection that has said nothing yet.
    pub async fn connect(&self) -> Asterisk {
        Asterisk::connect(self.service.audiosocket().await).await
    }

    /// A connection that has sent this uuid.
    pub async fn dial(&self, uuid: &str) -> Asterisk {
        let mut asterisk = self.connect().await;
        assert!(asterisk.uuid(uuid).await, "callhook takes a uuid");
        asterisk
    }

    /// A call up to the point where the STS server was told of it.
    pub async fn call(&self) -> Call {
        self.call_of(&new_uuid()).await
    }

    pub async fn call_of(&self, uuid: &str) -> Call {
        let asterisk = self.dial(uuid).await;
        let session = self.sts.session_of(uuid).await;
        let ear = asterisk.ear();
        Call { uuid: uuid.to_owned(), asterisk, ear, session }
    }

    /// `POST /call` with this payload.
    pub async fn announce(&self, uuid: &str, payload: Value) -> Answer {
        let body = json!({ "uuid": uuid, "payload": payload }).to_string();
        let answer = self.service.post("/call", body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    }

    /// Waits for the event of this type of this call.
    pub async fn event(&self, uuid: &str, kind: &str) -> Seen {
        let what = format!("{kind} of {uuid}");
        let wanted = |seen: &&Seen| seen.uuid() == uuid && seen.kind() == kind;
        self.receiver.until(&what, |seen| seen.iter().find(wanted).cloned()).await
    }

    /// The events of this call so far.
    pub fn events(&self, uuid: &str) -> Vec<Seen> {
        let mut seen = self.receiver.so_far();
        seen.retain(|seen| seen.uuid() == uuid);
        seen
    }

    pub fn kinds(&self, uuid: &str) -> Vec<String> {
        self.events(uuid).iter().map(|seen| seen.kind().to_owned()).collect()
    }

    /// Waits for the log line of this call's end.
    pub async fn end_line(&self, uuid: &str) -> Value {
        let ended = |line: &Value| line["message"] == "call ended" && line["uuid"] == uuid;
        self.service.log_line(ended).await
    }

    /// Waits for the call's end, which has to be for this reason, in the event and in the log.
    pub async fn ended_by(&self, uuid: &str, reason: &str) {
        let line = self.end_line(uuid).await;
        assert_eq!(line["reason"], reason, "{line}");
        self.event(uuid, "call_ended").await;
    }

    /// Ends callhook with SIGTERM, so that nothing more can come; it must not have ended before.
    pub async fn close(&mut self) {
        self.service.terminate();
        let code = self.service.wait().await;
        assert_eq!(code, 0, "the log:\n{}", self.service.whole_log().await);
    }
}

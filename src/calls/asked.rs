//! Asked: what was asked of one live call, between those who ask and the call itself.
//!
//! Owns the answer to a request, and what it came to: a transfer takes the place of a hang-up that was asked for
//! before, and never the other way round.
//!
//! Invariant: what was answered as taken has its effect. A call that is to end looks here first, under the same lock
//! under which requests are answered, and is closed to them in the same moment ([`News::close`]).

use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::routing::destination::Destination;

/// What can be asked of a live call. The greater one takes the place of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// To end, once the agent has said goodbye.
    HangUp,
    /// The same, and then to send the caller on.
    Transfer,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum CallRequest {
    HangUp,
    /// `None` where callers may not be sent there.
    Transfer(Option<Destination>),
}

/// What a request that was taken has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The call is to end.
    HangUp,
    /// The caller is to be sent on.
    Transfer(Destination),
    /// A hang-up was asked for, and the caller will be sent on all the same, as was asked before.
    TransferAnyway(Destination),
}

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum NotTaken {
    /// There is no such call, or not any more.
    NotLive,
    /// More than [`super::MOST_REQUESTS`] a second.
    TooMany,
    /// Callers may not be sent there.
    NotAllowed,
    /// The call's dialplan has never asked where to send its caller.
    NoNext,
}

#[derive(Debug, Default)]
pub struct Asked {
    state: Mutex<AskedState>,
    came: Notify,
}

#[derive(Debug, Default)]
struct AskedState {
    pending: Option<Ask>,
    /// Of a transfer.
    to: Option<Destination>,
    /// Whether the call does not know of `pending` yet.
    is_new: bool,
    /// Whether the call's dialplan has asked where to send its caller.
    knows_next: bool,
    closed: bool,
}

impl Asked {
    /// Of a call whose dialplan has asked already, or has not.
    pub fn new(knows_next: bool) -> Self {
        let state = AskedState { knows_next, ..AskedState::default() };
        Self { state: Mutex::new(state), came: Notify::new() }
    }

    /// The call's dialplan has asked where to send its caller.
    pub fn note_next(&self) {
        self.lock().knows_next = true;
    }

    /// # Errors
    /// [`NotTaken`].
    pub fn take(&self, request: CallRequest) -> Result<Taken, NotTaken> {
        let mut state = self.lock();
        if state.closed {
            return Err(NotTaken::NotLive);
        }
        let ask = match request {
            CallRequest::HangUp => Ask::HangUp,
            CallRequest::Transfer(None) => return Err(NotTaken::NotAllowed),
            CallRequest::Transfer(Some(_)) if !state.knows_next => return Err(NotTaken::NoNext),
            CallRequest::Transfer(Some(to)) => {
                state.to = Some(to);
                Ask::Transfer
            }
        };
        let pending = state.pending.max(Some(ask));
        if state.pending != pending {
            state.pending = pending;
            state.is_new = true;
            self.came.notify_one();
        }
        Ok(match (ask, state.to.clone()) {
            (Ask::Transfer, Some(to)) => Taken::Transfer(to),
            (Ask::HangUp, Some(to)) => Taken::TransferAnyway(to),
            (_, None) => Taken::HangUp,
        })
    }

    /// Waits until something is asked. Cancel safe.
    pub async fn came(&self) {
        self.came.notified().await;
    }

    /// For the call: what was asked since it last looked. No request is answered until this is dropped.
    pub fn news(&self) -> News<'_> {
        News(self.lock())
    }

    /// Where the caller is to be sent.
    pub fn destination(&self) -> Option<Destination> {
        self.lock().to.clone()
    }

    fn lock(&self) -> MutexGuard<'_, AskedState> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }
}

/// What is asked, while nothing more can be.
pub struct News<'a>(MutexGuard<'a, AskedState>);

impl News<'_> {
    /// What the call does not know of yet.
    pub fn take(&mut self) -> Option<Ask> {
        let is_new = std::mem::take(&mut self.0.is_new);
        self.0.pending.filter(|_| is_new)
    }

    /// From now on nothing is taken.
    pub fn close(&mut self) {
        self.0.closed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(exten: &str) -> Destination {
        Destination::new("people", exten).unwrap()
    }

    fn transfer(exten: &str) -> CallRequest {
        CallRequest::Transfer(Some(to(exten)))
    }

    #[test]
    fn a_transfer_takes_the_place_of_a_hang_up_and_never_the_other_way_round() {
        let asked = Asked::new(true);
        assert_eq!(asked.take(CallRequest::HangUp), Ok(Taken::HangUp));
        assert_eq!(asked.news().take(), Some(Ask::HangUp));
        assert_eq!(asked.take(CallRequest::HangUp), Ok(Taken::HangUp));
        assert_eq!(asked.news().take(), None, "a second request changes nothing");
        assert_eq!(asked.take(transfer("100")), Ok(Taken::Transfer(to("100"))));
        assert_eq!(asked.news().take(), Some(Ask::Transfer));
        assert_eq!(asked.take(CallRequest::HangUp), Ok(Taken::TransferAnyway(to("100"))));
        assert_eq!(asked.take(transfer("200")), Ok(Taken::Transfer(to("200"))), "but where to");
        assert_eq!(asked.news().take(), None);
        assert_eq!(asked.destination(), Some(to("200")));
    }

    #[test]
    fn what_the_call_learns_late_is_what_it_came_to() {
        let asked = Asked::new(true);
        asked.take(CallRequest::HangUp).unwrap();
        asked.take(transfer("100")).unwrap();
        asked.take(CallRequest::HangUp).unwrap();
        let mut news = asked.news();
        assert_eq!((news.take(), news.take()), (Some(Ask::Transfer), None));
    }

    #[test]
    fn nothing_is_taken_once_the_call_has_closed() {
        let asked = Asked::new(true);
        asked.take(transfer("100")).unwrap();
        asked.news().close();
        for request in [CallRequest::HangUp, transfer("200"), CallRequest::Transfer(None)] {
            assert_eq!(asked.take(request), Err(NotTaken::NotLive));
        }
        assert_eq!(asked.news().take(), Some(Ask::Transfer), "what was taken before is known");
        assert_eq!(asked.destination(), Some(to("100")));
    }

    #[test]
    fn a_transfer_needs_to_be_allowed_and_a_dialplan_that_asks() {
        let asked = Asked::new(false);
        assert_eq!(asked.take(CallRequest::Transfer(None)), Err(NotTaken::NotAllowed));
        assert_eq!(asked.take(transfer("100")), Err(NotTaken::NoNext));
        assert_eq!(asked.news().take(), None);
        assert_eq!(asked.destination(), None);
        asked.note_next();
        assert_eq!(asked.take(transfer("100")), Ok(Taken::Transfer(to("100"))));
        assert_eq!(asked.take(CallRequest::Transfer(None)), Err(NotTaken::NotAllowed));
        assert_eq!(asked.destination(), Some(to("100")), "a refusal changes nothing");
    }
}

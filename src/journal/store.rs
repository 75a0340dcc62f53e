//! Store: where rows survive. The seam behind which the journal does not look.
//!
//! Owns what a store must do, and what it can fail with. A store decides nothing: what is to be written,
//! when, and what follows from a fault is the journal's.
//!
//! Invariants of every store:
//! - [`Store::commit`] does all of its changes or none, and they survive a crash once it returns. After an
//!   error all, or none, of them may be there: they are written again, in a store opened anew.
//! - What it opens is what was written, or an [`OpenError`] that says why not; nothing is deleted for it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::row::{Changes, DeadLetter, EndedCall, GivenId};
use crate::event::{CallId, EventId, Item};
use crate::receiver::{ReceiverId, Receivers};

/// How long it is kept how a call ended: a dialplan asks right after the end.
pub const ENDED_KEPT: Duration = Duration::from_secs(10 * 60);

/// How a store is opened, and opened again after a fault, for these receivers.
pub type Opener = Box<dyn Fn(&Receivers) -> Result<Box<dyn Store>, OpenError> + Send + Sync>;

pub trait Store: Send + Sync {
    /// Those that it was opened for, then others for which it still holds something.
    fn receivers(&self) -> &Receivers;

    /// Makes all of the changes last; afterwards there are at most `dead_limit` dead letters of each receiver, its
    /// oldest having gone first. Ends that find nothing are no fault.
    ///
    /// # Errors
    /// [`DiskError`]; the store is of no further use then.
    fn commit(&self, changes: &Changes, dead_limit: u64) -> Result<Vec<LettersLeft>, DiskError>;

    /// Everything that was promised and is not settled.
    ///
    /// # Errors
    /// [`DiskError`] where what is there cannot be read.
    fn recover(&self) -> Result<Recovered, DiskError>;

    /// Visits the dead letters from a place on, of one receiver or of all, oldest first, until `visit` breaks off.
    ///
    /// # Errors
    /// [`DiskError`] where what is there cannot be read.
    fn dead_letters(
        &self,
        of: Option<ReceiverId>,
        from: u64,
        visit: &mut dyn FnMut(DeadLetter) -> ControlFlow<()>,
    ) -> Result<(), DiskError>;

    /// Gives disk space back where far more is held than used; nobody else uses the store meanwhile. Returns the
    /// bytes before and after, if it did.
    ///
    /// # Errors
    /// [`DiskError`]; what was kept is kept.
    fn compact(&mut self) -> Result<Option<(u64, u64)>, DiskError> {
        Ok(None)
    }

    /// Of each receiver, by its id.
    ///
    /// # Errors
    /// [`DiskError`] where what is there cannot be read.
    fn dead_counts(&self) -> Result<Vec<u64>, DiskError>;
}

/// A receiver's dead letters after a commit.
#[derive(Clone, Copy, Debug)]
pub struct LettersLeft {
    pub kept: u64,
    /// Those that had to go because there were more than the limit.
    pub dropped: u64,
}

/// What a store holds at the start.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Those that are not settled, by their place.
    pub items: Vec<Item>,
    /// In no order, perhaps given longer than an hour ago.
    pub ids: Vec<(EventId, GivenId)>,
    /// The place of the next event.
    pub next_place: u64,
    /// Calls that were being bridged.
    pub calls: Vec<LiveCall>,
    /// Calls that ended, the oldest first.
    pub ended: Vec<EndedCall>,
}

/// A call that was being bridged when callhook died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveCall {
    pub call: CallId,
    /// When it began, in Unix milliseconds.
    pub since: u64,
    /// When callhook last wrote that it lives, in Unix milliseconds; as `since` where it did not yet.
    pub seen: u64,
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "is in use by another process; stop that one, or give this one a JOURNAL_PATH of its own"
    )]
    InUse,
    /// Another version of callhook wrote it.
    #[error(
        "has format {found}, and this callhook reads {reads}: let the callhook that wrote it deliver \
         what it holds, or move the file away to begin anew"
    )]
    OtherFormat { found: u64, reads: u64 },
    /// It is not what was written.
    #[error(
        "is damaged, or no journal: {0}. Nothing was deleted. Restore it from a backup, or move it \
         away to begin anew without the events it holds"
    )]
    Damaged(String),
    /// The file system does not let it be opened.
    #[error("cannot be opened: {0}. The directory must exist or be makeable, and be writable")]
    Unreachable(String),
}

/// The disk does not take what is to be promised.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal cannot be written: {0}")]
pub struct DiskError(pub Arc<str>);

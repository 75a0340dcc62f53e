//! Holding: what is one partition to this node?
//!
//! A state machine that sees no clock and no store: what was read and what came of statements comes in as a [`Sign`].
//!
//! Invariants:
//! - Events are delivered only between a claim that was confirmed ([`Change::Taken`]) and the end of the last attempt, or
//!   the loss ([`Change::Lost`]).
//! - It is released only when no attempt is under way, and claimed only when it was seen free.
//! - What is found to be this node's without its knowledge is released, not used: the claim's answer was lost, or the
//!   store lost what came after. In both cases somebody else may hold it.

use super::statement::Epoch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// Nothing.
    Away,
    /// To be claimed, as nobody's with this epoch.
    Wanted { seen: Epoch },
    /// That is on its way.
    Claiming,
    /// Its events are delivered here.
    Held { epoch: Epoch },
    /// Attempts under way go on, and there will be no others.
    Ending { epoch: Epoch },
    /// Nothing is under way: to be released.
    Idle { epoch: Epoch },
    /// That is on its way.
    Releasing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    Seen(Sight),
    /// The statement that the state asks for is on its way.
    Sent,
    Claimed {
        epoch: Epoch,
    },
    /// Another was faster, or this node is dead.
    NotClaimed,
    Released,
    /// Whether the statement was done is not known.
    Failed,
    /// The last attempt has ended and is settled.
    Quiet,
    /// The node wants no partitions any more.
    Leaving,
    /// The lease is over.
    Over,
}

/// What a partition's row says, and whether this is the node that should have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    Ours { epoch: Epoch, wanted: bool },
    Free { epoch: Epoch, wanted: bool },
    Taken,
}

/// What follows for whoever delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Taken,
    /// No more attempts.
    Ending,
    /// Nothing is under way any more.
    Ended,
    /// Attempts under way are to be broken off.
    Lost,
}

pub fn step(holding: Holding, sign: Sign) -> (Holding, Option<Change>) {
    use Holding::{Away, Claiming, Ending, Held, Idle, Releasing, Wanted};
    use Sign::{Claimed, Failed, Leaving, NotClaimed, Over, Quiet, Released, Seen, Sent};
    match (holding, sign) {
        (Away | Wanted { .. } | Idle { .. }, Seen(sight)) => (unheld(sight), None),
        (Held { epoch }, Seen(Sight::Ours { epoch: found, wanted })) if found == epoch => {
            match wanted {
                true => (holding, None),
                false => (Ending { epoch }, Some(Change::Ending)),
            }
        }
        // It ends even if it is wanted again: the others may know of it already.
        (Ending { epoch }, Seen(Sight::Ours { epoch: found, .. })) if found == epoch => {
            (holding, None)
        }
        (Held { .. } | Ending { .. }, Seen(sight)) => (unheld(sight), Some(Change::Lost)),
        (Wanted { .. }, Sent) => (Claiming, None),
        (Idle { .. }, Sent) => (Releasing, None),
        (Claiming, Claimed { epoch }) => (Held { epoch }, Some(Change::Taken)),
        (Claiming, NotClaimed | Failed) | (Releasing, Released | Failed) => (Away, None),
        (Ending { epoch }, Quiet) => (Idle { epoch }, Some(Change::Ended)),
        (Held { epoch }, Leaving) => (Ending { epoch }, Some(Change::Ending)),
        (Wanted { .. }, Leaving) => (Away, None),
        (Held { .. } | Ending { .. }, Over) => (Away, Some(Change::Lost)),
        (Away | Wanted { .. } | Claiming | Idle { .. } | Releasing, Over) => (Away, None),
        // The answer to the statement under way says more.
        (Claiming | Releasing, Seen(_))
        // What was read is known: they were seen in the order in which they were sent.
        | (Away | Claiming | Held { .. } | Ending { .. } | Releasing, Sent)
        // The term in which it was asked for is over.
        | (
            Away | Wanted { .. } | Held { .. } | Ending { .. } | Idle { .. } | Releasing,
            Claimed { .. } | NotClaimed,
        )
        | (Away | Wanted { .. } | Claiming | Held { .. } | Ending { .. } | Idle { .. }, Released)
        | (Away | Wanted { .. } | Held { .. } | Ending { .. } | Idle { .. }, Failed)
        // The attempt ended by itself before it heard that it is to be the last.
        | (Away | Wanted { .. } | Claiming | Held { .. } | Idle { .. } | Releasing, Quiet)
        | (Away | Claiming | Ending { .. } | Idle { .. } | Releasing, Leaving) => (holding, None),
    }
}

/// Of a partition that is not held here.
fn unheld(sight: Sight) -> Holding {
    match sight {
        Sight::Ours { epoch, .. } => Holding::Idle { epoch },
        Sight::Free { epoch, wanted: true } => Holding::Wanted { seen: epoch },
        Sight::Free { wanted: false, .. } | Sight::Taken => Holding::Away,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sign_in_every_state_leads_where_the_table_says() {
        use Change::{Ended, Lost, Taken};
        use Holding::{Away, Claiming, Releasing};
        use Sign::{Claimed, Failed, Leaving, NotClaimed, Over, Quiet, Released, Seen, Sent};
        let (old, new) = (Epoch(6), Epoch(7));
        let wanted = |seen| Holding::Wanted { seen };
        let held = |epoch| Holding::Held { epoch };
        let ending = |epoch| Holding::Ending { epoch };
        let idle = |epoch| Holding::Idle { epoch };
        let ours = |epoch, wanted| Seen(Sight::Ours { epoch, wanted });
        let free = |wanted| Seen(Sight::Free { epoch: new, wanted });
        let claimed = Claimed { epoch: new };
        let states = [Away, wanted(old), Claiming, held(old), ending(old), idle(old), Releasing];
        let change = |change| move |to| (to, Some(change));
        let (lost, ends) = (change(Lost), change(Change::Ending));
        let to = |holding: Holding| (holding, None);
        let [a, w, c, h, e, i, r] = states.map(to);
        let (w7, i7) = (to(wanted(new)), to(idle(new)));
        let got = (held(new), Some(Taken));
        let last = (ending(old), Some(Change::Ending));
        assert_eq!(last, ends(ending(old)));
        let done = (idle(old), Some(Ended));
        let gone = lost(Away);
        let (gone_w7, gone_i7) = (lost(wanted(new)), lost(idle(new)));
        #[rustfmt::skip]
        let table = [
            //                 away wanted claiming held ending idle releasing
            (ours(old, true),  [i,  i,  c,   h,       e,       i,    r]),
            (ours(old, false), [i,  i,  c,   last,    e,       i,    r]),
            (ours(new, true),  [i7, i7, c,   gone_i7, gone_i7, i7,   r]),
            (ours(new, false), [i7, i7, c,   gone_i7, gone_i7, i7,   r]),
            (free(true),       [w7, w7, c,   gone_w7, gone_w7, w7,   r]),
            (free(false),      [a,  a,  c,   gone,    gone,    a,    r]),
            (Seen(Sight::Taken), [a, a, c,   gone,    gone,    a,    r]),
            (Sent,             [a,  c,  c,   h,       e,       r,    r]),
            (claimed,          [a,  w,  got, h,       e,       i,    r]),
            (NotClaimed,       [a,  w,  a,   h,       e,       i,    r]),
            (Released,         [a,  w,  c,   h,       e,       i,    a]),
            (Failed,           [a,  w,  a,   h,       e,       i,    a]),
            (Quiet,            [a,  w,  c,   h,       done,    i,    r]),
            (Leaving,          [a,  a,  c,   last,    e,       i,    r]),
            (Over,             [a,  a,  a,   gone,    gone,    a,    a]),
        ];
        for (sign, row) in table {
            for (state, expected) in states.into_iter().zip(row) {
                assert_eq!(step(state, sign), expected, "{state:?} {sign:?}");
            }
        }
    }
}

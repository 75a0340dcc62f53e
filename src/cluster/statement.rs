//! Statements: what a node asks of the tables that all share, and what it learns from them.
//!
//! Invariants that the store keeps, of every statement:
//! - It is done as a whole or not at all, in a round trip of its own. It may still be done after whoever sent it gave up
//!   on its answer, so each says on what it depends: an epoch, a beat, that the node is not dead.
//! - An epoch grows with every change of the owner, so one that was seen before names one owner at most.
//! - A node that is dead stays dead; its number is never given again.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::event::partition::Partition;
use crate::receiver::ReceiverName;

/// One incarnation of a node: a new one comes with every start, and after every lapse. Later ones have greater numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// How often a partition has changed its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// What a node is to have done. One is under way at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Makes a new incarnation known; the `former` one of the same process, whose lease is over, is dead with that.
    Join { name: Arc<str>, receivers: BTreeSet<ReceiverName>, former: Option<NodeId> },
    /// Says that the node lives, unless it is dead, and how it is. Reads all rows.
    Beat { me: NodeId, leaving: bool, cut: bool },
    /// Another is dead, unless it has beaten since.
    Bury { node: NodeId, beat: u64 },
    /// The node, unless it is dead, is the owner of those whose epoch is still this one; their epochs grow.
    Claim { me: NodeId, partitions: Vec<(Partition, Epoch)> },
    /// Nobody owns those that the node owned with this epoch; their epochs grow. The others are told.
    Release { me: NodeId, partitions: Vec<(Partition, Epoch)> },
    /// Nobody owns what the node owned, and its row goes. The others are told.
    Leave { me: NodeId },
}

/// What the rows say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub nodes: Vec<NodeRow>,
    pub partitions: [PartitionRow; Partition::COUNT],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    pub id: NodeId,
    /// `NODE_NAME`.
    pub name: Arc<str>,
    /// Grows while it lives.
    pub beat: u64,
    pub dead: bool,
    /// It takes no more partitions.
    pub leaving: bool,
    /// It does not reach the receiver `main`.
    pub cut: bool,
    /// Those that its settings name.
    pub receivers: BTreeSet<ReceiverName>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionRow {
    pub owner: Option<NodeId>,
    pub epoch: Epoch,
    /// Those for which events of it may wait.
    pub receivers: BTreeSet<ReceiverName>,
}

//! The cluster: which of several callhooks that share a journal delivers a call's events?
//!
//! Owns which node owns which partition, and when a node's lease is renewed. Leaves what the events are to
//! [`crate::journal`], and when one is due to [`crate::queue`].
//!
//! No node talks to another: each writes into the tables that they share, and reads there what the others wrote.
//! What one does is in [`ownership`], pure; it asks for one [`statement`] at a time, and says to the queue of which
//! partitions events may be delivered.

mod cut;
mod holding;
pub mod ownership;
mod peers;
pub mod statement;

#[cfg(test)]
mod simulation;

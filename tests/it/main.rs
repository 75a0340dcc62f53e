//! The tests: callhook as a process among a receiver, an Asterisk and an STS server of theirs, and what of
//! the library is told best without a process. One binary, a module a theme, so that all of it is linked
//! once. Whoever needs the machine or a process to themselves is beside it in `tests/`, and says why.

#![allow(clippy::unwrap_used, reason = "a test that panics says where")]

#[path = "../support/mod.rs"]
mod support;

// Events, from the front to the receiver.
mod backlog;
mod failure_log;
mod front;
mod hostile_clients;
mod hostile_receivers;
mod https;
mod outage;
mod routing;
mod webhook;

// Bridged calls.
mod call;
mod call_audio;
mod call_ends;
mod hostile_calls;
mod wss;

// What survives.
mod dead;
mod journal;

// What operators read and set.
mod commands;
mod inspector;
mod metrics;
mod openapi;
mod secrets;
mod settings;

// The workbench.
mod check;
mod receive;
mod scenarios;
mod simulate;

// The library without a process.
mod bridged_events;
mod corpus;
mod failing_disk;
mod journal_model;
mod simulation;

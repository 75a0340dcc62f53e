//! Sound through the bridge, in both directions, compared with what went in. `call_audio/caller.rs` has the
//! way from Asterisk to the STS server, `call_audio/agent.rs` the way back, `call_audio/recorded.rs` the
//! recordings of a real Asterisk, `call_audio/speech.rs` speech in every codec.

mod agent;
mod caller;
mod recorded;
mod speech;

//! Calls through a bridge: the barest one, the server it leads to, and the callers who listen for what
//! comes back.

pub mod bare;
pub mod callers;
mod figures;
mod frames;
pub mod sts;
mod voice;

use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Room for a few messages of 20 ms, in bytes; Tungstenite's own 128 KiB a connection would be what a
/// call costs, and it clears the whole buffer before each read.
const READ_BUFFER: usize = 2 * 1024;

/// Each message is written at once, and little memory is held for a connection.
fn small_buffers() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(READ_BUFFER).write_buffer_size(0)
}

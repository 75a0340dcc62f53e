//! Playout: the agent's audio, from whatever sizes and speed it comes in to one frame each 20 ms.
//!
//! Owns the audio that waits to be played ([`Playout`], which sees no clock), the half of the connection
//! that Asterisk reads ([`CallerLine`]), and the one clock of all calls ([`Clock`]). Asterisk paces
//! nothing: what is sent faster is played faster, or dropped.
//!
//! Invariants:
//! - The clock's deadlines are absolute, so that it does not drift. Frames that are late, because a tick
//!   was or because a server that sends in real time was, are played as soon as they are there, up to
//!   [`MOST_OWED`]: otherwise each delay would last to the end of the call. A longer gap was a pause.
//! - A frame is written whole; where the connection takes only a part, the rest goes before anything
//!   else. A caller that does not read loses frames; nobody waits for it.
//! - While nobody has anything to play, the clock stands still. The frame of silence that is sent each second
//!   then ([`CallerLine::send_silence`]) is not the clock's: all lines at once would hold up those that play.
//!
//! Limit: [`MOST_QUEUED`] bytes a call.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::metrics::PlayoutMetrics;
use crate::audiosocket::{self, FRAME_AUDIO, FRAME_TIME, HANG_UP};

/// The most that is queued to play, in bytes: 30 s, as long as anybody listens to one utterance.
pub const MOST_QUEUED: usize = 30 * 50 * FRAME_AUDIO;

/// The most frames that a call is sent at once, and that it is owed: what phones' jitter buffers usually
/// take.
const MOST_AT_ONCE: u32 = 3;
const MOST_OWED: u32 = 5;

/// What one call has to play.
#[derive(Debug, Default)]
pub struct Playout {
    queue: VecDeque<u8>,
    /// At the last tick, less than a frame was left.
    waited: bool,
    /// The last tick played something, which is heard until the next.
    playing: bool,
    /// Ticks in a row that had nothing to play.
    dry: u32,
    /// Frames that should have been played by now.
    owed: u32,
}

impl Playout {
    /// Queues audio behind what is there; returns how many bytes found no room and are dropped.
    pub fn add(&mut self, pcm: &[u8]) -> usize {
        let taken = pcm.len().min(MOST_QUEUED - self.queue.len());
        self.queue.extend(&pcm[..taken]);
        self.waited = false;
        pcm.len() - taken
    }

    /// Drops what is queued.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether ticks can stop until there is audio again.
    pub fn is_at_rest(&self) -> bool {
        self.queue.is_empty() && self.dry > MOST_OWED
    }

    /// Adds frames whose ticks were missed.
    pub fn owe(&mut self, frames: u32) {
        self.owed = (self.owed + frames).min(MOST_OWED);
    }

    /// A frame that is owed, if there is one more for the next tick.
    pub fn make_good(&mut self) -> Option<[u8; FRAME_AUDIO]> {
        if self.owed == 0 || self.queue.len() < 2 * FRAME_AUDIO {
            return None;
        }
        self.owed -= 1;
        Some(self.take_frame())
    }

    /// Whether the caller hears something, or is about to.
    pub fn is_busy(&self) -> bool {
        self.playing || !self.queue.is_empty()
    }

    /// The frame to play now, if any. The end of an utterance that fills no frame is filled up with
    /// silence, once a tick has shown that nothing follows.
    pub fn tick(&mut self) -> Option<[u8; FRAME_AUDIO]> {
        let whole = self.queue.len() >= FRAME_AUDIO;
        let rest = !self.queue.is_empty();
        self.playing = whole || (rest && self.waited);
        self.waited = rest && !whole && !self.waited;
        if !self.playing {
            self.dry = self.dry.saturating_add(1);
            return None;
        }
        let dry = std::mem::take(&mut self.dry);
        if dry <= MOST_OWED {
            self.owe(dry);
        } else {
            // It was a pause: what is owed belongs to what was said before it.
            self.owed = 0;
        }
        Some(self.take_frame())
    }

    fn take_frame(&mut self) -> [u8; FRAME_AUDIO] {
        let mut frame = [0; FRAME_AUDIO];
        let length = FRAME_AUDIO.min(self.queue.len());
        let (front, back) = self.queue.as_slices();
        let (one, other) = frame[..length].split_at_mut(front.len().min(length));
        one.copy_from_slice(&front[..one.len()]);
        other.copy_from_slice(&back[..other.len()]);
        self.queue.drain(..length);
        if self.queue.is_empty() && self.queue.capacity() > 16 * FRAME_AUDIO {
            // After a whole utterance its room is not needed.
            self.queue = VecDeque::new();
        }
        frame
    }
}

/// The half of one call's connection that Asterisk reads, and what is to be written there.
#[derive(Debug)]
pub struct CallerLine {
    stream: OwnedWriteHalf,
    state: Mutex<LineState>,
    /// All that was queued is played.
    played: Notify,
}

#[derive(Debug, Default)]
struct LineState {
    playout: Playout,
    /// The rest of the last frame, which the connection has not taken yet.
    unsent: VecDeque<u8>,
    /// Whether the clock has this line on its list.
    listed: bool,
    /// Frames dropped because the caller does not read.
    unread: u64,
}

impl CallerLine {
    pub fn new(stream: OwnedWriteHalf) -> Arc<Self> {
        Arc::new(Self { stream, state: Mutex::default(), played: Notify::new() })
    }

    /// Drops what is queued to play.
    pub fn silence(&self) {
        self.lock().playout.clear();
    }

    /// Whether the caller hears something, or is about to.
    pub fn is_busy(&self) -> bool {
        self.lock().playout.is_busy()
    }

    /// Waits until the caller has heard all that is queued. Cancel safe.
    pub async fn played(&self) {
        while self.is_busy() {
            self.played.notified().await;
        }
    }

    /// Sends a frame of silence, unless something is playing. A line without any sound is cut by phones and
    /// trunks that wait for RTP.
    pub fn send_silence(&self) {
        let mut state = self.lock();
        if !state.playout.is_busy() {
            // A caller who does not read misses nothing.
            self.write(&mut state, &audiosocket::audio_frame(&[0; FRAME_AUDIO]));
        }
    }

    /// Frames dropped because the caller does not read.
    pub fn unread(&self) -> u64 {
        self.lock().unread
    }

    /// Drops what is queued to play, and tells Asterisk to hang up, unless half a frame was sent: nothing
    /// but its rest could follow.
    pub fn hang_up(&self) {
        let mut state = self.lock();
        state.playout.clear();
        if state.unsent.is_empty() {
            // Whoever does not listen need not be told.
            self.stream.try_write(&HANG_UP).ok();
        }
    }

    /// Plays what is due after so many ticks; `false` once there is nothing more to play.
    fn tick(&self, frames: u32, metrics: &PlayoutMetrics) -> bool {
        let mut state = self.lock();
        let was_busy = state.playout.is_busy();
        state.playout.owe(frames - 1);
        let (mut played, mut unread) = (0, 0);
        for nth in 0..MOST_AT_ONCE {
            let frame = if nth == 0 { state.playout.tick() } else { state.playout.make_good() };
            let Some(frame) = frame else {
                break;
            };
            match self.write(&mut state, &audiosocket::audio_frame(&frame)) {
                true => played += 1,
                false => unread += 1,
            }
        }
        metrics.played.inc_by(played);
        metrics.unread.inc_by(unread);
        state.unread += unread;
        state.listed = !state.playout.is_at_rest();
        if was_busy && !state.playout.is_busy() {
            self.played.notify_one();
        }
        state.listed
    }

    /// Writes a frame; `false` if it is dropped, since the connection is full. One that is gone looks the
    /// same here, and is noticed by its reader.
    fn write(&self, state: &mut LineState, frame: &[u8]) -> bool {
        while let (rest @ [_, ..], _) = state.unsent.as_slices() {
            let Ok(sent) = self.stream.try_write(rest) else {
                return false;
            };
            state.unsent.drain(..sent);
        }
        let Ok(sent) = self.stream.try_write(frame) else {
            return false;
        };
        state.unsent.extend(&frame[sent..]);
        true
    }

    fn lock(&self) -> MutexGuard<'_, LineState> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }
}

/// The clock of all calls.
#[derive(Debug, Default)]
pub struct Clock {
    /// Those that have something to play.
    lines: Mutex<Vec<Arc<CallerLine>>>,
    started: Notify,
    metrics: PlayoutMetrics,
}

impl Clock {
    pub fn new(metrics: PlayoutMetrics) -> Self {
        Self { metrics, ..Self::default() }
    }

    /// Queues audio to be played on a line; returns how many bytes found no room and are dropped.
    pub fn play(&self, line: &Arc<CallerLine>, pcm: &[u8]) -> usize {
        let (dropped, was_listed) = {
            let mut state = line.lock();
            let dropped = state.playout.add(pcm);
            (dropped, std::mem::replace(&mut state.listed, true))
        };
        if !was_listed {
            let mut lines = self.lock();
            lines.push(Arc::clone(line));
            if lines.len() == 1 {
                self.started.notify_one();
            }
        }
        dropped
    }

    /// Ticks until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            loop {
                self.started.notified().await;
                self.tick_while_playing().await;
            }
        })
        .await;
    }

    async fn tick_while_playing(&self) {
        let mut next = Instant::now();
        loop {
            sleep_until(next).await;
            let due = due(next, Instant::now());
            next += FRAME_TIME * due;
            self.metrics.ticks.inc();
            self.metrics.late.inc_by(u64::from(due > 1));
            if !self.tick(due) {
                return;
            }
        }
    }

    /// `false` once nobody has anything to play.
    fn tick(&self, frames: u32) -> bool {
        let mut ticking = std::mem::take(&mut *self.lock());
        ticking.retain(|line| line.tick(frames, &self.metrics));
        let mut lines = self.lock();
        // Those that began meanwhile.
        ticking.append(&mut lines);
        *lines = ticking;
        !lines.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<CallerLine>>> {
        self.lines.lock().expect("nothing panics while it holds this lock")
    }
}

/// How many frames are due when the tick for `planned` comes at `now`: one, and one more for each 20 ms
/// that it is late.
fn due(planned: Instant, now: Instant) -> u32 {
    let late = now.saturating_duration_since(planned).as_millis() / FRAME_TIME.as_millis();
    u32::try_from(late).map_or(u32::MAX, |late| late.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    const LIMIT: Duration = Duration::from_secs(10);

    fn heard(playout: &mut Playout) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| playout.tick().map(|frame| frame.to_vec())).collect()
    }

    #[test]
    fn audio_of_any_size_is_cut_into_frames_in_order() {
        let audio: Vec<u8> = (0..640 * 5).map(|at| (at % 251) as u8).collect();
        for size in [1, 3, 100, 319, 320, 321, 3200] {
            let mut playout = Playout::default();
            for piece in audio.chunks(size) {
                assert_eq!(playout.add(piece), 0);
            }
            assert_eq!(heard(&mut playout).concat(), audio, "in pieces of {size}");
        }
    }

    #[test]
    fn the_end_of_an_utterance_waits_one_tick_for_more_and_is_then_filled_up() {
        let mut playout = Playout::default();
        playout.add(&[7; 100]);
        assert_eq!(playout.tick(), None);
        playout.add(&[7; 220]);
        assert_eq!(playout.tick(), Some([7; FRAME_AUDIO]));
        playout.add(&[7; 100]);
        assert_eq!(playout.tick(), None);
        let last = playout.tick().unwrap();
        assert_eq!((&last[..100], &last[100..]), (&[7; 100][..], &[0; 220][..]));
        assert_eq!(playout.tick(), None);
    }

    #[test]
    fn at_most_30_seconds_are_queued_and_the_oldest_are_kept() {
        let mut playout = Playout::default();
        assert_eq!(playout.add(&vec![1; MOST_QUEUED - 320]), 0);
        assert_eq!(playout.add(&[2; 320]), 0);
        assert_eq!(playout.add(&[3; 320]), 320);
        assert_eq!(playout.tick(), Some([1; FRAME_AUDIO]));
        assert_eq!(playout.add(&[4; 400]), 80);
        let heard = heard(&mut playout);
        assert_eq!(heard.len(), 1500);
        assert_eq!(heard[1498..], [[2; FRAME_AUDIO].to_vec(), [4; FRAME_AUDIO].to_vec()]);
    }

    #[test]
    fn a_caller_is_busy_hearing_until_the_tick_after_the_last_frame() {
        let mut playout = Playout::default();
        assert!(!playout.is_busy());
        playout.add(&[1; 320]);
        assert!(playout.is_busy());
        playout.tick();
        assert!(playout.is_busy());
        playout.tick();
        assert!(!playout.is_busy());
        playout.add(&[1; 640]);
        playout.clear();
        assert!(!playout.is_busy());
        assert_eq!(playout.tick(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_tick_owes_a_frame_for_each_20_ms() {
        let planned = Instant::now();
        for (late, frames) in [(0, 1), (19, 1), (20, 2), (59, 3), (1000, 51)] {
            assert_eq!(due(planned, planned + Duration::from_millis(late)), frames, "{late} ms");
        }
        assert_eq!(due(planned + FRAME_TIME, planned), 1);
    }

    /// A server that sends in real time, a frame a tick: how many frames were played by each tick.
    fn played_by(arrivals: &[usize], late: &[u32]) -> Vec<usize> {
        let mut playout = Playout::default();
        let mut played = Vec::new();
        for (frames, late) in arrivals.iter().zip(late) {
            playout.add(&vec![1; frames * FRAME_AUDIO]);
            playout.owe(*late);
            let mut count = usize::from(playout.tick().is_some());
            while playout.make_good().is_some() {
                count += 1;
            }
            played.push(count);
        }
        played
    }

    #[test]
    fn a_server_that_was_late_does_not_delay_the_rest_of_the_call() {
        let on_time = [0; 9];
        assert_eq!(played_by(&[1, 1, 0, 0, 0, 4, 1, 1, 1], &on_time), [1, 1, 0, 0, 0, 3, 1, 1, 1]);
        assert_eq!(played_by(&[3, 0, 0, 0, 1, 1, 1, 1, 1], &on_time), [1, 1, 1, 0, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn a_late_tick_is_made_good_and_a_pause_is_not() {
        assert_eq!(played_by(&[9, 0, 0, 0], &[0, 2, 0, 0]), [1, 3, 1, 1]);
        assert_eq!(played_by(&[1, 0, 0, 0, 0, 0, 0, 5, 0], &[0; 9]), [1, 0, 0, 0, 0, 0, 0, 1, 1]);
        let long = played_by(&[30, 0, 0, 0], &[0, 1000, 0, 0]);
        assert_eq!(long, [1, 6, 1, 1], "more than a jitter buffer takes was a pause, too");
    }

    async fn line() -> (Arc<CallerLine>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (far, near) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (reader, writer) = near.unwrap().0.into_split();
        std::mem::forget(reader);
        (CallerLine::new(writer), far.unwrap())
    }

    #[tokio::test]
    async fn the_clock_plays_a_frame_each_20_ms_and_stands_still_after_the_last() {
        let (line, mut far) = line().await;
        let clock = Arc::new(Clock::default());
        let begun = Instant::now();
        assert_eq!(clock.play(&line, &[5; 3 * FRAME_AUDIO]), 0);
        clock.started.notified().await;
        clock.tick_while_playing().await;
        let took = begun.elapsed();
        // Frames at 0, 20 and 40 ms, and six ticks that wait for more.
        assert!((160..900).contains(&took.as_millis()), "{took:?}");
        let mut wire = vec![0; 3 * (3 + FRAME_AUDIO)];
        far.read_exact(&mut wire).await.unwrap();
        for frame in wire.chunks(3 + FRAME_AUDIO) {
            assert_eq!((&frame[..3], &frame[3..]), (&[0x10, 1, 64][..], &[5; FRAME_AUDIO][..]));
        }
        assert!(!line.is_busy() && clock.lock().is_empty(), "nobody is played to");
        clock.play(&line, &[5; FRAME_AUDIO]);
        clock.started.notified().await;
        clock.tick_while_playing().await;
        far.read_exact(&mut wire[..3 + FRAME_AUDIO]).await.unwrap();
    }

    #[tokio::test]
    async fn a_line_is_played_to_its_end_and_then_silent() {
        let (line, mut far) = line().await;
        let clock = Arc::new(Clock::default());
        timeout(LIMIT, line.played()).await.expect("there is nothing to play");
        clock.play(&line, &[5; 2 * FRAME_AUDIO]);
        line.send_silence();
        let ticking = async {
            clock.started.notified().await;
            clock.tick_while_playing().await;
        };
        let ((), ended) = tokio::join!(ticking, timeout(LIMIT, line.played()));
        ended.expect("it is played to its end");
        line.send_silence();
        let mut wire = vec![0; 3 * (3 + FRAME_AUDIO)];
        timeout(LIMIT, far.read_exact(&mut wire)).await.unwrap().unwrap();
        let heard: Vec<u8> = wire.chunks(3 + FRAME_AUDIO).map(|frame| frame[3]).collect();
        assert_eq!(heard, [5, 5, 0], "silence only where nothing plays");
    }

    #[tokio::test]
    async fn a_tick_that_owes_more_than_may_be_sent_at_once_loses_nothing() {
        let (line, mut far) = line().await;
        let audio: Vec<u8> = (1..=10).flat_map(|frame| [frame; FRAME_AUDIO]).collect();
        line.lock().playout.add(&audio);
        line.lock().playout.tick();
        for _ in 0..9 {
            line.tick(MOST_OWED + 1, &PlayoutMetrics::default());
        }
        let mut wire = vec![0; 9 * (3 + FRAME_AUDIO)];
        timeout(LIMIT, far.read_exact(&mut wire)).await.unwrap().unwrap();
        let heard: Vec<u8> = wire.chunks(3 + FRAME_AUDIO).map(|frame| frame[3]).collect();
        assert_eq!(heard, [2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[tokio::test]
    async fn a_caller_that_does_not_read_loses_frames_and_gets_no_half_ones() {
        let (line, mut far) = line().await;
        let audio: Vec<u8> = (0..MOST_QUEUED).map(|at| (at / FRAME_AUDIO % 251) as u8).collect();
        let metrics = PlayoutMetrics::default();
        while line.unread() == 0 {
            line.lock().playout.add(&audio);
            while line.tick(1, &metrics) && line.unread() == 0 {}
        }
        let mut wire: Vec<u8> = Vec::new();
        let reading = async {
            let mut part = vec![0; 65_536];
            loop {
                let count = far.read(&mut part).await.unwrap();
                if count == 0 {
                    return;
                }
                wire.extend(&part[..count]);
            }
        };
        let ending = async {
            while !line.lock().unsent.is_empty() {
                line.stream.writable().await.unwrap();
                let frame = audiosocket::audio_frame(&[9; FRAME_AUDIO]);
                let mut state = line.lock();
                line.write(&mut state, &frame);
            }
            line.lock().playout.add(&audio);
            line.hang_up();
            assert!(!line.is_busy(), "nothing is played after it");
            drop(line);
        };
        tokio::join!(reading, ending);
        assert_eq!(wire.split_off(wire.len() - 3), HANG_UP);
        assert!(wire.len().is_multiple_of(3 + FRAME_AUDIO));
        for frame in wire.chunks(3 + FRAME_AUDIO) {
            assert_eq!(frame[..3], [0x10, 1, 64]);
            assert!(frame[3..].iter().all(|byte| *byte == frame[3]), "a frame is whole");
        }
    }
}

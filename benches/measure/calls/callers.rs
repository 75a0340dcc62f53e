//! Many calls at once, as Asterisk would bring them, and what they hear.
//!
//! Each call sends its UUID and speaks for 300 ms; then it is silent for half a second, as somebody is
//! who has said hello, so that a bridge that plays one frame each 20 ms has caught up with whatever it
//! held back at the start; then it speaks on. What is measured begins when all calls are there and
//! [`WARM_UP`] has gone by.
//!
//! One thread sends, on absolute deadlines, a millisecond's share of the calls each millisecond; the
//! other one reads. What the machine makes the sender late is in the figures, too: where it is more
//! than a few milliseconds, it is the machine that is measured.

use std::net::SocketAddr;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::figures::{Call, Figures, Heard, Micros, Said};
use super::frames::{AUDIO, FRAMES_A_SECOND, Frames, UUID};
use super::voice::{FRAME, Voice};
use crate::processes::Processes;

/// The time over which the calls come in.
const ARRIVAL: Duration = Duration::from_secs(2);
/// Between the last call's arrival and the first frame that counts.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long a call may take to be connected.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last echoes are waited for.
const LAST_ECHOES: Duration = Duration::from_secs(1);

/// The sender's clock.
const TICK: Duration = Duration::from_millis(1);
/// Ticks between two frames of a call.
const TICKS_A_FRAME: usize = 20;
/// 500 ms of silence after the first 300, in frames.
const SILENCE: Range<u32> = 15..40;

/// What the sending thread is told.
enum Order {
    Join(Box<Speaker>),
    MeasureUntil(Instant),
}

/// The half of a call that sends.
struct Speaker {
    number: u32,
    stream: OwnedWriteHalf,
    voice: Voice,
    /// How many times it was its turn.
    turns: u32,
    said: Vec<Said>,
    cut_off: bool,
}

/// The half that reads.
struct Listener {
    number: u32,
    stream: Frames<OwnedReadHalf>,
    voice: Voice,
    heard: Vec<Heard>,
    cut_off: bool,
}

/// What all calls of a run have in common.
struct Run {
    address: SocketAddr,
    begun: Instant,
    /// Frames that a call has at most.
    frames: usize,
    /// Frames heard by all of them.
    heard: AtomicUsize,
    hung_up: CancellationToken,
}

/// Makes the calls and prints the figures.
pub fn call(address: SocketAddr, count: u32, seconds: u32, pids: &[u32]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let processes = Processes::new(pids);
    println!("{}", runtime.block_on(measure(address, count, seconds, &processes))?);
    Ok(())
}

async fn measure(
    address: SocketAddr,
    count: u32,
    seconds: u32,
    processes: &Processes,
) -> anyhow::Result<String> {
    let idle_kib = processes.resident_kib()?;
    let length = Duration::from_secs(seconds.into());
    let planned = ARRIVAL + PATIENCE + WARM_UP + length;
    let run = Arc::new(Run {
        address,
        begun: Instant::now(),
        frames: FRAMES_A_SECOND * usize::try_from(planned.as_secs())?,
        heard: AtomicUsize::new(0),
        hung_up: CancellationToken::new(),
    });
    let (orders, ordered) = sync_channel(count as usize + 1);
    let begun = run.begun;
    let speaking = tokio::task::spawn_blocking(move || speak(&ordered, begun));
    let listening = arrive(&run, count, &orders).await?;

    let from = Instant::now() + WARM_UP;
    let until = from + length;
    orders.send(Order::MeasureUntil(until)).context("the sender is gone")?;
    tokio::time::sleep_until(from.into()).await;
    let before = processes.taken()?;
    tokio::time::sleep_until(until.into()).await;
    let cores = processes.taken()?.since(&before);
    let busy_kib = processes.resident_kib()?;

    let speakers = speaking.await?;
    wait_for_echoes(&run, speakers.iter().map(|speaker| speaker.said.len()).sum()).await;
    run.hung_up.cancel();
    let calls = gather(speakers, listening).await?;
    let measured = micros(from - begun)..micros(until - begun);
    Ok(Figures::of(&calls, &measured).into_json(&cores, idle_kib, busy_kib))
}

/// Lets the calls come in, evenly, and sets each to listen and to speak.
async fn arrive(
    run: &Arc<Run>,
    count: u32,
    orders: &SyncSender<Order>,
) -> anyhow::Result<JoinSet<Listener>> {
    let mut listening = JoinSet::new();
    for number in 0..count {
        tokio::time::sleep_until((run.begun + ARRIVAL * number / count).into()).await;
        let (speaker, listener) = tokio::time::timeout(PATIENCE, connect(run, number)).await??;
        listening.spawn(listener.listen(Arc::clone(run)));
        orders.send(Order::Join(Box::new(speaker))).context("the sender is gone")?;
    }
    Ok(listening)
}

async fn connect(run: &Run, number: u32) -> anyhow::Result<(Speaker, Listener)> {
    let mut stream = TcpStream::connect(run.address).await?;
    stream.set_nodelay(true)?;
    let mut first = vec![UUID, 0, 16];
    first.extend_from_slice(Uuid::new_v4().as_bytes());
    stream.write_all(&first).await?;
    let (reading, writing) = stream.into_split();
    let speaker = Speaker {
        number,
        stream: writing,
        voice: Voice::of(number),
        turns: 0,
        said: Vec::with_capacity(run.frames),
        cut_off: false,
    };
    let listener = Listener {
        number,
        stream: Frames::new(reading),
        voice: Voice::of(number),
        heard: Vec::with_capacity(run.frames),
        cut_off: false,
    };
    Ok((speaker, listener))
}

/// Sends the frames of all calls until the measured time is over.
fn speak(orders: &Receiver<Order>, begun: Instant) -> Vec<Speaker> {
    let mut turns: [Vec<Speaker>; TICKS_A_FRAME] = Default::default();
    let mut until = None;
    for (tick, turn) in (0_u32..).zip((0..TICKS_A_FRAME).cycle()) {
        let due = begun + TICK * tick;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        loop {
            match orders.try_recv() {
                Ok(Order::Join(speaker)) => {
                    turns[speaker.number as usize % TICKS_A_FRAME].push(*speaker);
                }
                Ok(Order::MeasureUntil(end)) => until = Some(end),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) if until.is_some() => break,
                // The calls did not all come to be, and nobody waits for those that did.
                Err(TryRecvError::Disconnected) => return Vec::new(),
            }
        }
        if until.is_some_and(|until| due >= until) {
            break;
        }
        for speaker in &mut turns[turn] {
            speaker.speak(begun, due);
        }
    }
    turns.into_iter().flatten().collect()
}

impl Speaker {
    fn speak(&mut self, begun: Instant, due: Instant) {
        self.turns += 1;
        if self.cut_off || SILENCE.contains(&self.turns) {
            return;
        }
        let Ok(number) = u32::try_from(self.said.len()) else { return };
        let frame = self.voice.frame(number);
        let at = Instant::now();
        // A peer that has let some thousand frames lie unread has left the call, too.
        match self.stream.try_write(&frame) {
            Ok(FRAME) => self.said.push(Said { due: micros(due - begun), at: micros(at - begun) }),
            Ok(_) | Err(_) => self.cut_off = true,
        }
    }
}

impl Listener {
    /// Notes what comes until the callers hang up.
    async fn listen(mut self, run: Arc<Run>) -> Self {
        let mut hung_up = pin!(run.hung_up.cancelled());
        loop {
            let next = tokio::select! {
                biased;
                next = self.stream.next() => next,
                () = &mut hung_up => return self,
            };
            let at = micros(run.begun.elapsed());
            let Ok(Some((AUDIO, payload))) = next else {
                self.cut_off = true;
                return self;
            };
            // The bridge's own, while there is nothing to play.
            if payload.iter().all(|byte| *byte == 0) {
                continue;
            }
            self.heard.push(Heard { at, number: self.voice.number(&payload) });
            run.heard.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Waits until as many frames have been heard, or [`LAST_ECHOES`].
async fn wait_for_echoes(run: &Run, said: usize) {
    let end = Instant::now() + LAST_ECHOES;
    while run.heard.load(Ordering::Relaxed) < said && Instant::now() < end {
        tokio::time::sleep(TICK).await;
    }
}

/// Puts the halves of each call together.
async fn gather(
    speakers: Vec<Speaker>,
    mut listening: JoinSet<Listener>,
) -> anyhow::Result<Vec<Call>> {
    let mut calls: Vec<Call> = Vec::new();
    calls.resize_with(speakers.len(), Call::default);
    // A speaker that is dropped hangs up, so first come those who would hear the answer to that.
    while let Some(listener) = listening.join_next().await {
        let Listener { number, heard, cut_off, .. } = listener?;
        calls[number as usize] = Call { heard, cut_off, ..Call::default() };
    }
    for speaker in speakers {
        let call = &mut calls[speaker.number as usize];
        call.said = speaker.said;
        call.cut_off |= speaker.cut_off;
    }
    Ok(calls)
}

fn micros(time: Duration) -> Micros {
    Micros::try_from(time.as_micros()).expect("a run lasts less than an hour")
}

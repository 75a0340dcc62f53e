//! What processes take of the machine, from Linux's `/proc`.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// `/proc` counts processor time in hundredths of a second, on every architecture (USER_HZ).
const TICK: Duration = Duration::from_millis(10);

/// The processes of a run: the one that is measured, those beside it, and this one.
pub struct Processes {
    measured: Option<u32>,
    beside: Vec<u32>,
}

/// Processor time taken so far, in ticks.
pub struct Taken {
    at: Instant,
    measured: u64,
    beside: u64,
    own: u64,
    machine: u64,
}

/// Processors taken on average between two moments; 1.0 is one processor all of the time.
pub struct Cores {
    /// By the process that is measured.
    pub measured: f64,
    /// By the others of the run.
    pub beside: f64,
    /// By this one.
    pub own: f64,
    /// By whatever else runs on the machine, and what its host took from it.
    pub foreign: f64,
}

impl Processes {
    /// The first is the one to measure.
    pub fn new(pids: &[u32]) -> Self {
        let (measured, beside) =
            pids.split_first().map_or((None, &[][..]), |(first, rest)| (Some(*first), rest));
        Self { measured, beside: beside.to_vec() }
    }

    /// The resident memory of the one that is measured, in KiB; 0 where none is.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        self.measured.map_or(Ok(0), resident_kib)
    }

    /// Reads the clocks.
    pub fn taken(&self) -> anyhow::Result<Taken> {
        let beside = self.beside.iter().map(|pid| by_process(&pid.to_string()));
        Ok(Taken {
            at: Instant::now(),
            measured: self.measured.map_or(Ok(0), |pid| by_process(&pid.to_string()))?,
            beside: beside.sum::<Result<u64, _>>()?,
            own: by_process("self")?,
            machine: by_all()?,
        })
    }
}

impl Taken {
    /// What was taken between then and this moment.
    pub fn since(&self, then: &Self) -> Cores {
        let wall = self.at.duration_since(then.at).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "ticks of some seconds")]
        let cores =
            |now: u64, then: u64| now.saturating_sub(then) as f64 * TICK.as_secs_f64() / wall;
        let measured = cores(self.measured, then.measured);
        let beside = cores(self.beside, then.beside);
        let own = cores(self.own, then.own);
        let all = cores(self.machine, then.machine);
        Cores { measured, beside, own, foreign: (all - measured - beside - own).max(0.0) }
    }
}

/// The resident memory of a process, in KiB.
pub fn resident_kib(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    Ok(number.context("no VmRSS in /proc")?.parse()?)
}

/// The processor time that a process has taken so far.
pub fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    Ok(TICK * u32::try_from(by_process(&pid.to_string())?)?)
}

/// `utime` and `stime`: the 12th and 13th field after the name, which may itself hold spaces.
fn by_process(pid: &str) -> anyhow::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} is gone"))?;
    let (_, fields) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let fields = fields.split_ascii_whitespace().skip(11).take(2);
    Ok(fields.map(str::parse::<u64>).sum::<Result<u64, _>>()?)
}

/// All of the first line but the idle and waiting time, and the guests', who are in `user` already.
fn by_all() -> anyhow::Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields: Vec<u64> = stat
        .lines()
        .next()
        .context("an empty /proc/stat")?
        .split_ascii_whitespace()
        .skip(1)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    match *fields {
        [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] => {
            Ok(user + nice + system + irq + softirq + steal)
        }
        _ => anyhow::bail!("a /proc/stat of another make"),
    }
}

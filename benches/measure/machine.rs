//! The machine that it all runs on, as far as the figures depend on it.

use std::fs;
use std::io::Write as _;
use std::num::NonZero;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};

use crate::stage::Stage;
use crate::table::median;

/// How often the disk is asked.
const WRITES: usize = 100;
/// And with how many bytes: a page.
const PAGE: usize = 4096;

/// One paragraph: the machine, its disk, callhook's version, and what else was going on.
pub fn describe(stage: &Stage) -> anyhow::Result<String> {
    let load = fs::read_to_string("/proc/loadavg")?;
    let load: Vec<&str> = load.split_ascii_whitespace().take(3).collect();
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let directory = stage.directory().canonicalize()?;
    Ok(format!(
        "{}; {processors} processors ({}), {:.0} GB of memory, Linux {}; journal on {}, where a \
         synced write takes {:.0} µs; load before: {}",
        version(&stage.callhook)?,
        model()?,
        memory_gb()?,
        kernel.trim(),
        file_system(&directory)?,
        synced_write_micros(&directory)?,
        load.join(" "),
    ))
}

fn version(callhook: &Path) -> anyhow::Result<String> {
    let output = Command::new(callhook).arg("--version").env_clear().output()?;
    ensure!(output.status.success(), "{} has no version: {}", callhook.display(), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn model() -> anyhow::Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let line = processors.lines().find(|line| line.starts_with("model name"));
    let model = line.and_then(|line| line.split_once(':'));
    Ok(model.map_or("of unknown make", |(_, model)| model.trim()).to_owned())
}

fn memory_gb() -> anyhow::Result<f64> {
    let memory = fs::read_to_string("/proc/meminfo")?;
    let line = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next()).context("no MemTotal")?;
    Ok(kib.parse::<f64>()? * 1024.0 / 1e9)
}

/// The kind of the mount that holds the directory: the one with the longest path that it is under, and
/// of those at one place the last, which hides the others (proc_pid_mountinfo(5)).
fn file_system(directory: &Path) -> anyhow::Result<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let kind = mounts
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            Some((before.split(' ').nth(4)?, after.split(' ').next()?))
        })
        .filter(|(place, _)| directory.starts_with(place))
        .max_by_key(|(place, _)| place.len());
    Ok(kind.map_or("an unknown file system", |(_, kind)| kind).to_owned())
}

/// The median time of one write that is on disk when it is done.
fn synced_write_micros(directory: &Path) -> anyhow::Result<f64> {
    let mut file = fs::File::create(directory.join("synced"))?;
    let mut times = Vec::new();
    for _ in 0..WRITES {
        let begun = Instant::now();
        file.write_all(&[0; PAGE])?;
        file.sync_data()?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(&times))
}

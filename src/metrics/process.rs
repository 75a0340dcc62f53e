//! The process, as seen by the operating system.

use std::fs;

/// `None` on systems without `/proc`.
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    resident_of(&status)
}

/// Whether SIGHUP, the first of the signals, is ignored; asked before somebody listens to it.
pub fn is_hang_up_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

/// Reads the line `VmRSS:   12345 kB`, whose unit does not depend on the page size
/// (<https://docs.kernel.org/filesystems/proc.html>).
fn resident_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_kibibytes_and_told_in_bytes() {
        let status = "Name:\tcallhook\nVmHWM:\t   9000 kB\nVmRSS:\t   8192 kB\nThreads:\t4\n";
        assert_eq!(resident_of(status), Some(8 * 1024 * 1024));
        for odd in ["", "VmRSS:\n", "VmRSS: x kB", "VmRSS: 5 MB", "VmRSS: 99999999999999999999 kB"]
        {
            assert_eq!(resident_of(odd), None, "{odd:?}");
        }
    }
}

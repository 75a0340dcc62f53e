//! A disk over redb's backend trait, in memory: it records every write, fills up or is slow when told to, and can be
//! looked at as a crash at any moment would leave it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callhook::journal::{self, Opener};
use redb::StorageBackend;

/// A disk in memory that outlives whoever has it open.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Medium>);

#[derive(Debug, Default)]
struct Medium {
    bytes: Mutex<Vec<u8>>,
    log: Mutex<Vec<Write>>,
    full: AtomicBool,
    /// How many milliseconds a sync takes.
    slow: AtomicU64,
}

#[derive(Clone, Debug)]
enum Write {
    Length(u64),
    Bytes(u64, Vec<u8>),
}

impl Disk {
    /// Opens the store on this disk.
    pub fn opener(&self) -> Opener {
        let disk = self.clone();
        journal::on(move |builder| builder.create_with_backend(disk.clone()))
    }

    /// A disk with these bytes on it.
    pub fn holding(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        *disk.0.bytes.lock().unwrap() = bytes;
        disk
    }

    /// What is on it, as a crash would leave it.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.bytes.lock().unwrap().clone()
    }

    pub fn writes(&self) -> usize {
        self.0.log.lock().unwrap().len()
    }

    /// Whether writes fail from now on.
    pub fn fill_up(&self, full: bool) {
        self.0.full.store(full, Ordering::SeqCst);
    }

    /// Each sync takes so long from now on.
    pub fn slow_down(&self, sync: Duration) {
        let millis = u64::try_from(sync.as_millis()).unwrap();
        self.0.slow.store(millis, Ordering::SeqCst);
    }

    fn check_room(&self) -> io::Result<()> {
        match self.0.full.load(Ordering::SeqCst) {
            true => Err(io::Error::from(io::ErrorKind::StorageFull)),
            false => Ok(()),
        }
    }

    /// The disk as it was after this many writes, with only a part of the next one.
    pub fn torn_after(&self, writes: usize, part: f64) -> Self {
        let torn = Self::default();
        let log = self.0.log.lock().unwrap();
        let mut bytes = torn.0.bytes.lock().unwrap();
        for (at, write) in log.iter().take(writes + 1).enumerate() {
            match write {
                Write::Length(length) => bytes.resize(usize::try_from(*length).unwrap(), 0),
                Write::Bytes(offset, data) => {
                    let whole = at < writes;
                    let kept = if whole { data.len() } else { (data.len() as f64 * part) as usize };
                    let start = usize::try_from(*offset).unwrap();
                    bytes[start..start + kept].copy_from_slice(&data[..kept]);
                }
            }
        }
        drop(bytes);
        torn
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.0.bytes.lock().unwrap()[start..start + out.len()]);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.check_room()?;
        self.0.bytes.lock().unwrap().resize(usize::try_from(length).unwrap(), 0);
        self.0.log.lock().unwrap().push(Write::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        std::thread::sleep(Duration::from_millis(self.0.slow.load(Ordering::SeqCst)));
        self.check_room()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_room()?;
        let start = usize::try_from(offset).unwrap();
        self.0.bytes.lock().unwrap()[start..start + data.len()].copy_from_slice(data);
        self.0.log.lock().unwrap().push(Write::Bytes(offset, data.to_vec()));
        Ok(())
    }
}

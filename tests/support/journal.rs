//! A journal, and the ends of the services that leave it to the next.

use std::path::PathBuf;
use std::time::Duration;

use redb::{Database, ReadableTable as _, TableDefinition};
use tempfile::TempDir;

use super::service::{Service, serve};

/// A journal that outlives the processes that use it.
pub struct Journal {
    pub directory: TempDir,
}

impl Journal {
    pub fn new() -> Journal {
        Journal { directory: TempDir::new().expect("a temporary directory") }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("callhook.redb")
    }

    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path()).expect("the journal can be read")
    }

    /// Makes it look as if the service had died so much earlier; it must not run.
    pub fn set_back(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).expect("a time to be tested with");
        let write = Database::open(self.path()).unwrap().begin_write().unwrap();
        {
            let mut calls =
                write.open_table(TableDefinition::<[u8; 16], u64>::new("calls")).unwrap();
            let begun: Vec<_> = calls
                .iter()
                .unwrap()
                .map(|row| row.map(|(call, at)| (call.value(), at.value())))
                .collect();
            for row in begun {
                let (call, at) = row.unwrap();
                calls.insert(call, at - by).unwrap();
            }
            let mut meta = write.open_table(TableDefinition::<&str, u64>::new("meta")).unwrap();
            let live_at = meta.get("live_at").unwrap().map(|at| at.value());
            if let Some(at) = live_at {
                meta.insert("live_at", at - by).unwrap();
            }
        }
        write.commit().unwrap();
    }

    /// Starts a service on this journal that delivers to `url`.
    pub async fn serve(&self, url: &str, vars: &[(&str, &str)]) -> Service {
        let path = self.path();
        let path = path.to_str().expect("a path of plain text");
        serve(url, &[&[("JOURNAL_PATH", path)], vars].concat()).await
    }
}

/// Ends the service with SIGKILL; returns when nothing of it is left.
pub async fn kill(mut service: Service) {
    service.signal("KILL");
    service.ended().await;
}

/// Ends the service with SIGTERM, which has to succeed; returns its log.
pub async fn terminate(mut service: Service) -> String {
    service.terminate();
    assert_eq!(service.wait().await, 0);
    service.whole_log().await
}

/// Ends the service in one of these two ways.
pub async fn end(service: Service, signal: &str) {
    match signal {
        "KILL" => kill(service).await,
        _ => drop(terminate(service).await),
    }
}

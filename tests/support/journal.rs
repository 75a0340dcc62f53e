//! A journal, and the ends of the services that leave it to the next.

use std::path::PathBuf;

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

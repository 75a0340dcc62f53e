//! What a stand-in noted, in order, and a way to wait until something is in it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// The longest wait for anything.
pub const LIMIT: Duration = Duration::from_secs(12);

pub struct Record<T> {
    items: Mutex<Vec<T>>,
    news: watch::Sender<()>,
}

impl<T> Default for Record<T> {
    fn default() -> Self {
        Record { items: Mutex::default(), news: watch::Sender::default() }
    }
}

impl<T> Record<T> {
    pub fn push(&self, item: T) {
        self.items().push(item);
        self.news.send_replace(());
    }

    /// Looks at what there is so far.
    pub fn look<R>(&self, look: impl FnOnce(&[T]) -> R) -> R {
        look(&self.items())
    }

    /// Waits until `look` finds something; panics naming what was waited for when it never does.
    pub async fn until<R>(&self, what: &str, look: impl Fn(&[T]) -> Option<R>) -> R {
        let mut news = self.news.subscribe();
        let search = async {
            loop {
                news.mark_unchanged();
                if let Some(found) = self.look(&look) {
                    return found;
                }
                news.changed().await.expect("the record outlives the wait");
            }
        };
        let found = timeout(LIMIT, search).await;
        found.unwrap_or_else(|_| panic!("{what}: not within {LIMIT:?}"))
    }

    fn items(&self) -> MutexGuard<'_, Vec<T>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

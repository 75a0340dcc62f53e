//! What a stand-in noted, in order, and the one way to wait for what others do: until something is in it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// The longest wait for anything that has no limit of its own: whatever takes longer never comes.
pub const LIMIT: Duration = Duration::from_secs(20);

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
        let found = self.found(look).await;
        found.unwrap_or_else(|| panic!("{what}: not within {LIMIT:?}"))
    }

    /// Waits until `look` finds something; None when it never does.
    pub async fn found<R>(&self, look: impl Fn(&[T]) -> Option<R>) -> Option<R> {
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
        timeout(LIMIT, search).await.ok()
    }

    fn items(&self) -> MutexGuard<'_, Vec<T>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

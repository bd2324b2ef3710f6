//! Connections that are served at the same time: no more than some, the oldest of which makes way.

use std::{collections::VecDeque, future::Future};

use tokio::task::{AbortHandle, JoinSet};

/// Those that are served now. Dropped, all are cut.
pub struct Clients {
    most: usize,
    tasks: JoinSet<()>,
    /// Oldest first.
    handles: VecDeque<AbortHandle>,
}

impl Clients {
    /// At most so many at once.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most,
            tasks: JoinSet::new(),
            handles: VecDeque::new(),
        }
    }

    /// Serves one more; where there are as many as may be, the oldest is cut.
    pub fn serve(&mut self, client: impl Future<Output = ()> + Send + 'static) {
        self.handles.retain(|handle| !handle.is_finished());
        if self.handles.len() >= self.most
            && let Some(oldest) = self.handles.pop_front()
        {
            oldest.abort();
        }
        self.handles.push_back(self.tasks.spawn(client));
    }

    /// Waits until one has been served; for ever where there is none.
    pub async fn served(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use super::*;

    struct Alive(Arc<AtomicUsize>);

    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn the_oldest_makes_way() {
        let alive = Arc::new(AtomicUsize::new(0));
        let mut clients = Clients::new(2);
        for _ in 0..5 {
            alive.fetch_add(1, Ordering::SeqCst);
            let one = Alive(Arc::clone(&alive));
            clients.serve(async move {
                let _one = one;
                std::future::pending::<()>().await;
            });
        }
        for _ in 0..3 {
            let served = tokio::time::timeout(Duration::from_secs(20), clients.served());
            served.await.unwrap();
        }
        assert_eq!(alive.load(Ordering::SeqCst), 2);
        drop(clients);
        tokio::task::yield_now().await;
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    }
}

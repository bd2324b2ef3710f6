//! The one thread that touches the disk. Delivery does not wait for it: alerts matter most when a disk
//! hangs.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use super::lane::Lane;

/// Between attempts to write to a disk that is full or broken.
const RETRY: Duration = Duration::from_secs(5);

/// Tells the keeper that there is something to do.
#[derive(Clone, Default)]
pub(super) struct Bell(Arc<(Mutex<Rung>, Condvar)>);

#[derive(Default)]
struct Rung {
    rung: bool,
    ends: bool,
}

impl Bell {
    pub(super) fn ring(&self) {
        self.set(|state| state.rung = true);
    }

    /// The keeper ends after one last round.
    pub(super) fn end(&self) {
        self.set(|state| state.ends = true);
    }

    fn set(&self, change: impl FnOnce(&mut Rung)) {
        let (state, wake) = &*self.0;
        change(&mut state.lock().unwrap_or_else(PoisonError::into_inner));
        wake.notify_all();
    }

    /// Waits for the bell, or for `most`; false once it is to end.
    fn wait(&self, most: Option<Duration>) -> bool {
        let (state, wake) = &*self.0;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |state: &mut Rung| !state.rung && !state.ends;
        let mut state = match most {
            Some(most) => {
                let waited = wake.wait_timeout_while(state, most, idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => wake
                .wait_while(state, idle)
                .unwrap_or_else(PoisonError::into_inner),
        };
        state.rung = false;
        !state.ends
    }
}

/// Keeps the folders of all lanes as their queues are, until the bell says that it ends.
pub(super) fn run(lanes: &[Arc<Lane>], bell: &Bell) {
    let mut goes_on = true;
    while goes_on {
        // What cannot be written now may be later.
        let failing = lanes
            .iter()
            .any(|lane| lane.lock().health.not_stored.is_some());
        goes_on = bell.wait(failing.then_some(RETRY));
        for lane in lanes {
            store(lane);
        }
    }
}

fn store(lane: &Lane) {
    let Some(spool) = &lane.spool else {
        return;
    };
    let (write, remove) = lane.lock().queue.take_unstored();
    if write.is_empty() && remove.is_empty() {
        return;
    }
    // Removing comes first: it makes room on a full disk.
    let (left, not_removed) = spool.remove(&remove);
    let alerts = write.iter().map(|(number, alert)| (*number, &**alert));
    let (written, not_written) = spool.write(alerts);
    let mut state = lane.lock();
    state.queue.not_removed(left);
    for (index, (number, _)) in write.iter().enumerate() {
        state.queue.stored(*number, index < written);
    }
    let name = &state.health.name;
    let why = not_written.or(not_removed).map(|error| error.to_string());
    match (&state.health.not_stored, &why) {
        (None, Some(why)) => log::warn!(
            "notifier {name}: the queue cannot be kept on disk: {why}; alerts that wait are in \
             memory until it can"
        ),
        (Some(_), None) => log::info!("notifier {name}: the queue is kept on disk again"),
        _ => {}
    }
    state.health.not_stored = why;
}

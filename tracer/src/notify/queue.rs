//! What waits for one receiver, in order for each incident. Pure.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use crate::alert::{Alert, Status};

/// Which of several alerts about one incident are worth delivering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Beginning and end, however late; a reminder takes the place of one that still waits.
    Story,
    /// What is true now.
    Newest,
}

/// Whether an alert is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    No,
    /// It is being written just now.
    Writing,
    Yes,
}

#[derive(Debug)]
struct Item {
    alert: Arc<Alert>,
    stored: Stored,
    /// It is being delivered just now, and is neither replaced nor dropped.
    busy: bool,
}

/// What adding an alert pushed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PushedOut {
    /// Alerts that a newer one of the same incident replaced.
    pub(super) superseded: u64,
    /// Alerts that are lost, since there was no room.
    pub(super) dropped: u64,
}

/// Alerts by the order they came in.
#[derive(Debug)]
pub(super) struct Queue {
    keep: Keep,
    most: usize,
    next: u64,
    items: BTreeMap<u64, Item>,
    /// When the incidents whose delivery failed were tried last; in attempts, not in time.
    tried: HashMap<String, u64>,
    attempts: u64,
    /// Numbers of files that are to be removed.
    gone: Vec<u64>,
}

impl Queue {
    pub(super) fn new(keep: Keep, most: usize) -> Self {
        Self {
            keep,
            most,
            next: 1,
            items: BTreeMap::new(),
            tried: HashMap::new(),
            attempts: 0,
            gone: Vec::new(),
        }
    }

    /// Takes in what was found on disk, oldest first, before anything is pushed.
    pub(super) fn restore(&mut self, found: Vec<(u64, Alert)>) -> PushedOut {
        let mut out = PushedOut::default();
        for (number, alert) in found {
            self.next = number.max(self.next);
            out += self.add(alert, Stored::Yes);
        }
        out
    }

    /// Adds what has just come.
    pub(super) fn push(&mut self, alert: Alert) -> PushedOut {
        self.add(alert, Stored::No)
    }

    fn add(&mut self, alert: Alert, stored: Stored) -> PushedOut {
        let mut out = PushedOut::default();
        for number in self.superseded_by(&alert) {
            self.remove(number);
            out.superseded += 1;
        }
        while self.items.len() >= self.most {
            let oldest = self.items.iter().find(|(_, item)| !item.busy);
            let Some(number) = oldest.map(|(number, _)| *number) else {
                break;
            };
            self.remove(number);
            out.dropped += 1;
        }
        let item = Item {
            alert: Arc::new(alert),
            stored,
            busy: false,
        };
        self.items.insert(self.next, item);
        self.next += 1;
        out
    }

    fn superseded_by(&self, alert: &Alert) -> Vec<u64> {
        let mut waiting = self
            .items
            .iter()
            .filter(|(_, item)| !item.busy && item.alert.id == alert.id);
        match self.keep {
            Keep::Newest => waiting.map(|(number, _)| *number).collect(),
            Keep::Story => waiting
                .next_back()
                .filter(|(_, item)| is_reminder(&item.alert, alert))
                .map(|(number, _)| *number)
                .into_iter()
                .collect(),
        }
    }

    /// What to deliver next: the oldest, but incidents whose delivery has failed come after
    /// others, so that one that a receiver chokes on does not keep all others back.
    pub(super) fn take(&mut self) -> Option<(u64, Arc<Alert>)> {
        if self.tried.len() > self.items.len() {
            let waiting: HashSet<&str> = self.items.values().map(|item| &*item.alert.id).collect();
            self.tried.retain(|id, _| waiting.contains(&**id));
        }
        let number = if self.tried.is_empty() {
            *self.items.first_key_value()?.0
        } else {
            let mut seen = HashSet::new();
            let heads = self
                .items
                .iter()
                .filter(|(_, item)| seen.insert(&item.alert.id));
            let tried = |item: &Item| self.tried.get(&item.alert.id).copied().unwrap_or(0);
            *heads
                .min_by_key(|(number, item)| (tried(item), **number))?
                .0
        };
        let item = self.items.get_mut(&number)?;
        item.busy = true;
        self.attempts += 1;
        Some((number, Arc::clone(&item.alert)))
    }

    /// What was taken needs no further attempt.
    pub(super) fn done(&mut self, number: u64) {
        if let Some(item) = self.items.get(&number) {
            self.tried.remove(&item.alert.id);
        }
        self.remove(number);
    }

    /// What was taken is to be delivered later, unless a newer one has come meanwhile that
    /// replaces it: true then.
    pub(super) fn failed(&mut self, number: u64) -> bool {
        let Some(item) = self.items.get_mut(&number) else {
            return false;
        };
        item.busy = false;
        let id = item.alert.id.clone();
        self.tried.insert(id.clone(), self.attempts);
        let mut same = self.items.values().filter(|item| item.alert.id == id);
        let is_replaced = match (self.keep, same.next(), same.next()) {
            (_, _, None) | (_, None, _) => false,
            (Keep::Newest, ..) => true,
            (Keep::Story, Some(old), Some(new)) => is_reminder(&old.alert, &new.alert),
        };
        if is_replaced {
            self.remove(number);
        }
        is_replaced
    }

    fn remove(&mut self, number: u64) {
        match self.items.remove(&number) {
            Some(item) if item.stored == Stored::Yes => self.gone.push(number),
            // Whoever writes it sees that it is gone.
            _ => {}
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether what it is told is forgotten when turnaway ends: what is true now has to be said again.
    pub(super) fn is_of_the_present(&self) -> bool {
        self.keep == Keep::Newest
    }

    /// The incidents that alerts wait about.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.items.values().map(|item| item.alert.id.as_str())
    }

    /// What is to be written to disk and what is to be removed.
    pub(super) fn take_unstored(&mut self) -> (Vec<(u64, Arc<Alert>)>, Vec<u64>) {
        let unwritten = self
            .items
            .iter_mut()
            .filter(|(_, item)| item.stored == Stored::No)
            .map(|(number, item)| {
                item.stored = Stored::Writing;
                (*number, Arc::clone(&item.alert))
            })
            .collect();
        (unwritten, std::mem::take(&mut self.gone))
    }

    /// How writing one went.
    pub(super) fn stored(&mut self, number: u64, is_there: bool) {
        match self.items.get_mut(&number) {
            Some(item) => item.stored = if is_there { Stored::Yes } else { Stored::No },
            None if is_there => self.gone.push(number),
            None => {}
        }
    }

    /// Files that could not be removed.
    pub(super) fn not_removed(&mut self, numbers: impl IntoIterator<Item = u64>) {
        self.gone.extend(numbers);
    }

    /// Whether the disk holds what waits, and nothing else.
    pub(super) fn is_stored(&self) -> bool {
        self.gone.is_empty() && self.items.values().all(|item| item.stored == Stored::Yes)
    }
}

/// Whether the newer says no more than that the incident lasts.
fn is_reminder(older: &Alert, newer: &Alert) -> bool {
    older.id == newer.id
        && older.status == newer.status
        && (older.severity == newer.severity || newer.status == Status::Resolved)
}

impl std::ops::AddAssign for PushedOut {
    fn add_assign(&mut self, other: Self) {
        self.superseded += other.superseded;
        self.dropped += other.dropped;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{Keep, PushedOut, Queue};
    use crate::{
        alert::{Severity, Status},
        notify::sample,
    };

    fn drain(queue: &mut Queue) -> Vec<(String, Status)> {
        let mut taken = Vec::new();
        while let Some((number, alert)) = queue.take() {
            taken.push((alert.id.clone(), alert.status));
            queue.done(number);
        }
        taken
    }

    #[test]
    fn a_webhook_is_told_the_story() {
        let mut queue = Queue::new(Keep::Story, 10);
        queue.push(sample("a", Status::Firing));
        queue.push(sample("b", Status::Firing));
        // Two reminders, of which the newer stands for both.
        let out = queue.push(sample("a", Status::Firing));
        assert_eq!((out.superseded, out.dropped), (1, 0));
        assert_eq!(
            queue.push(sample("a", Status::Resolved)),
            PushedOut::default()
        );
        let mut worse = sample("b", Status::Firing);
        worse.severity = Severity::Info;
        assert_eq!(queue.push(worse), PushedOut::default());
        let told: Vec<_> = drain(&mut queue);
        let of = |id: &str| -> Vec<Status> {
            told.iter()
                .filter(|(of, _)| of == id)
                .map(|(_, status)| *status)
                .collect()
        };
        assert_eq!(of("a"), [Status::Firing, Status::Resolved]);
        assert_eq!(of("b"), [Status::Firing, Status::Firing]);
    }

    #[test]
    fn alertmanager_is_told_what_is_true_now() {
        let mut queue = Queue::new(Keep::Newest, 10);
        queue.push(sample("a", Status::Firing));
        let (busy, _) = queue.take().unwrap();
        // The one that is under way stays.
        assert_eq!(
            queue.push(sample("a", Status::Firing)),
            PushedOut::default()
        );
        assert_eq!(queue.push(sample("a", Status::Resolved)).superseded, 1);
        assert!(queue.failed(busy));
        assert_eq!(drain(&mut queue), [("a".to_owned(), Status::Resolved)]);
    }

    #[test]
    fn a_failed_reminder_gives_way_but_a_failed_beginning_does_not() {
        let mut queue = Queue::new(Keep::Story, 10);
        queue.push(sample("a", Status::Firing));
        let (busy, _) = queue.take().unwrap();
        queue.push(sample("a", Status::Firing));
        assert!(queue.failed(busy));
        assert_eq!(queue.len(), 1);
        let (busy, _) = queue.take().unwrap();
        queue.push(sample("a", Status::Resolved));
        assert!(!queue.failed(busy));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn the_oldest_makes_room_and_is_counted() {
        let mut queue = Queue::new(Keep::Story, 3);
        let mut dropped = 0;
        for index in 0..10 {
            dropped += queue
                .push(sample(&index.to_string(), Status::Firing))
                .dropped;
        }
        assert_eq!(dropped, 7);
        let left: Vec<String> = drain(&mut queue).into_iter().map(|(id, _)| id).collect();
        assert_eq!(left, ["7", "8", "9"]);
    }

    #[test]
    fn what_a_receiver_chokes_on_does_not_keep_others_back() {
        let mut queue = Queue::new(Keep::Story, 100);
        queue.push(sample("poison", Status::Firing));
        for index in 0..5 {
            queue.push(sample(&index.to_string(), Status::Firing));
            queue.push(sample(&index.to_string(), Status::Resolved));
        }
        let mut came: HashMap<String, Vec<Status>> = HashMap::new();
        for _ in 0..30 {
            let (number, alert) = queue.take().unwrap();
            if alert.id == "poison" {
                queue.failed(number);
            } else {
                came.entry(alert.id.clone()).or_default().push(alert.status);
                queue.done(number);
            }
        }
        assert_eq!(queue.len(), 1);
        assert_eq!(came.len(), 5);
        for (id, statuses) in came {
            assert_eq!(statuses, [Status::Firing, Status::Resolved], "{id}");
        }
    }

    #[test]
    fn what_is_gone_before_it_is_written_leaves_no_file() {
        let mut queue = Queue::new(Keep::Story, 10);
        queue.push(sample("a", Status::Firing));
        assert!(!queue.is_stored());
        let (write, remove) = queue.take_unstored();
        assert_eq!((write.len(), remove.len()), (1, 0));
        // Nothing is written twice.
        assert_eq!(queue.take_unstored().0.len(), 0);
        let number = write[0].0;
        let taken = queue.take().unwrap().0;
        queue.done(taken);
        queue.stored(number, true);
        assert_eq!(queue.take_unstored().1, [number]);
        assert!(queue.is_stored());
    }

    #[test]
    fn what_could_not_be_written_is_tried_again() {
        let mut queue = Queue::new(Keep::Story, 10);
        queue.push(sample("a", Status::Firing));
        let (write, _) = queue.take_unstored();
        queue.stored(write[0].0, false);
        let (again, _) = queue.take_unstored();
        assert_eq!(again[0].0, write[0].0);
        queue.stored(again[0].0, true);
        assert!(queue.is_stored());
    }

    #[test]
    fn numbers_go_on_after_a_restart() {
        let mut queue = Queue::new(Keep::Story, 10);
        queue.restore(vec![
            (7, sample("a", Status::Firing)),
            (9, sample("b", Status::Firing)),
        ]);
        queue.push(sample("c", Status::Firing));
        let numbers: Vec<u64> = queue.items.keys().copied().collect();
        assert_eq!(numbers, [7, 9, 10]);
    }
}

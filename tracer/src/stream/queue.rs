//! What waits in memory for one sink: so much and no more. Pure, the clock is injected.
//!
//! Whoever captures puts records in and never waits. Exemplars make room for everything else, since
//! totals are in `count` records.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::entry::{Entry, Kind};

/// Bytes that wait at most, whatever their number.
const MOST_BYTES: usize = 32 << 20;

/// A record that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) entry: Arc<Entry>,
    /// What is to be said in it.
    pub(super) note: Note,
    order: u64,
}

/// What did not go to this sink since the last record that did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// Exemplars above its rate.
    pub(super) withheld: u64,
    /// Records that were lost.
    pub(super) lost: u64,
}

impl Note {
    fn add(&mut self, other: Self) {
        self.withheld += other.withheld;
        self.lost += other.lost;
    }

    /// As JSON; none where there is nothing to say.
    pub(super) fn json(self) -> Option<String> {
        (self != Self::default())
            .then(|| format!("{{\"withheld\":{},\"lost\":{}}}", self.withheld, self.lost))
    }
}

/// The queue of one sink.
#[derive(Debug)]
pub(super) struct Queue {
    room: usize,
    exemplars: VecDeque<Waiting>,
    others: VecDeque<Waiting>,
    bytes: usize,
    next: u64,
    rate: Option<Bucket>,
    /// To be said in the next record.
    note: Note,
    /// Records that there was no room for.
    pub(super) overflowed: u64,
    /// Exemplars above the rate.
    pub(super) withheld: u64,
}

impl Queue {
    /// Room for so many records, and so many a second, if that is limited.
    pub(super) fn new(room: usize, rate: Option<u32>, now: Instant) -> Self {
        Self {
            room,
            exemplars: VecDeque::new(),
            others: VecDeque::new(),
            bytes: 0,
            next: 0,
            rate: rate.map(|rate| Bucket::new(rate, now)),
            note: Note::default(),
            overflowed: 0,
            withheld: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.exemplars.len() + self.others.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Says in the next record that so many were lost after they had been taken from here.
    pub(super) fn tell_lost(&mut self, lost: u64) {
        self.note.lost += lost;
    }

    /// Takes a record in, or counts what there is no room for.
    pub(super) fn push(&mut self, entry: &Arc<Entry>, now: Instant) {
        let is_exemplar = entry.kind == Kind::Event;
        if let Some(rate) = &mut self.rate
            && !rate.take(now, is_exemplar)
        {
            self.withheld += 1;
            self.note.withheld += 1;
            return;
        }
        let size = entry.size();
        while self.len() >= self.room || self.bytes + size > MOST_BYTES && !self.is_empty() {
            let oldest = match self.exemplars.pop_front() {
                Some(oldest) => Some(oldest),
                // Nothing but exemplars makes room for an exemplar.
                None if is_exemplar => None,
                None => self.others.pop_front(),
            };
            self.overflowed += 1;
            self.note.lost += 1;
            let Some(oldest) = oldest else {
                return;
            };
            self.bytes -= oldest.entry.size();
            // What it had to say, the next one says.
            self.note.add(oldest.note);
        }
        self.bytes += size;
        self.next += 1;
        let waiting = Waiting {
            entry: Arc::clone(entry),
            note: std::mem::take(&mut self.note),
            order: self.next,
        };
        if is_exemplar {
            self.exemplars.push_back(waiting);
        } else {
            self.others.push_back(waiting);
        }
    }

    /// Takes the oldest out.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let order = |queue: &VecDeque<Waiting>| queue.front().map(|waiting| waiting.order);
        let waiting = match (order(&self.exemplars), order(&self.others)) {
            (Some(exemplar), Some(other)) if other < exemplar => self.others.pop_front(),
            (Some(_), _) => self.exemplars.pop_front(),
            (None, _) => self.others.pop_front(),
        }?;
        self.bytes -= waiting.entry.size();
        Some(waiting)
    }
}

/// So many a second, and no more than a second's worth at once.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    left: f64,
    filled: Instant,
}

impl Bucket {
    fn new(rate: u32, now: Instant) -> Self {
        Self {
            rate: rate.into(),
            left: rate.into(),
            filled: now,
        }
    }

    /// Whether there is one left. What must go is given one in any case: exemplars have to do with
    /// the rest.
    fn take(&mut self, now: Instant, may_wait: bool) -> bool {
        let grown: Duration = now.saturating_duration_since(self.filled);
        self.filled = now;
        self.left = grown
            .as_secs_f64()
            .mul_add(self.rate, self.left)
            .min(self.rate);
        if self.left >= 1.0 {
            self.left -= 1.0;
            return true;
        }
        if !may_wait {
            self.left = (self.left - 1.0).max(-self.rate);
        }
        !may_wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::entry::sample;

    fn push(queue: &mut Queue, number: u64, kind: Kind, now: Instant) {
        queue.push(&Arc::new(sample(number, kind)), now);
    }

    fn drain(queue: &mut Queue) -> Vec<(String, Note)> {
        std::iter::from_fn(|| queue.pop())
            .map(|waiting| (waiting.entry.id.clone(), waiting.note))
            .collect()
    }

    #[test]
    fn exemplars_make_room_and_what_is_lost_is_told_by_the_next() {
        let now = Instant::now();
        let mut queue = Queue::new(3, None, now);
        push(&mut queue, 1, Kind::Event, now);
        push(&mut queue, 2, Kind::Count, now);
        push(&mut queue, 3, Kind::Event, now);
        push(&mut queue, 4, Kind::Count, now);
        push(&mut queue, 5, Kind::Count, now);
        // No exemplar is left to make room: this one is what is lost.
        push(&mut queue, 6, Kind::Event, now);
        assert_eq!(queue.overflowed, 3);
        let lost = |lost| Note { withheld: 0, lost };
        let ids = drain(&mut queue);
        assert_eq!(
            ids,
            [
                ("run-2".to_owned(), lost(0)),
                ("run-4".to_owned(), lost(1)),
                ("run-5".to_owned(), lost(1)),
            ]
        );
        push(&mut queue, 7, Kind::Count, now);
        assert_eq!(drain(&mut queue), [("run-7".to_owned(), lost(1))]);
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn a_note_outlives_the_record_that_was_to_carry_it() {
        let now = Instant::now();
        let mut queue = Queue::new(1, None, now);
        for number in 0..10 {
            push(&mut queue, number, Kind::Count, now);
        }
        let told = drain(&mut queue);
        assert_eq!(told[0].1.lost, 9);
    }

    #[test]
    fn order_is_kept_between_kinds() {
        let now = Instant::now();
        let mut queue = Queue::new(100, None, now);
        for number in 0..50 {
            let kind = if number % 3 == 1 {
                Kind::Event
            } else {
                Kind::Count
            };
            push(&mut queue, number, kind, now);
        }
        let ids: Vec<String> = drain(&mut queue).into_iter().map(|(id, _)| id).collect();
        let wanted: Vec<String> = (0..50).map(|number| format!("run-{number}")).collect();
        assert_eq!(ids, wanted);
    }

    #[test]
    fn a_rate_withholds_exemplars_only_and_says_so() {
        let now = Instant::now();
        let mut queue = Queue::new(1000, Some(10), now);
        for number in 0..100 {
            push(&mut queue, number, Kind::Event, now);
        }
        for number in 100..105 {
            push(&mut queue, number, Kind::Count, now);
        }
        let told = drain(&mut queue);
        assert_eq!(told.len(), 15);
        assert_eq!(told[10].1.withheld, 90);
        // Those five are owed: the next second has five fewer.
        let later = now + Duration::from_secs(1);
        for number in 200..300 {
            push(&mut queue, number, Kind::Event, later);
        }
        assert_eq!(drain(&mut queue).len(), 5);
        assert_eq!(queue.withheld, 90 + 95);
    }
}

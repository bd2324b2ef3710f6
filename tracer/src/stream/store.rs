//! What was taken out of the queue and has not arrived yet: on disk where there is one that takes it, else
//! in memory, always in order.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    entry::Entry,
    spool::{Damage, Spool},
};

/// Between attempts with a disk that is full or broken.
const RETRY: Duration = Duration::from_secs(5);
/// The disk itself is asked to keep what was written so often.
const SYNC: Duration = Duration::from_secs(1);
/// Bytes that are appended at once, about.
const PIECE: usize = 1 << 20;
/// Bytes that are read at once, about.
const BATCH: usize = 1 << 20;
/// Bytes in memory at most, and records where there is no disk, beside what is in the queue.
const MOST_BYTES: usize = 16 << 20;
const MOST: usize = 10_000;

/// A record with its place in the order of this sink.
pub(super) type Numbered = (u64, Arc<Entry>);

/// Where records are kept, if not in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    pub(super) room: u64,
}

/// What has not arrived yet.
#[derive(Debug)]
pub(super) struct Store {
    place: Option<Place>,
    spool: Option<Spool>,
    memory: VecDeque<Numbered>,
    memory_bytes: usize,
    last: u64,
    sent: u64,
    arrived: u64,
    /// Records that were sent, may not have arrived, and are not kept any more.
    limbo: u64,
    waiting: u64,
    retry: Instant,
    synced: Instant,
    damage: Damage,
    /// Records that were lost for want of room, and were not told of yet.
    dropped: u64,
    /// Why what waits is in memory only.
    pub(super) not_stored: Option<String>,
}

impl Store {
    pub(super) fn new(place: Option<Place>, now: Instant) -> Self {
        let mut store = Self {
            place,
            spool: None,
            memory: VecDeque::new(),
            memory_bytes: 0,
            last: 0,
            sent: 0,
            arrived: 0,
            limbo: 0,
            waiting: 0,
            retry: now,
            synced: now,
            damage: Damage::default(),
            dropped: 0,
            not_stored: None,
        };
        store.open(now);
        store
    }

    /// Whether it takes more.
    pub(super) fn has_room(&self) -> bool {
        self.memory_bytes < MOST_BYTES && (self.place.is_some() || self.memory.len() < MOST)
    }

    /// Records that wait, those that are sent and may yet be lost among them.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::bytes)
    }

    /// Whether there is something that was not sent.
    pub(super) fn has_more(&self) -> bool {
        self.sent < self.last && self.waiting > 0
    }

    /// When it has to be looked at again, if it has.
    pub(super) fn due(&self) -> Option<Instant> {
        match (&self.place, &self.not_stored) {
            (None, _) => None,
            (_, Some(_)) => Some(self.retry),
            _ => self.waiting.gt(&0).then_some(self.synced + SYNC),
        }
    }

    /// What was damaged since this was last asked.
    pub(super) fn take_damage(&mut self) -> Damage {
        let mut damage = std::mem::take(&mut self.damage);
        if let Some(spool) = &mut self.spool {
            let more = spool.take_damage();
            damage.bytes += more.bytes;
            damage.records += more.records;
        }
        damage
    }

    /// How many were lost for want of room since this was last asked.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    fn open(&mut self, now: Instant) {
        let Some(place) = &self.place else {
            return;
        };
        match Spool::open(&place.folder, place.room) {
            Ok((spool, arrived, waiting, damage)) => {
                self.damage = damage;
                if self.last == 0 {
                    self.last = spool.last();
                    self.arrived = arrived;
                    self.sent = arrived;
                    self.waiting = waiting;
                } else {
                    // It could not be opened before, and what came meanwhile went its own way: what
                    // the folder holds comes after that.
                    self.renumber(&spool, arrived, waiting);
                }
                self.spool = Some(spool);
            }
            Err(error) => self.failed(&error, now),
        }
    }

    /// What is in memory gets numbers after those on disk.
    fn renumber(&mut self, spool: &Spool, arrived: u64, waiting: u64) {
        let mut number = spool.last();
        for (old, _) in &mut self.memory {
            number += 1;
            *old = number;
        }
        self.last = number;
        self.arrived = arrived;
        self.sent = arrived;
        self.waiting += waiting;
    }

    fn failed(&mut self, error: &io::Error, now: Instant) {
        self.retry = now + RETRY;
        self.not_stored = Some(error.to_string());
    }

    /// Takes records in. They are on disk after that, if there is one that takes them.
    pub(super) fn put(&mut self, entries: Vec<Arc<Entry>>, now: Instant) {
        self.waiting += entries.len() as u64;
        for entry in entries {
            self.last += 1;
            self.memory_bytes += entry.size();
            self.memory.push_back((self.last, entry));
        }
        self.store(now);
    }

    /// Writes what is in memory, and has the disk keep it now and then.
    pub(super) fn store(&mut self, now: Instant) {
        if self.place.is_none() || self.not_stored.is_some() && now < self.retry {
            return;
        }
        // Whoever has sent from memory sees that to its end: it is in flight.
        if self.spool.is_none() {
            if self.sent > self.arrived {
                self.retry = now + RETRY;
                return;
            }
            self.not_stored = None;
            self.open(now);
        }
        if let Err(error) = self.write(now) {
            self.failed(&error, now);
        } else if self.spool.is_some() {
            self.not_stored = None;
        }
    }

    fn write(&mut self, now: Instant) -> io::Result<()> {
        let Some(spool) = &mut self.spool else {
            return Ok(());
        };
        while !self.memory.is_empty() {
            let mut bytes = Vec::new();
            let mut pieces = Vec::new();
            let mut size = 0;
            for (number, entry) in &self.memory {
                if bytes.len() > PIECE {
                    break;
                }
                let from = bytes.len();
                entry.write(&mut bytes);
                pieces.push((*number, from..bytes.len()));
                size += entry.size();
            }
            let records = pieces
                .iter()
                .map(|(number, at)| (*number, &bytes[at.clone()]));
            spool.append(records)?;
            self.memory.drain(..pieces.len());
            self.memory_bytes -= size;
            for number in spool.shrink() {
                if number > self.sent {
                    self.dropped += 1;
                    self.waiting = self.waiting.saturating_sub(1);
                } else if number > self.arrived {
                    self.limbo += 1;
                }
            }
        }
        if now >= self.synced + SYNC {
            self.synced = now;
            spool.sync()?;
        }
        Ok(())
    }

    /// What is to be sent next: not more than so many.
    pub(super) fn next(&mut self, most: usize) -> io::Result<Vec<Numbered>> {
        if let Some(spool) = &mut self.spool {
            loop {
                let read = spool.read(self.sent, most, BATCH)?;
                let Some((last, _)) = read.last() else {
                    break;
                };
                let last = *last;
                let found: Vec<Numbered> = read
                    .into_iter()
                    .filter_map(|(number, bytes)| Some((number, Arc::new(Entry::read(&bytes)?))))
                    .collect();
                if !found.is_empty() {
                    return Ok(found);
                }
                // Whole, but of another version: nothing that can be sent.
                self.sent = last;
            }
        }
        let mut bytes = 0;
        let sent = self.sent;
        Ok(self
            .memory
            .iter()
            .filter(|(number, _)| *number > sent)
            .take(most)
            .take_while(|(_, entry)| {
                bytes += entry.size();
                bytes <= BATCH + entry.size()
            })
            .cloned()
            .collect())
    }

    /// There is nothing more to send, whatever was expected.
    pub(super) fn is_at_end(&mut self, nothing_flies: bool) {
        self.sent = self.last;
        if nothing_flies {
            self.arrived = self.last;
            self.waiting = 0;
        }
    }

    /// Everything up to a number was sent.
    pub(super) fn sent(&mut self, until: u64) {
        self.sent = self.sent.max(until);
    }

    /// Everything up to a number, which are so many records, has arrived.
    pub(super) fn arrived(&mut self, until: u64, records: u64, now: Instant) {
        self.arrived = self.arrived.max(until);
        self.sent = self.sent.max(until);
        self.waiting = self.waiting.saturating_sub(records);
        self.limbo = self.limbo.saturating_sub(records);
        while let Some((number, entry)) = self.memory.front()
            && *number <= until
        {
            self.memory_bytes -= entry.size();
            self.memory.pop_front();
        }
        if let Some(spool) = &mut self.spool
            && let Err(error) = spool.arrived(until)
        {
            self.failed(&error, now);
        }
    }

    /// What was sent and did not arrive is sent again, if it is still there.
    pub(super) fn rewind(&mut self) {
        self.sent = self.arrived;
        let lost = std::mem::take(&mut self.limbo);
        self.dropped += lost;
        self.waiting = self.waiting.saturating_sub(lost);
    }

    /// Everything is on disk, if there is one that takes it.
    pub(super) fn close(&mut self, now: Instant) {
        self.retry = now;
        self.store(now);
        if let Some(spool) = &mut self.spool
            && let Err(error) = spool.sync()
        {
            self.failed(&error, now);
        }
    }

    /// Records that the end of the process would take with it.
    pub(super) fn in_memory(&self) -> u64 {
        self.memory.len() as u64
    }
}

//! What waits for a receiver, on disk: it survives the process, however that ends.
//!
//! Records are appended to segments, files named by the number of their first record; a segment whose
//! records have all arrived is removed. When all segments together are too large, the oldest goes. Only
//! the thread of a sink touches its folder.

mod frame;

#[cfg(any(test, fuzzing))]
pub(crate) use frame::read_segment;

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// Of the whole room, a segment takes this part: so much is lost at once when there is too much.
const PARTS: u64 = 32;
/// Bounds of a segment: one is read into memory as a whole.
const LEAST: u64 = 16 << 10;
const LARGEST: u64 = 8 << 20;
const SUFFIX: &str = "seg";

/// What was found to be damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Damage {
    /// Bytes that are no record.
    pub(super) bytes: u64,
    /// Records that are known to have been there; a torn last one is not among them.
    pub(super) records: u64,
    /// Where it was found first.
    pub(super) file: Option<PathBuf>,
}

/// A folder of records.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    /// Bytes that all may take.
    room: u64,
    segments: VecDeque<Segment>,
    /// The last segment, if it is of this process: nothing is appended to what was left behind.
    writer: Option<File>,
    /// Holds the number up to which all arrived. It is also what is locked.
    arrived: File,
    last: u64,
    bytes: u64,
    reader: Option<Reader>,
    is_dirty: bool,
    /// Segments that begin after this are of this process.
    own: u64,
    /// What was damaged in those.
    damage: Damage,
}

#[derive(Debug)]
struct Segment {
    /// What it is named by.
    first: u64,
    /// The last record in it.
    last: u64,
    bytes: u64,
}

/// Where reading is.
#[derive(Debug)]
struct Reader {
    segment: u64,
    /// Bytes of the segment that `data` begins after.
    before: u64,
    data: Vec<u8>,
    at: usize,
    /// The last record that was handed out.
    last: u64,
    /// The last that was seen in this segment.
    seen: u64,
}

impl Spool {
    /// Takes up what a folder holds; makes it if it is not there. Returns up to which number
    /// everything had arrived, how many records wait, and what is damaged.
    pub(super) fn open(folder: &Path, room: u64) -> io::Result<(Self, u64, u64, Damage)> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let arrived = private().open(folder.join("arrived"))?;
        flock(&arrived, FlockOperation::NonBlockingLockExclusive)?;
        let until = read_arrived(&arrived);
        let mut spool = Self {
            folder: folder.to_owned(),
            room,
            segments: VecDeque::new(),
            writer: None,
            arrived,
            last: until,
            bytes: 0,
            reader: None,
            is_dirty: false,
            own: 0,
            damage: Damage::default(),
        };
        let mut firsts = Vec::new();
        for file in fs::read_dir(folder)? {
            let path = file?.path();
            if path.extension().is_some_and(|suffix| suffix == SUFFIX)
                && let Some(first) = path
                    .file_stem()
                    .and_then(|stem| stem.to_str()?.parse().ok())
            {
                firsts.push(first);
            }
        }
        firsts.sort_unstable();
        let (mut damage, mut waiting) = (Damage::default(), 0);
        // From here on records are expected.
        let mut next = None;
        for first in firsts {
            let path = spool.path(first);
            let data = fs::read(&path)?;
            let mut missing = 0;
            if let Some(next) = next {
                missing += gap(next, first, until);
            }
            let (mut at, mut bytes, mut last) = (0, 0, None);
            while let Some(frame) = frame::next(&data, at) {
                bytes += frame.skipped as u64;
                at = frame.payload.end;
                let expected = last.map_or(first, |last: u64| last + 1);
                missing += gap(expected, frame.number, until);
                if frame.number > until {
                    waiting += 1;
                }
                last = Some(frame.number);
            }
            bytes += (data.len() - at) as u64;
            if bytes + missing > 0 && damage.file.is_none() {
                damage.file = Some(path);
            }
            damage.bytes += bytes;
            damage.records += missing;
            next = Some(last.map_or(first, |last| last + 1));
            // Without a single record, its name still says which numbers have been used.
            let last = last.unwrap_or(first);
            spool.last = spool.last.max(last);
            spool.bytes += data.len() as u64;
            spool.segments.push_back(Segment {
                first,
                last,
                bytes: data.len() as u64,
            });
        }
        spool.own = spool.last;
        spool.remove_arrived(until);
        Ok((spool, until, waiting, damage))
    }

    fn path(&self, first: u64) -> PathBuf {
        self.folder.join(format!("{first:020}.{SUFFIX}"))
    }

    /// The last number that was ever given.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends records, all of them or none.
    pub(super) fn append<'a>(
        &mut self,
        records: impl Iterator<Item = (u64, &'a [u8])>,
    ) -> io::Result<()> {
        let mut piece = Vec::new();
        let mut numbers: Option<(u64, u64)> = None;
        for (number, payload) in records {
            if !frame::write(&mut piece, number, payload) {
                return Err(io::Error::other("a record is too long"));
            }
            numbers = Some((numbers.map_or(number, |(first, _)| first), number));
        }
        let Some((first, last)) = numbers else {
            return Ok(());
        };
        let most = (self.room / PARTS).clamp(LEAST, LARGEST);
        let full = self.segments.back().is_none_or(|last| last.bytes >= most);
        if full || self.writer.is_none() {
            if let Some(before) = &self.writer
                && self.is_dirty
            {
                before.sync_data()?;
            }
            let path = self.path(first);
            let file = private().truncate(true).open(&path)?;
            self.writer = Some(file);
            self.segments.push_back(Segment {
                first,
                last: first.saturating_sub(1),
                bytes: 0,
            });
        }
        let (Some(file), Some(segment)) = (&mut self.writer, self.segments.back_mut()) else {
            return Err(io::Error::other("there is no segment"));
        };
        if let Err(error) = file.write_all_at(&piece, segment.bytes) {
            // A full disk takes a part. What cannot be taken back, the next attempt overwrites.
            let _ = file.set_len(segment.bytes);
            if segment.bytes == 0 {
                let first = segment.first;
                self.segments.pop_back();
                self.writer = None;
                let _ = fs::remove_file(self.path(first));
            }
            return Err(error);
        }
        segment.bytes += piece.len() as u64;
        segment.last = last;
        self.last = last;
        self.bytes += piece.len() as u64;
        self.is_dirty = true;
        Ok(())
    }

    /// The records after a number, in order: some, but not more than so many nor, past the first, more
    /// bytes than these. None where there is no more.
    pub(super) fn read(
        &mut self,
        after: u64,
        most: usize,
        bytes: usize,
    ) -> io::Result<Vec<(u64, Vec<u8>)>> {
        let (mut found, mut taken) = (Vec::new(), 0);
        loop {
            self.seek(after)?;
            let Some(reader) = &mut self.reader else {
                return Ok(found);
            };
            let own = reader.segment > self.own;
            while let Some(frame) = frame::next(&reader.data, reader.at) {
                if own && frame.skipped > 0 {
                    self.damage.bytes += frame.skipped as u64;
                    self.damage.records += gap(reader.seen + 1, frame.number, after);
                    // What is handed out with the next call is not skipped again.
                    reader.at = frame.payload.start.saturating_sub(frame::HEADER);
                }
                let payload = &reader.data[frame.payload.clone()];
                if frame.number > after {
                    if found.len() >= most || !found.is_empty() && taken + payload.len() > bytes {
                        return Ok(found);
                    }
                    taken += payload.len();
                    found.push((frame.number, payload.to_vec()));
                    reader.last = frame.number;
                }
                reader.at = frame.payload.end;
                reader.seen = frame.number;
            }
            let left = reader.data.len() - reader.at;
            if own && left > 0 {
                self.damage.bytes += left as u64;
            }
            // What is left of these bytes is no record.
            reader.before += reader.data.len() as u64;
            reader.data = Vec::new();
            reader.at = 0;
            if !found.is_empty() || !self.turn_page() {
                return Ok(found);
            }
        }
    }

    /// What was damaged in files of this process since this was last asked.
    pub(super) fn take_damage(&mut self) -> Damage {
        std::mem::take(&mut self.damage)
    }

    /// Has the reader stand where the record after a number is looked for.
    fn seek(&mut self, after: u64) -> io::Result<()> {
        if self
            .reader
            .as_ref()
            .is_none_or(|reader| reader.last != after)
        {
            let segment = self.segments.iter().find(|segment| segment.last > after);
            self.reader = segment.map(|segment| Reader {
                segment: segment.first,
                before: 0,
                data: Vec::new(),
                at: 0,
                last: after,
                seen: segment.first.saturating_sub(1),
            });
        }
        let Some(reader) = &mut self.reader else {
            return Ok(());
        };
        if reader.at < reader.data.len() {
            return Ok(());
        }
        let segment = reader.segment;
        let known = self.segments.iter().find(|one| one.first == segment);
        let Some(known) = known else {
            self.reader = None;
            return Ok(());
        };
        let left = known.bytes.saturating_sub(reader.before);
        let mut data = vec![0; usize::try_from(left).unwrap_or(0)];
        File::open(self.folder.join(format!("{segment:020}.{SUFFIX}")))?
            .read_exact_at(&mut data, reader.before)?;
        reader.data = data;
        reader.at = 0;
        Ok(())
    }

    /// On to the next segment, if there is one.
    fn turn_page(&mut self) -> bool {
        let Some(reader) = &mut self.reader else {
            return false;
        };
        let next = self
            .segments
            .iter()
            .find(|segment| segment.first > reader.segment && segment.bytes > 0);
        match next {
            Some(next) => {
                reader.segment = next.first;
                reader.before = 0;
                reader.seen = next.first.saturating_sub(1);
                true
            }
            None => false,
        }
    }

    /// Everything up to a number has arrived.
    pub(super) fn arrived(&mut self, until: u64) -> io::Result<()> {
        self.remove_arrived(until);
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&until.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..8]);
        bytes[8..].copy_from_slice(&crc.to_le_bytes());
        self.arrived.write_all_at(&bytes, 0)?;
        self.is_dirty = true;
        Ok(())
    }

    fn remove_arrived(&mut self, until: u64) {
        while let Some(oldest) = self.segments.front()
            && oldest.last <= until
            && (self.segments.len() > 1 || self.writer.is_none())
        {
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        if let Some(oldest) = self.segments.pop_front() {
            self.bytes -= oldest.bytes;
            // What was read ahead is gone as well: it is counted as lost, or has arrived.
            if self
                .reader
                .as_ref()
                .is_some_and(|reader| reader.segment == oldest.first)
            {
                self.reader = None;
            }
            // One that cannot be removed comes again with the next start, and is removed then.
            let _ = fs::remove_file(self.path(oldest.first));
        }
    }

    /// Lets the oldest go until there is room again. Returns the numbers of their records.
    pub(super) fn shrink(&mut self) -> Vec<u64> {
        let mut gone = Vec::new();
        while self.bytes > self.room && self.segments.len() > 1 {
            if let Some(oldest) = self.segments.front()
                && let Ok(data) = fs::read(self.path(oldest.first))
            {
                let mut at = 0;
                while let Some(frame) = frame::next(&data, at) {
                    gone.push(frame.number);
                    at = frame.payload.end;
                }
            }
            self.remove_oldest();
        }
        gone
    }

    /// Has the disk itself keep it.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.is_dirty) {
            return Ok(());
        }
        if let Some(file) = &self.writer {
            file.sync_data()?;
        }
        self.arrived.sync_data()
    }
}

/// Records that are missing where one was expected and another came; those that arrived are not.
fn gap(expected: u64, came: u64, arrived: u64) -> u64 {
    came.saturating_sub(expected.max(arrived + 1))
}

fn private() -> fs::OpenOptions {
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    options
}

/// Where that cannot be believed, everything is delivered again.
fn read_arrived(file: &File) -> u64 {
    let mut bytes = [0; 12];
    if file.read_exact_at(&mut bytes, 0).is_err() {
        return 0;
    }
    let (number, crc) = bytes.split_at(8);
    let is_good = crc32fast::hash(number).to_le_bytes() == crc;
    let number = number.try_into().map_or(0, u64::from_le_bytes);
    if is_good { number } else { 0 }
}

#[cfg(test)]
mod tests;

//! Programs that begin and end, as the kernel side tells of them.

use aya::maps::{MapData, PerCpuArray, RingBuf};
use turnaway_common::ProgramRecord;

use crate::event::ProcessId;

/// Room for some thousands: they are read once a second.
const RING: u32 = 1 << 20;
/// The least that a ring can have.
const NO_RING: u32 = 1 << 12;

/// Size of the ring, bytes.
pub(super) fn ring_bytes(wanted: bool) -> u32 {
    if wanted { RING } else { NO_RING }
}

/// A program that began or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The process that runs it.
    pub id: ProcessId,
    /// When, nanoseconds of `CLOCK_BOOTTIME`.
    pub boottime_ns: u64,
    /// What it is, if it began; `None` if it ended.
    pub began: Option<Began>,
}

/// A program that began. Names are any bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Began {
    /// Name.
    pub comm: Vec<u8>,
    /// Name of its parent, where it is known.
    pub parent: Option<Vec<u8>>,
    /// Its arguments, separated by spaces, as far as they were kept.
    pub arguments: Option<Vec<u8>>,
}

/// Reads them.
pub struct Programs {
    ring: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
    unreadable: u64,
}

impl Programs {
    pub(super) fn new(ring: RingBuf<MapData>, lost: PerCpuArray<MapData, u64>) -> Self {
        Self {
            ring,
            lost,
            unreadable: 0,
        }
    }

    /// Hands over what is there.
    pub fn drain(&mut self, mut take: impl FnMut(Program)) {
        while let Some(item) = self.ring.next() {
            match decode(&item) {
                Some(program) => take(program),
                None => self.unreadable += 1,
            }
        }
    }

    /// How many were not seen since the start; `None` where the kernel does not say.
    #[must_use]
    pub fn lost(&self) -> Option<u64> {
        let values = self.lost.get(&0, 0).ok()?;
        Some(values.iter().sum::<u64>() + self.unreadable)
    }
}

fn decode(bytes: &[u8]) -> Option<Program> {
    if bytes.len() < size_of::<ProgramRecord>() {
        return None;
    }
    // SAFETY: there are as many bytes, and any of them are a record; it is copied, so that it may
    // begin anywhere.
    let record = unsafe { bytes.as_ptr().cast::<ProgramRecord>().read_unaligned() };
    let began = match record.kind {
        ProgramRecord::BEGAN => Some(Began {
            comm: name(&record.comm),
            parent: Some(name(&record.parent_comm)).filter(|name| !name.is_empty()),
            arguments: arguments(&record),
        }),
        ProgramRecord::ENDED => None,
        _ => return None,
    };
    Some(Program {
        id: ProcessId {
            pid: record.tgid,
            start_boottime_ns: record.start_boottime_ns,
        },
        boottime_ns: record.boottime_ns,
        began,
    })
}

fn name(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0);
    bytes[..end.unwrap_or(bytes.len())].to_vec()
}

fn arguments(record: &ProgramRecord) -> Option<Vec<u8>> {
    let length = usize::try_from(record.arguments_len).ok()?;
    let bytes = record
        .arguments
        .get(..length)
        .filter(|bytes| !bytes.is_empty())?;
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    Some(
        bytes
            .iter()
            .map(|byte| if *byte == 0 { b' ' } else { *byte })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ProgramRecord {
        let mut record = ProgramRecord {
            boottime_ns: 5,
            start_boottime_ns: 3,
            tgid: 77,
            kind: ProgramRecord::BEGAN,
            parent_tgid: 1,
            arguments_len: 14,
            comm: [0; 16],
            parent_comm: [0; 16],
            arguments: [0; 256],
        };
        record.comm[..7].copy_from_slice(b"pg_dump");
        record.arguments[..14].copy_from_slice(b"pg_dump\0-Fc\0x\0");
        record
    }

    fn bytes(record: &ProgramRecord) -> &[u8] {
        // SAFETY: a record is integers without padding.
        unsafe {
            std::slice::from_raw_parts((&raw const *record).cast(), size_of::<ProgramRecord>())
        }
    }

    #[test]
    fn what_began_and_what_ended() {
        let record = record();
        let program = decode(bytes(&record)).unwrap();
        let began = program.began.unwrap();
        assert_eq!(program.id.pid, 77);
        assert_eq!(began.comm, b"pg_dump");
        assert_eq!(began.parent, None);
        assert_eq!(began.arguments.unwrap(), b"pg_dump -Fc x");
        let ended = ProgramRecord {
            kind: ProgramRecord::ENDED,
            ..record
        };
        assert_eq!(decode(bytes(&ended)).unwrap().began, None);
        let unknown = ProgramRecord { kind: 9, ..record };
        assert_eq!(decode(bytes(&unknown)), None);
        assert_eq!(decode(&bytes(&record)[1..]), None);
        let lying = ProgramRecord {
            arguments_len: 257,
            ..record
        };
        assert_eq!(
            decode(bytes(&lying)).unwrap().began.unwrap().arguments,
            None
        );
    }
}

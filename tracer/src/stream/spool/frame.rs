//! How a record lies in a file: each can be found and believed by itself. Pure.

use std::ops::Range;

use memchr::memmem;

/// Begins every frame. No text in UTF-8 holds it.
const MAGIC: [u8; 4] = [0xF5, 0x54, 0x57, 0xFF];
/// Magic, length, number, checksum.
pub(super) const HEADER: usize = 4 + 4 + 8 + 4;
/// Bytes of a record at most: what says that it is longer is damaged.
pub(super) const MOST: usize = 32 << 20;

/// Adds a frame; what is too long is refused.
pub(super) fn write(out: &mut Vec<u8>, number: u64, payload: &[u8]) -> bool {
    let Ok(length) = u32::try_from(payload.len()) else {
        return false;
    };
    if payload.len() > MOST {
        return false;
    }
    out.extend(MAGIC);
    let from = out.len();
    out.extend(length.to_le_bytes());
    out.extend(number.to_le_bytes());
    let crc = checksum(&out[from..], payload);
    out.extend(crc.to_le_bytes());
    out.extend(payload);
    true
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

/// The next good frame in some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Bytes before it that are none.
    pub(super) skipped: usize,
    pub(super) number: u64,
    pub(super) payload: Range<usize>,
}

/// Finds the first frame from `at` on. Where there is none, all that is left is damaged.
pub(super) fn next(bytes: &[u8], at: usize) -> Option<Frame> {
    let mut from = at;
    loop {
        let found = from + memmem::find(bytes.get(from..)?, &MAGIC)?;
        if let Some((number, payload)) = good(bytes, found) {
            return Some(Frame {
                skipped: found - at,
                number,
                payload,
            });
        }
        from = found + 1;
    }
}

fn good(bytes: &[u8], at: usize) -> Option<(u64, Range<usize>)> {
    let header = bytes.get(at + MAGIC.len()..at + HEADER)?;
    let (head, crc) = header.split_last_chunk::<4>()?;
    let (length, number) = head.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let payload = at + HEADER..(at + HEADER).checked_add(length)?;
    let good =
        length <= MOST && checksum(head, bytes.get(payload.clone())?) == u32::from_le_bytes(*crc);
    good.then_some((u64::from_le_bytes(number.try_into().ok()?), payload))
}

/// Goes through a segment.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_segment(bytes: &[u8]) {
    let mut at = 0;
    while let Some(frame) = next(bytes, at) {
        assert!(frame.payload.end > at && frame.payload.end <= bytes.len());
        at = frame.payload.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for number in 1..=3 {
            assert!(write(
                &mut bytes,
                number,
                format!("record {number}").as_bytes()
            ));
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn numbers(bytes: &[u8]) -> Vec<u64> {
        let (mut at, mut numbers) = (0, Vec::new());
        while let Some(frame) = next(bytes, at) {
            let wanted = format!("record {}", frame.number);
            assert_eq!(&bytes[frame.payload.clone()], wanted.as_bytes());
            numbers.push(frame.number);
            at = frame.payload.end;
        }
        numbers
    }

    #[test]
    fn a_flipped_bit_costs_one_record() {
        let (bytes, ends) = three();
        assert_eq!(numbers(&bytes), [1, 2, 3]);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let hit = ends.iter().position(|end| bit / 8 < *end).unwrap() as u64 + 1;
            let left: Vec<u64> = (1..=3).filter(|number| *number != hit).collect();
            assert_eq!(numbers(&bytes), left, "bit {bit}");
        }
    }

    #[test]
    fn what_is_cut_off_costs_the_last() {
        let (bytes, ends) = three();
        for length in 0..bytes.len() {
            let whole = ends.iter().filter(|end| **end <= length).count() as u64;
            let wanted: Vec<u64> = (1..=whole).collect();
            assert_eq!(numbers(&bytes[..length]), wanted);
        }
    }
}

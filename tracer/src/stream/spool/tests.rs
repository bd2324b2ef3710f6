use super::*;

const ROOM: u64 = 1 << 20;

fn open(folder: &Path, room: u64) -> (Spool, u64, u64, Damage) {
    Spool::open(folder, room).unwrap()
}

fn append(spool: &mut Spool, numbers: std::ops::RangeInclusive<u64>) {
    let records: Vec<(u64, Vec<u8>)> = numbers.map(|number| (number, payload(number))).collect();
    spool
        .append(
            records
                .iter()
                .map(|(number, payload)| (*number, &payload[..])),
        )
        .unwrap();
}

fn payload(number: u64) -> Vec<u8> {
    format!(
        "record {number} {}",
        "x".repeat((number % 97).try_into().unwrap())
    )
    .into_bytes()
}

/// Everything after a number, read in pieces of `most`.
fn all(spool: &mut Spool, mut after: u64, most: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    loop {
        let read = spool.read(after, most, 1 << 20).unwrap();
        let Some((last, _)) = read.last() else {
            return numbers;
        };
        after = *last;
        for (number, bytes) in read {
            assert_eq!(bytes, payload(number));
            numbers.push(number);
        }
    }
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|suffix| suffix == SUFFIX))
        .collect();
    found.sort();
    found
}

#[test]
fn what_was_not_delivered_is_there_after_a_restart_and_what_was_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, arrived, waiting, damage) = open(dir.path(), ROOM);
    assert_eq!((arrived, waiting, damage), (0, 0, Damage::default()));
    for piece in 0..50 {
        append(&mut spool, piece * 100 + 1..=piece * 100 + 100);
    }
    assert!(segments(dir.path()).len() > 3);
    for most in [1, 7, 1000] {
        assert_eq!(all(&mut spool, 0, most), (1..=5000).collect::<Vec<_>>());
    }
    spool.arrived(1234).unwrap();
    // It is not closed: the process is killed.
    drop(spool);
    let (mut spool, arrived, waiting, damage) = open(dir.path(), ROOM);
    assert_eq!((arrived, waiting, damage), (1234, 3766, Damage::default()));
    append(&mut spool, 5001..=5003);
    assert_eq!(
        all(&mut spool, 1234, 100),
        (1235..=5003).collect::<Vec<_>>()
    );
    spool.arrived(5003).unwrap();
    assert!(all(&mut spool, 5003, 100).is_empty());
    append(&mut spool, 5004..=5004);
    assert_eq!(all(&mut spool, 5003, 100), [5004]);
    drop(spool);
    let (spool, arrived, waiting, _) = open(dir.path(), ROOM);
    assert_eq!((arrived, waiting, spool.last()), (5003, 1, 5004));
}

#[test]
fn two_do_not_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let one = open(dir.path(), ROOM);
    assert!(Spool::open(dir.path(), ROOM).is_err());
    drop(one);
    assert!(Spool::open(dir.path(), ROOM).is_ok());
}

#[test]
fn a_last_segment_that_is_cut_off_anywhere_costs_no_more_than_that() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, ..) = open(dir.path(), ROOM);
    append(&mut spool, 1..=400);
    append(&mut spool, 401..=800);
    append(&mut spool, 801..=812);
    drop(spool);
    let last = segments(dir.path()).pop().unwrap();
    let whole = fs::read(&last).unwrap();
    assert!(whole.len() < 10_000, "{}", whole.len());
    let mut seen = std::collections::BTreeSet::new();
    for length in 0..whole.len() {
        fs::write(&last, &whole[..length]).unwrap();
        let (mut spool, _, waiting, damage) = open(dir.path(), ROOM);
        let left = all(&mut spool, 0, 100);
        assert_eq!(left, (1..=waiting).collect::<Vec<_>>(), "{length}");
        assert!((800..812).contains(&waiting), "{waiting}");
        let mut good = 0;
        for number in 801..=waiting {
            good += frame::HEADER + payload(number).len();
        }
        assert_eq!(damage.bytes, (length - good) as u64);
        seen.insert(waiting);
        // It goes on: what is new is read behind what is left.
        let next = spool.last() + 1;
        append(&mut spool, next..=next);
        assert_eq!(all(&mut spool, waiting, 9), [next]);
        let new = segments(dir.path()).pop().unwrap();
        assert_ne!(new, last);
        fs::remove_file(new).unwrap();
    }
    assert_eq!(seen.len(), 12);
}

#[test]
fn a_flipped_bit_costs_one_record_which_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, ..) = open(dir.path(), ROOM);
    append(&mut spool, 1..=30);
    drop(spool);
    let file = segments(dir.path()).pop().unwrap();
    let whole = fs::read(&file).unwrap();
    for bit in (0..whole.len() * 8).step_by(3) {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&file, &bytes).unwrap();
        let (mut spool, _, waiting, damage) = open(dir.path(), ROOM);
        assert_eq!(waiting, 29, "bit {bit}");
        assert_eq!(all(&mut spool, 0, 8).len(), 29);
        // Whether there ever was a last record, only its own frame can say.
        assert!(damage.bytes > 0 && damage.file.is_some());
        let was_last = bytes.len() - bit / 8 <= frame::HEADER + payload(30).len();
        assert_eq!(damage.records, u64::from(!was_last), "bit {bit}");
    }
}

#[test]
fn damage_to_a_file_that_is_in_use_is_counted_too() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, ..) = open(dir.path(), ROOM);
    append(&mut spool, 1..=30);
    let file = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[frame::HEADER + 3] ^= 1;
    fs::write(&file, &bytes).unwrap();
    for most in [1, 100] {
        assert_eq!(all(&mut spool, 0, most), (2..=30).collect::<Vec<_>>());
        assert_eq!(spool.take_damage().records, 1);
    }
}

#[test]
fn the_oldest_makes_room_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let room = 128 << 10;
    let (mut spool, ..) = open(dir.path(), room);
    let mut gone = Vec::new();
    for piece in 0..100 {
        append(&mut spool, piece * 100 + 1..=piece * 100 + 100);
        gone.extend(spool.shrink());
        assert!(spool.bytes() <= room);
    }
    assert!(gone.len() > 1000);
    gone.extend(all(&mut spool, 0, 1000));
    assert_eq!(gone, (1..=10_000).collect::<Vec<_>>());
    let on_disk: u64 = segments(dir.path())
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .sum();
    assert_eq!(on_disk, spool.bytes());
}

#[test]
fn what_was_read_ahead_is_gone_with_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, ..) = open(dir.path(), 64 << 10);
    append(&mut spool, 1..=200);
    assert_eq!(spool.read(0, 10, 1 << 20).unwrap().len(), 10);
    let mut gone = Vec::new();
    for piece in 2..30 {
        append(&mut spool, piece * 100 + 1..=piece * 100 + 100);
        gone.extend(spool.shrink());
    }
    assert!(gone.contains(&11));
    let next = all(&mut spool, 10, 100);
    assert!(next.iter().all(|number| !gone.contains(number)));
}

#[test]
fn a_disk_that_is_full_takes_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, ..) = open(dir.path(), ROOM);
    append(&mut spool, 1..=3);
    // Every write to it fails for want of room.
    let full = File::options().read(true).write(true).open("/dev/full");
    let good = spool.writer.replace(full.unwrap());
    let error = spool
        .append([(4, &payload(4)[..])].into_iter())
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    spool.writer = good;
    append(&mut spool, 4..=5);
    assert_eq!(all(&mut spool, 0, 2), [1, 2, 3, 4, 5]);
    assert_eq!(spool.take_damage(), Damage::default());
    drop(spool);
    let (_, _, waiting, damage) = open(dir.path(), ROOM);
    assert_eq!((waiting, damage), (5, Damage::default()));
}

#[test]
fn files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("a/b");
    let (mut spool, ..) = open(&folder, ROOM);
    append(&mut spool, 1..=1);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&folder), 0o700);
    for file in fs::read_dir(&folder).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
}

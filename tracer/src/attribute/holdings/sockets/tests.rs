use std::{
    collections::HashMap,
    fs,
    io::{self, Read},
    net::SocketAddr,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags};

use super::{CHUNK, Family, Found, Held, MAX_BYTES, MAX_LINE, Search, SocketGroup, each_line};

/// Each inode once, but for those listed with their descriptors.
fn held(inodes: &[(u64, u64)]) -> HashMap<u64, Held> {
    inodes
        .iter()
        .map(|(inode, count)| {
            let held = Held {
                descriptor: 3,
                count: *count,
            };
            (*inode, held)
        })
        .collect()
}

fn search(process: &Path, held: &HashMap<u64, Held>) -> Found {
    let directory: OwnedFd =
        rustix::fs::open(process, OFlags::PATH, Mode::empty()).expect("opened");
    let until = Instant::now() + Duration::from_secs(10);
    Search {
        process: &directory,
        descriptors: &process.join("fd"),
        tables_until: until,
        names_until: until,
    }
    .groups(held)
}

/// A process with these tables, and all others empty.
fn process(tables: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let net = directory.path().join("net");
    fs::create_dir(&net).expect("created");
    for name in ["tcp", "tcp6", "udp", "udp6", "unix"] {
        fs::write(net.join(name), b"  sl  header\n").expect("written");
    }
    for (name, table) in tables {
        fs::write(net.join(name), table).expect("written");
    }
    directory
}

fn end(address: SocketAddr) -> String {
    let bytes = match address {
        SocketAddr::V4(address) => address.ip().octets().to_vec(),
        SocketAddr::V6(address) => address.ip().octets().to_vec(),
    };
    let words: Vec<String> = bytes
        .chunks_exact(4)
        .map(|word| {
            let word = u32::from_ne_bytes(word.try_into().expect("four bytes"));
            format!("{word:08X}")
        })
        .collect();
    format!("{}:{:04X}", words.concat(), address.port())
}

fn line(local: &str, remote: &str, state: u8, inode: u64) -> Vec<u8> {
    let [local, remote] = [local, remote].map(|it| end(it.parse().expect("an address")));
    format!("   0: {local} {remote} {state:02X} 0:0 0:0 0 0 0 {inode} 1 0 0\n").into_bytes()
}

fn place(family: Family, protocol: Option<&'static str>) -> SocketGroup {
    SocketGroup {
        family,
        protocol,
        state: None,
        remote: None,
        local_port: None,
        path: None,
        peers: 0,
        count: 1,
    }
}

fn busy() -> tempfile::TempDir {
    process(&[
        (
            "tcp",
            [
                line("0.0.0.0:6432", "0.0.0.0:0", 10, 1),
                line("10.0.0.1:80", "0.0.0.0:0", 10, 900),
                line("10.0.0.9:6432", "10.1.0.1:40000", 1, 2),
                line("10.0.0.9:6432", "10.1.0.1:40001", 1, 3),
                line("10.0.0.9:6432", "10.1.0.2:40000", 1, 4),
                line("10.0.0.9:6432", "10.1.0.2:40002", 8, 5),
                line("10.0.0.9:50000", "10.1.2.3:5432", 1, 6),
                line("10.0.0.9:50001", "10.1.2.3:5432", 1, 7),
                // Listened on, but at another address.
                line("10.0.0.2:80", "10.1.2.3:5432", 1, 8),
                line("10.0.0.1:80", "10.1.2.9:5432", 1, 9),
                // Another process's, and nobody's.
                line("10.0.0.9:50002", "10.1.2.3:5432", 1, 901),
                line("10.0.0.9:50003", "10.1.2.3:5432", 6, 0),
            ]
            .concat(),
        ),
        (
            "tcp6",
            [
                line("[::]:443", "[::]:0", 10, 20),
                line("[::ffff:10.0.0.9]:443", "[::ffff:10.1.0.7]:4000", 1, 21),
                line("[::1]:443", "[::1]:4000", 1, 22),
                line("[::ffff:10.0.0.9]:50000", "[::ffff:10.1.2.3]:5432", 8, 23),
            ]
            .concat(),
        ),
        (
            "udp",
            [
                line("10.0.0.9:50000", "10.0.0.53:53", 1, 30),
                line("0.0.0.0:50001", "0.0.0.0:0", 7, 31),
                line("0.0.0.0:50002", "0.0.0.0:0", 7, 32),
            ]
            .concat(),
        ),
    ])
}

#[test]
fn accepted_connections_are_told_from_opened_ones() {
    let process = busy();
    let inodes: Vec<(u64, u64)> = (1..=9)
        .chain(20..=23)
        .chain(30..=32)
        .map(|inode| (inode, if inode == 6 { 5 } else { 1 }))
        .collect();
    let found = search(process.path(), &held(&inodes));
    assert!(found.complete);
    let remote = |address: &str| Some(address.parse().expect("an address"));
    let tcp = |state| SocketGroup {
        state: Some(state),
        ..place(Family::Inet, Some("tcp"))
    };
    let tcp6 = |state| SocketGroup {
        state: Some(state),
        ..place(Family::Inet6, Some("tcp"))
    };
    let mut expected = [
        SocketGroup {
            remote: remote("10.1.2.3:5432"),
            // Socket 6 has five descriptors.
            count: 5 + 1 + 1,
            ..tcp("ESTABLISHED")
        },
        SocketGroup {
            local_port: Some(6_432),
            peers: 2,
            count: 3,
            ..tcp("ESTABLISHED")
        },
        SocketGroup {
            local_port: Some(6_432),
            peers: 1,
            ..tcp("CLOSE_WAIT")
        },
        SocketGroup {
            local_port: Some(6_432),
            ..tcp("LISTEN")
        },
        SocketGroup {
            local_port: Some(80),
            peers: 1,
            ..tcp("ESTABLISHED")
        },
        SocketGroup {
            local_port: Some(443),
            ..tcp6("LISTEN")
        },
        SocketGroup {
            local_port: Some(443),
            peers: 2,
            count: 2,
            ..tcp6("ESTABLISHED")
        },
        SocketGroup {
            remote: remote("10.1.2.3:5432"),
            ..tcp6("CLOSE_WAIT")
        },
        SocketGroup {
            state: Some("ESTABLISHED"),
            remote: remote("10.0.0.53:53"),
            ..place(Family::Inet, Some("udp"))
        },
        SocketGroup {
            state: Some("UNCONN"),
            count: 2,
            ..place(Family::Inet, Some("udp"))
        },
    ];
    assert_eq!(found.groups[0], expected[0], "most first");
    let mut groups = found.groups;
    groups.sort();
    expected.sort();
    assert_eq!(groups, expected);
}

#[test]
fn hostile_names_of_unix_sockets() {
    let start = "0000000000000000: 00000003 00000000 00000000 0001 03";
    let table = [
        format!("{start} 1 /run/\u{1b}[2J\n"),
        format!("{start} 2 @a@b\n"),
        format!("{start} 3\n"),
        // The name holds a newline and a line that claims socket 5.
        format!("{start} 4 /x\n{start} 5 /forged\n"),
        format!("{start} 5 /real\n"),
    ]
    .concat();
    let process = process(&[("unix", table.into_bytes())]);
    let found = search(
        process.path(),
        &held(&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]),
    );
    assert!(found.complete);
    let named = |path: Option<&[u8]>| SocketGroup {
        state: Some("ESTABLISHED"),
        path: path.map(<[u8]>::to_vec),
        ..place(Family::Unix, None)
    };
    let mut groups = found.groups;
    groups.sort();
    let mut expected = [
        named(Some(b"/run/\x1b[2J")),
        named(Some(b"\0a@b")),
        named(None),
        named(Some(b"/x")),
        place(Family::Unix, None),
    ];
    expected.sort();
    assert_eq!(groups, expected);
}

#[test]
fn what_no_table_has_is_counted() {
    let process = process(&[]);
    let found = search(process.path(), &held(&[(1, 2), (2, 3)]));
    assert!(found.complete, "all was read");
    let expected = SocketGroup {
        count: 5,
        ..place(Family::Other, None)
    };
    assert_eq!(found.groups, [expected]);
    // No IPv6 is no defect, no IPv4 is one.
    fs::remove_file(process.path().join("net/tcp6")).expect("removed");
    assert!(search(process.path(), &held(&[(1, 1)])).complete);
    fs::remove_file(process.path().join("net/tcp")).expect("removed");
    assert!(!search(process.path(), &held(&[(1, 1)])).complete);
    // No sockets, no tables.
    assert!(search(process.path(), &HashMap::new()).complete);
}

#[test]
fn a_table_that_is_cut_off_is_not_complete() {
    let whole = line("10.0.0.9:50000", "10.1.2.3:5432", 1, 7_777);
    let second = line("10.0.0.9:50001", "10.1.2.3:5432", 1, 8_888);
    for length in 1..second.len() {
        let table = [&whole[..], &second[..length]].concat();
        let process = process(&[("tcp", table)]);
        let found = search(process.path(), &held(&[(7_777, 1), (8_888, 1)]));
        assert!(!found.complete, "{length}");
        let counts: Vec<u64> = found.groups.iter().map(|group| group.count).collect();
        assert_eq!(counts, [1, 1], "{length}");
        // Nothing was needed but what was there.
        assert!(search(process.path(), &held(&[(7_777, 1)])).complete);
    }
}

#[test]
fn rubbish_is_read_past() {
    let mut table = vec![0xff, b'\n', 0, b'\n', b'\n', b' ', b'\n'];
    table.extend_from_slice(&[b'x'; MAX_LINE - CHUNK]);
    table.push(b'\n');
    table.extend(line("10.0.0.9:50000", "10.1.2.3:5432", 1, 7));
    let process = process(&[("tcp", table)]);
    let found = search(process.path(), &held(&[(7, 1)]));
    assert!(found.complete);
    assert_eq!(found.groups[0].state, Some("ESTABLISHED"));
}

/// Lines of 1 KiB, without an end.
struct Lines;

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let line = &mut buffer[..1 << 10];
        line.fill(b'x');
        line[(1 << 10) - 1] = b'\n';
        Ok(line.len())
    }
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("broken"))
    }
}

#[test]
fn reading_is_bounded() {
    let soon = || Instant::now() + Duration::from_secs(30);
    // Without an end, and without lines.
    assert!(!each_line(io::repeat(b'x'), soon(), |_| true).expect("read"));
    let mut lines = 0_u64;
    let counted = each_line(Lines, soon(), |line| {
        lines += line.len() as u64 + 1;
        true
    });
    assert!(!counted.expect("read"));
    assert_eq!(lines, MAX_BYTES);
    let mut lines = 0;
    let enough = each_line(io::repeat(b'\n'), soon(), |_| {
        lines += 1;
        lines < 3
    });
    assert!(enough.expect("read"));
    assert_eq!(lines, 3);
    assert!(!each_line(io::repeat(b'\n'), Instant::now(), |_| true).expect("read"));
    assert!(each_line(&b"a\nb\n"[..], soon(), |_| true).expect("read"));
    assert!(each_line(Broken, soon(), |_| true).is_err());
}

use std::net::SocketAddr;

use unicode_width::UnicodeWidthStr as _;

use super::{INDENT, LEAK, PATH_WIDTH, describe, lines, shown};
use crate::{
    attribute::holdings::{Family, Holdings, Kind, SocketGroup},
    sink::text::{Look, Text},
};

fn to(state: &'static str, count: u64) -> SocketGroup {
    SocketGroup {
        remote: Some(SocketAddr::from(([10, 1, 2, 3], 5_432))),
        ..SocketGroup::of_tcp(Some(state), count)
    }
}

fn pooler() -> Holdings {
    Holdings {
        total: 1_024,
        kinds: vec![
            (Kind::Socket, 1_002),
            (Kind::File, 12),
            (Kind::Pipe, 6),
            (Kind::Other, 4),
        ],
        groups: vec![
            to("ESTABLISHED", 812),
            SocketGroup {
                local_port: Some(6_432),
                peers: 3,
                ..SocketGroup::of_tcp(Some("CLOSE_WAIT"), 190)
            },
        ],
        files: vec![(b"/var/log/x".to_vec(), 3)],
        complete: true,
    }
}

fn rendered(holdings: &Holdings) -> String {
    lines(&Text::default(), holdings).join("\n")
}

#[test]
fn a_leak_is_told_from_load() {
    assert_eq!(
        rendered(&pooler()),
        "  held:    1002 sockets, 12 files, 6 pipes, 4 other\n           \
                    812 to 10.1.2.3:5432 ESTABLISHED\n           \
                    190 on :6432 from 3 peers CLOSE_WAIT  \
            (closed by the peer, not by the program: a leak if it lasts)"
    );
    let terminal = Text::new(Look {
        terminal: true,
        ..Look::default()
    });
    let first = &lines(&terminal, &pooler())[0];
    assert_eq!(
        first,
        "  held:    1,002 sockets, 12 files, 6 pipes, 4 other"
    );
}

#[test]
fn many_places_are_added_up_by_state() {
    let mut holdings = pooler();
    // Each to a place of its own: none has many.
    holdings.groups = (0..900_u16)
        .map(|port| SocketGroup {
            remote: Some(SocketAddr::from(([10, 1, 2, 3], 5_000 + port))),
            ..SocketGroup::of_tcp(
                Some(if port < 100 {
                    "ESTABLISHED"
                } else {
                    "CLOSE_WAIT"
                }),
                1,
            )
        })
        .collect();
    holdings.groups.push(SocketGroup::of_tcp(None, 7));
    let lines = lines(&Text::default(), &holdings);
    assert_eq!(lines.len(), 5);
    assert_eq!(
        lines[4],
        format!("{INDENT}904 in 898 more groups: 800 CLOSE_WAIT, 97 ESTABLISHED, 7 other{LEAK}")
    );
}

#[test]
fn a_line_for_each_group_that_fits() {
    let mut holdings = pooler();
    holdings.groups.push(to("SYN_SENT", 2));
    holdings.groups.push(SocketGroup::of_tcp(Some("LISTEN"), 1));
    let lines = lines(&Text::default(), &holdings);
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[4], format!("{INDENT}1 LISTEN"));
}

#[test]
fn never_more_than_six_lines_and_one_explanation() {
    let mut holdings = pooler();
    holdings.groups = (0..9).map(|_| to("CLOSE_WAIT", 100)).collect();
    holdings.files = vec![(b"/var/log/x".to_vec(), 900)];
    let lines = lines(&Text::default(), &holdings);
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[5], format!("{INDENT}900 of /var/log/x"));
    assert_eq!(lines.join("").matches(LEAK).count(), 1);
}

#[test]
fn what_was_not_looked_at_is_said() {
    let cut = |total, kinds: &[(Kind, u64)]| {
        rendered(&Holdings {
            total,
            kinds: kinds.to_vec(),
            ..Holdings::default()
        })
    };
    let sockets = [(Kind::Socket, 50_000)];
    assert_eq!(
        cut(1_000_000, &sockets),
        "  held:    50000 sockets  (of the first 50000; 1000000 in all)"
    );
    assert_eq!(
        cut(50_000, &sockets),
        "  held:    50000 sockets  (not all could be looked at)"
    );
    assert_eq!(
        cut(812, &[]),
        "  held:    812 descriptors; there was no time to look at them"
    );
    assert_eq!(cut(0, &[]), "  held:    not known");
    let empty = Holdings {
        complete: true,
        ..Holdings::default()
    };
    assert_eq!(rendered(&empty), "  held:    nothing");
}

#[test]
fn kinds_beyond_the_fourth_are_other() {
    let holdings = Holdings {
        total: 20,
        kinds: vec![
            (Kind::EventFd, 9),
            (Kind::Other, 4),
            (Kind::BpfObject, 3),
            (Kind::EventPoll, 1),
            (Kind::Inotify, 1),
            (Kind::Device, 1),
            (Kind::Memfd, 1),
        ],
        complete: true,
        ..Holdings::default()
    };
    assert_eq!(
        rendered(&holdings),
        "  held:    9 eventfds, 3 BPF objects, 1 epoll, 1 inotify instance, 6 other"
    );
}

#[test]
fn groups() {
    let inet = SocketAddr::from(([0; 16], 53));
    for (expected, group) in [
        ("to 10.1.2.3:5432 SYN_SENT", to("SYN_SENT", 1)),
        (
            "on :80 LISTEN",
            SocketGroup {
                local_port: Some(80),
                ..SocketGroup::of_tcp(Some("LISTEN"), 1)
            },
        ),
        (
            "on :80 from 1 peer FIN_WAIT2",
            SocketGroup {
                local_port: Some(80),
                peers: 1,
                ..SocketGroup::of_tcp(Some("FIN_WAIT2"), 1)
            },
        ),
        (
            "udp to [::]:53 ESTABLISHED",
            SocketGroup {
                family: Family::Inet6,
                protocol: Some("udp"),
                remote: Some(inet),
                ..SocketGroup::of_tcp(Some("ESTABLISHED"), 1)
            },
        ),
        (
            "tcp not connected, or of another network namespace",
            SocketGroup::of_tcp(None, 1),
        ),
        (
            "unix @evil\\x1b[2J\\n ESTABLISHED",
            SocketGroup {
                family: Family::Unix,
                protocol: None,
                path: Some(b"\0evil\x1b[2J\n".to_vec()),
                ..SocketGroup::of_tcp(Some("ESTABLISHED"), 1)
            },
        ),
        (
            "netlink",
            SocketGroup {
                family: Family::Netlink,
                protocol: None,
                ..SocketGroup::of_tcp(None, 1)
            },
        ),
        (
            "sockets of an unknown kind",
            SocketGroup {
                family: Family::Other,
                protocol: None,
                ..SocketGroup::of_tcp(None, 1)
            },
        ),
    ] {
        assert_eq!(describe(&group), expected);
    }
}

#[test]
fn paths_are_safe_and_not_long() {
    assert_eq!(shown(b"/var/log/x"), "/var/log/x");
    let long = [&b"/a".repeat(2_000)[..], b"/name"].concat();
    let short = shown(&long);
    assert!(
        short.starts_with('…') && short.ends_with("/a/name"),
        "{short}"
    );
    assert_eq!(short.width(), PATH_WIDTH);
    let wide = shown("/日本".repeat(100).as_bytes());
    assert!(
        wide.width() <= PATH_WIDTH && wide.ends_with("日本"),
        "{wide}"
    );
    let mut holdings = pooler();
    for byte in 0..=u8::MAX {
        let path = vec![b'/', byte, b'\xc2', byte, b'['];
        holdings.files = vec![(path.clone(), 1_000)];
        holdings.groups[0].path = Some(path);
        for line in lines(&Text::default(), &holdings) {
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }
}

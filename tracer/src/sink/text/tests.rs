//! What people see.

use std::{net::SocketAddr, time::Duration};

use jiff::tz::TimeZone;
use turnaway_common::Reason;
use unicode_width::UnicodeWidthStr as _;

use super::{Look, Text, cut};
use crate::{
    advice::Advice,
    attribute::{Parent, Who},
    event::{Address, Failure, Op},
    record::{
        Failures, Hook, HookState, Lost, Run,
        samples::{self, AT_NS, clock},
    },
};

fn look() -> Look {
    Look {
        color: false,
        terminal: true,
        width: None,
        zone: TimeZone::UTC,
        rows: 20,
        ..Look::default()
    }
}

fn plain() -> Text {
    Text::new(look())
}

fn bare() -> (Failure, Who) {
    let (mut failure, who) = samples::rich();
    failure.peer = None;
    failure.waited_ns = None;
    let who = samples::changed(who, |_, identity| {
        identity.container = None;
        identity.ns_pid = None;
    });
    (failure, who)
}

fn failures<'a>(failure: &'a Failure, who: &'a Who, count: u64) -> Failures<'a> {
    Failures {
        key: &failure.key,
        listener: &failure.listener,
        who,
        count,
        first_ns: AT_NS - 1_000_000_000,
        last_ns: AT_NS,
        waited_max_ns: None,
        approximate: false,
    }
}

fn run<'a>(totals: &'a [Failures<'a>], lost: Lost, hooks: &'a [Hook]) -> Run<'a> {
    Run {
        ended: clock().wall_of_monotonic(AT_NS),
        duration: Duration::from_millis(90_500),
        totals,
        other: 0,
        lost,
        hooks,
        listeners: &[],
    }
}

const NOTHING_LOST: Lost = Lost {
    ring: 0,
    map: 0,
    missed: Some(0),
    output: 0,
};

#[test]
fn header_and_event_line_up() {
    let (failure, who) = bare();
    assert_eq!(
        [
            plain().header(),
            plain().event(&failure, &who, Some(1_024), &clock())
        ],
        [
            "TIME         REASON             ERRNO    PID     COMM            LISTENER             \
             QUEUE     FDS         UNIT",
            "03:12:04.123 accept.emfile      EMFILE   812     pgbouncer       tcp 0.0.0.0:6432     \
             129/128   1024/1024   pgbouncer.service",
        ]
    );
}

#[test]
fn a_failed_connect_points_at_its_target() {
    let (failure, who) = samples::of_connect(Reason::ConnectRefused);
    let line = plain().event(&failure, &who, None, &clock());
    assert!(line.contains(" -> tcp 10.1.2.3:5432 "), "{line}");
    let totals = [failures(&failure, &who, 9)];
    let more = plain().more(&totals[0], 8, Duration::from_secs(1));
    assert!(
        more.contains("by pgbouncer[812] -> tcp 10.1.2.3:5432 in"),
        "{more}"
    );
    let (failure, who) = samples::of_connect(Reason::QueueUnixFull);
    let line = plain().event(&failure, &who, None, &clock());
    assert!(line.contains(" -> unix /run/fpm.sock "), "{line}");
    assert!(line.ends_with(" served by php-fpm8.2[871]"), "{line}");
}

#[test]
fn unknown_is_a_dash() {
    let (failure, who) = samples::minimal();
    assert_eq!(
        plain().event(&failure, &who, None, &clock()),
        "03:12:04.123 accept.other       E4000    1       -               -                    \
         -         -           -"
    );
}

#[test]
fn pids_and_limits_say_what_they_are() {
    let (mut failure, who) = samples::rich();
    let who = samples::changed(who, |process, identity| {
        process.nofile = process.nofile.map(|mut limit| {
            limit.copied = true;
            limit
        });
        identity.exited = true;
    });
    let line = plain().event(&failure, &who, None, &clock());
    assert!(line.contains(" 812(7) "), "{line}");
    assert!(line.contains(" -/1024(armed) "), "{line}");
    let end = " shop/pooler-0/pooler (exited) waited 612 ms from 10.1.2.3:40000";
    assert!(line.ends_with(end), "{line}");
    failure.key.reason = Reason::QueueStalled;
    failure.waited_ns = Some(12_340_000_000);
    let line = plain().event(&failure, &who, None, &clock());
    assert!(line.contains(" for 12.3 s from "), "{line}");
    failure.ended = true;
    let line = plain().event(&failure, &who, None, &clock());
    assert!(line.contains(" ended after 12.3 s from "), "{line}");
    let (hostile, who) = samples::hostile();
    let line = plain().event(&hostile, &who, Some(3), &clock());
    assert!(line.contains(" 3/unlimited(armed) "), "{line}");
}

#[test]
fn long_cells_push_and_the_last_is_cut() {
    let (mut failure, who) = bare();
    failure.listener.address = Some(Address::Inet(SocketAddr::from(([0xffff; 8], 65_535))));
    failure.listener.family = Some(10);
    let who = samples::changed(who, |_, identity| {
        identity.unit = Some("a-unit-with-quite-a-long-name.service".to_owned());
    });
    let text = |width| {
        Text::new(Look {
            width: Some(width),
            ..look()
        })
    };
    let line = text(154).event(&failure, &who, Some(1), &clock());
    assert!(
        line.contains(" tcp6 [ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535 129/128 "),
        "{line}"
    );
    assert_eq!(line.width(), 154);
    assert!(line.ends_with(" a-unit-with-q…"), "{line}");
    let narrow = text(20).event(&failure, &who, Some(1), &clock());
    assert!(narrow.ends_with(" a-unit-with…"), "{narrow}");
}

#[test]
fn columns_are_those_that_are_asked_for_in_their_order() {
    let (failure, who) = bare();
    let text = |columns: &[usize], dates| {
        Text::new(Look {
            columns: columns.to_vec(),
            dates,
            ..look()
        })
    };
    let few = text(&[8, 3, 1], false);
    assert_eq!(few.header(), "UNIT                     PID     REASON");
    assert_eq!(
        few.event(&failure, &who, Some(1), &clock()),
        "pgbouncer.service        812     accept.emfile"
    );
    assert_eq!(
        text(&[0, 3], true).event(&failure, &who, Some(1), &clock()),
        "2026-11-24T03:12:04.123+00:00 812"
    );
    assert_eq!(text(&[], false).header(), plain().header());
    let names = Text::columns();
    assert_eq!((names[0], names[8]), ("TIME", "UNIT"));
}

#[test]
fn cutting_counts_columns() {
    assert_eq!(cut("abc", 3), "abc");
    assert_eq!(cut("abcd", 3), "ab…");
    // Each of these takes two columns.
    assert_eq!(cut("日本語", 6), "日本語");
    assert_eq!(cut("日本語", 5), "日本…");
    assert_eq!(cut("日本語", 4), "日…");
}

#[test]
fn the_rest_is_one_exact_line() {
    let (failure, who) = bare();
    let failures = failures(&failure, &who, 12_400);
    let more = |text: &Text, period| text.more(&failures, 12_345, period);
    assert_eq!(
        more(&plain(), Duration::from_millis(1_001)),
        "… and 12,345 more accept.emfile by pgbouncer[812] on tcp 0.0.0.0:6432 in the last second"
    );
    let file = Text::new(Look {
        terminal: false,
        ..look()
    });
    assert_eq!(
        more(&file, Duration::from_millis(2_600)),
        "… and 12345 more accept.emfile by pgbouncer[812] on tcp 0.0.0.0:6432 in the last 3 s"
    );
}

#[test]
fn what_a_full_table_dropped_names_its_namespace() {
    let (failure, who) = samples::of_conntrack();
    let failures = failures(&failure, &who, 37);
    let line = plain().polled(&failures, 37, Duration::from_secs(1), &clock());
    assert_eq!(
        line.split_whitespace().collect::<Vec<_>>()[1..],
        [
            "net.conntrack_full",
            "-",
            "-",
            "-",
            "net:[4026531840]",
            "129/128",
            "-",
            "-",
            "37",
            "in",
            "the",
            "last",
            "second"
        ]
    );
    assert_eq!(plain().whose(&failures), "net:[4026531840]");
}

#[test]
fn separators_are_for_people() {
    for (number, shown) in [
        (0, "0"),
        (999, "999"),
        (1_000, "1,000"),
        (1_234_567, "1,234,567"),
        (u64::MAX, "18,446,744,073,709,551,615"),
    ] {
        assert_eq!(plain().number(number), shown);
    }
}

#[test]
fn advice_is_a_line_for_each_part() {
    let advice = Advice {
        now: Some("prlimit".to_owned()),
        lasting: None,
        note: Some("look".to_owned()),
    };
    assert_eq!(
        plain().advice(&advice),
        "  now:     prlimit\n  note:    look"
    );
}

#[test]
fn a_summary() {
    let (first, who) = bare();
    // The same listener through io_uring: another key, one row.
    let mut uring = first.clone();
    uring.key.op = Op::IoUring;
    let mut other = first.clone();
    other.key.process = Some(samples::PROCESS).map(|id| crate::event::ProcessId { pid: 9, ..id });
    other.key.reason = Reason::AcceptAborted;
    other.key.errno = Some(103);
    let mut haproxy = samples::changed(who.clone(), |process, _| {
        process.comm = b"haproxy".to_vec();
    });
    if let Some(party) = &mut haproxy.party {
        party.id.pid = 9;
    }
    let earlier = Failures {
        first_ns: AT_NS - 60_000_000_000,
        ..failures(&uring, &who, 1)
    };
    let totals = [
        failures(&other, &haproxy, 7),
        failures(&first, &who, 12_344),
        earlier,
    ];
    let hooks = samples::hooks();
    let summary = plain().summary(&run(&totals, NOTHING_LOST, &hooks), &clock());
    assert_eq!(
        summary.lines().collect::<Vec<_>>(),
        [
            "12,352 failures in 90.5 s",
            "   COUNT  REASON          ERRNO         PROCESS         LISTENER          \
             FIRST         LAST          UNIT",
            "  12,345  accept.emfile   EMFILE        pgbouncer[812]  tcp 0.0.0.0:6432  \
             03:11:04.123  03:12:04.123  pgbouncer.service",
            "       7  accept.aborted  ECONNABORTED  haproxy[9]      tcp 0.0.0.0:6432  \
             03:12:03.123  03:12:04.123  pgbouncer.service",
            "Nothing was lost of what was watched; what was not is named below.",
            "Hook accept: fexit/__sys_accept4 (trampoline)",
            "Hook io_uring_accept: NOT SEEN: io_accept is not in this kernel's BTF",
        ]
    );
}

#[test]
fn rows_that_are_not_shown_are_counted() {
    let (failure, who) = bare();
    let many: Vec<(Failure, Who)> = (1..=5)
        .map(|pid| {
            let (mut failure, mut who) = (failure.clone(), who.clone());
            if let Some(party) = &mut who.party {
                party.id.pid = pid;
                failure.key.process = Some(party.id);
            }
            (failure, who)
        })
        .collect();
    let totals: Vec<_> = (1..)
        .zip(&many)
        .map(|(count, (failure, who))| failures(failure, who, count))
        .collect();
    let text = Text::new(Look { rows: 2, ..look() });
    let run = Run {
        other: 30,
        ..run(&totals, NOTHING_LOST, &[])
    };
    let summary = text.summary(&run, &clock());
    let lines: Vec<&str> = summary.lines().collect();
    assert_eq!(lines[0], "45 failures in 90.5 s");
    assert!(lines[2].contains("pgbouncer[5]") && lines[3].contains("pgbouncer[4]"));
    assert_eq!(
        lines[4..6],
        [
            "  … and 6 more of other processes, listeners or reasons (3)",
            "  … and 30 more of processes and listeners too many to be told apart",
        ]
    );
}

#[test]
fn a_long_run_shows_dates() {
    let (failure, who) = bare();
    let totals = [failures(&failure, &who, 1)];
    let run = Run {
        duration: Duration::from_hours(13),
        ..run(&totals, NOTHING_LOST, &[])
    };
    let summary = plain().summary(&run, &clock());
    assert!(summary.starts_with("1 failure in "), "{summary}");
    assert!(
        summary.contains(" 2026-11-24 03:12:03  2026-11-24 03:12:04 "),
        "{summary}"
    );
}

#[test]
fn what_was_lost_is_said() {
    let says = |lost| plain().summary(&run(&[], lost, &[]), &clock());
    assert_eq!(
        says(NOTHING_LOST),
        "No failure was counted in 90.5 s\nNothing was lost: the totals are exact."
    );
    let unknown = says(Lost::default());
    assert!(unknown.contains("No loss was noticed.") && unknown.contains("not known"));
    let all = says(Lost {
        ring: 1,
        map: 2_000,
        missed: Some(3),
        output: 4,
    });
    for words in [
        "LOST: 2,000 failures",
        "left out 3 runs",
        "lost: 1 failures",
        "lost: 4 lines",
    ] {
        assert!(all.contains(words), "{words}: {all}");
    }
    assert!(!all.contains("Nothing was lost") && !all.contains("not known"));
    let both = says(Lost {
        ring: 1,
        ..Lost::default()
    });
    assert!(
        !both.contains("No loss") && both.contains("not known"),
        "{both}"
    );
}

#[test]
fn colours_change_nothing_but_colour() {
    let colored = Text::new(Look {
        color: true,
        ..look()
    });
    let (failure, who) = bare();
    let totals = [failures(&failure, &who, 1)];
    let hooks = samples::hooks();
    let run = run(&totals, Lost::default(), &hooks);
    for (with, without) in [
        (colored.header(), plain().header()),
        (
            colored.event(&failure, &who, None, &clock()),
            plain().event(&failure, &who, None, &clock()),
        ),
        (
            colored.summary(&run, &clock()),
            plain().summary(&run, &clock()),
        ),
    ] {
        assert!(with.contains("\x1b["));
        assert_eq!(strip_colours(&with), without);
    }
}

/// Removes `ESC [ digits and semicolons m`, and nothing else.
fn strip_colours(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        out.push_str(before);
        let code = after.find(|char: char| !char.is_ascii_digit() && char != ';');
        let end = code
            .filter(|at| after[*at..].starts_with('m'))
            .expect("a colour");
        rest = &after[end + 1..];
    }
    out + rest
}

/// Bytes from a generator (Knuth's MMIX constants), biased to what terminals act on.
fn noise(state: &mut u64) -> Vec<u8> {
    let mut next = || {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*state >> 56) as u8
    };
    let length = next() % 24;
    (0..length)
        .map(|_| match next() % 6 {
            0 => 0x1b,
            1 => next() % 0x20,
            2 => 0x80 | (next() % 0x20),
            3 => 0xc2,
            _ => next(),
        })
        .collect()
}

#[test]
fn no_bytes_from_outside_reach_the_terminal_as_control_characters() {
    let mut state = 7;
    let (failure, who) = samples::rich();
    for _ in 0..2_000 {
        let (mut failure, who) = (failure.clone(), who.clone());
        failure.listener.family = Some(1);
        failure.listener.address = Some(Address::Unix(noise(&mut state)));
        let text = |state: &mut u64| String::from_utf8_lossy(&noise(state)).into_owned();
        let who = samples::changed(who, |process, identity| {
            process.comm = noise(&mut state);
            process.thread_comm = noise(&mut state);
            identity.exe = Some(noise(&mut state));
            identity.cgroup = Some(noise(&mut state));
            identity.parent = Some(Parent {
                pid: 1,
                comm: Some(noise(&mut state)),
            });
            match state >> 62 {
                0 => identity.container = None,
                1 => {
                    identity.container = None;
                    identity.unit = None;
                }
                _ => {
                    let container = identity.container.as_mut().expect("a container");
                    container.name = Some(text(&mut state));
                    container.pod = None;
                }
            }
        });
        let hooks = [Hook {
            name: text(&mut state),
            tier: None,
            target: Some(text(&mut state)),
            status: HookState::Attached,
            missed: Some(1),
            detail: Some(text(&mut state)),
        }];
        let advice = Advice {
            now: Some(text(&mut state)),
            lasting: None,
            note: Some(text(&mut state)),
        };
        let totals = [failures(&failure, &who, 1)];
        for shown in [
            plain().event(&failure, &who, None, &clock()),
            plain().more(&totals[0], 1, Duration::from_secs(1)),
        ] {
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
        }
        for (shown, lines) in [
            (
                plain().summary(&run(&totals, NOTHING_LOST, &hooks), &clock()),
                5,
            ),
            (plain().advice(&advice), 2),
        ] {
            assert_eq!(shown.lines().count(), lines, "{shown:?}");
            assert!(
                !shown.chars().any(|char| char.is_control() && char != '\n'),
                "{shown:?}"
            );
        }
    }
}

#[test]
fn descriptors_are_shown_with_what_asked_for_them() {
    let line = |reason, ended| {
        let (mut failure, who) = samples::of_descriptors(reason);
        failure.ended = ended;
        let used = failure.descriptors.map(|descriptors| descriptors.used);
        plain().event(&failure, &who, used.or(Some(1_024)), &clock())
    };
    let exhausted = line(Reason::FdExhausted, false);
    for part in [
        "fd.exhausted",
        "EMFILE",
        "pgbouncer",
        "openat()",
        "1024/1024",
    ] {
        assert!(exhausted.contains(part), "{part}: {exhausted}");
    }
    let near = line(Reason::FdPressure, false);
    for part in ["fd.pressure", "from 90 %", "930/1024"] {
        assert!(near.contains(part), "{part}: {near}");
    }
    assert!(line(Reason::FdPressure, true).ends_with("has room again"));
    let table = line(Reason::FdTablePressure, false);
    for part in ["fd.table_pressure", "930/1024", "(the whole host)"] {
        assert!(table.contains(part), "{part}: {table}");
    }
}

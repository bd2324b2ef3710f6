//! Advice is typed by people as root: it must be right.

use turnaway_common::Reason;

use super::{Advice, Advised, System, advise, shell_word};
use crate::{
    attribute::{Container, Identity, NofileLimits, Runtime},
    event::{NofileLimit, Op},
    record::samples,
};

const DEFAULTS: System = System {
    file_max: Some(400_000),
    nr_open: Some(1_048_576),
};

fn about(identity: &Identity, soft: u64) -> Advised<'_> {
    Advised {
        pid: 812,
        identity,
        errno: 24,
        op: Op::Syscall,
        nofile: Some(NofileLimit {
            soft: Some(soft),
            copied: false,
        }),
        limits: None,
        system: DEFAULTS,
    }
}

fn unit(unit: &str) -> Identity {
    Identity {
        unit: Some(unit.to_owned()),
        ..Identity::default()
    }
}

fn container(runtime: Option<Runtime>) -> Identity {
    let (_, identity) = samples::rich_parts();
    Identity {
        unit: None,
        container: identity.container.map(|container| Container {
            runtime,
            ..container
        }),
        ..Identity::default()
    }
}

fn emfile(about: &Advised<'_>) -> Advice {
    advise(Reason::AcceptEmfile, about)
}

fn now(about: &Advised<'_>) -> String {
    emfile(about).now.expect("a command")
}

fn lasting(identity: &Identity) -> String {
    emfile(&about(identity, 1_024)).lasting.expect("a way")
}

#[test]
fn a_service_at_its_limit() {
    let identity = unit("pgbouncer.service");
    let advice = emfile(&about(&identity, 1_024));
    assert_eq!(
        advice.now.as_deref(),
        Some("prlimit --pid 812 --nofile=65535:65535")
    );
    assert_eq!(
        advice.lasting.as_deref(),
        Some(
            "LimitNOFILE=65535 in pgbouncer.service (systemctl edit pgbouncer.service && \
             systemctl restart pgbouncer.service)"
        )
    );
}

#[test]
fn a_hard_limit_is_never_lowered() {
    let identity = Identity::default();
    let with = |hard| Advised {
        limits: Some(NofileLimits {
            soft: Some(1_024),
            hard,
        }),
        ..about(&identity, 1_024)
    };
    assert_eq!(
        now(&with(Some(524_288))),
        "prlimit --pid 812 --nofile=65535:"
    );
    assert_eq!(now(&with(None)), "prlimit --pid 812 --nofile=65535:");
    assert_eq!(
        now(&with(Some(4_096))),
        "prlimit --pid 812 --nofile=65535:65535"
    );
}

#[test]
fn what_is_advised_is_more_than_what_failed_and_possible() {
    let identity = Identity::default();
    for (soft, command) in [
        (0, "prlimit --pid 812 --nofile=65535:65535"),
        (65_535, "prlimit --pid 812 --nofile=262140:262140"),
        (500_000, "prlimit --pid 812 --nofile=1048576:1048576"),
        (
            1_048_576,
            "sysctl -w fs.nr_open=2097152 && prlimit --pid 812 --nofile=2097152:2097152",
        ),
    ] {
        assert_eq!(now(&about(&identity, soft)), command, "{soft}");
    }
    let unlimited = Advised {
        nofile: Some(NofileLimit {
            soft: None,
            copied: false,
        }),
        ..about(&identity, 0)
    };
    assert_eq!(now(&unlimited), "sysctl -w fs.nr_open=2097152");
    let unknown = Advised {
        nofile: None,
        system: System::default(),
        ..about(&identity, 0)
    };
    assert_eq!(now(&unknown), "prlimit --pid 812 --nofile=65535:65535");
}

#[test]
fn nothing_can_be_typed_for_a_process_that_is_gone() {
    let identity = Identity {
        exited: true,
        ..unit("web.service")
    };
    let advice = emfile(&about(&identity, 1_024));
    assert_eq!(advice.now, None);
    assert!(advice.lasting.is_some());
}

#[test]
fn an_armed_accept_keeps_its_limit() {
    let identity = Identity::default();
    let mut about = about(&identity, 1_024);
    let says = |about: &Advised<'_>| {
        emfile(about)
            .note
            .is_some_and(|note| note.contains("armed"))
    };
    assert!(!says(&about));
    about.nofile = Some(NofileLimit {
        soft: Some(1_024),
        copied: true,
    });
    assert!(says(&about));
}

#[test]
fn the_limit_is_set_where_it_comes_from() {
    let user = Identity {
        user_unit: true,
        ..unit("web.service")
    };
    assert_eq!(
        lasting(&user),
        "LimitNOFILE=65535 in web.service (systemctl --user edit web.service && \
         systemctl --user restart web.service)"
    );
    // Scopes take no LimitNOFILE.
    assert!(lasting(&unit("session-3.scope")).starts_with("ulimit -n 65535"));
    assert!(lasting(&Identity::default()).starts_with("ulimit -n 65535"));
    for (runtime, words) in [
        (
            Some(Runtime::Docker),
            "docker run --ulimit nofile=65535:65535",
        ),
        (
            Some(Runtime::Podman),
            "podman run --ulimit nofile=65535:65535",
        ),
        (
            Some(Runtime::Containerd),
            "LimitNOFILE=65535 in containerd.service",
        ),
        (
            Some(Runtime::Crio),
            "default_ulimits = [\"nofile=65535:65535\"]",
        ),
        (Some(Runtime::Lxc), "lxc.prlimit.nofile = 65535"),
        (None, "nofile=65535:65535"),
    ] {
        let lasting = lasting(&container(runtime));
        assert!(lasting.starts_with(words), "{lasting}");
    }
    let inside = Identity {
        unit: Some("nginx.service".to_owned()),
        ..container(Some(Runtime::Lxc))
    };
    assert!(lasting(&inside).contains("inside container"));
}

#[test]
fn units_with_odd_names_are_quoted() {
    let lasting = lasting(&unit(r"a\x2db.service"));
    assert!(
        lasting.contains(r"systemctl edit 'a\x2db.service'"),
        "{lasting}"
    );
    assert_eq!(shell_word("a b"), "'a b'");
    assert_eq!(shell_word("it's"), r"'it'\''s'");
    assert_eq!(shell_word(""), "''");
}

#[test]
fn a_full_file_table() {
    let identity = Identity::default();
    let enfile = |file_max, op| {
        let about = Advised {
            op,
            system: System {
                file_max,
                ..DEFAULTS
            },
            ..about(&identity, 1_024)
        };
        advise(Reason::AcceptEnfile, &about)
    };
    let advice = enfile(Some(400_000), Op::Syscall);
    assert_eq!(advice.now.as_deref(), Some("sysctl -w fs.file-max=800000"));
    assert!(
        advice
            .lasting
            .is_some_and(|it| it.starts_with("fs.file-max = 800000 in "))
    );
    // systemd's default cannot be what ran out, and cannot be doubled.
    let advice = enfile(Some(i64::MAX.unsigned_abs()), Op::Syscall);
    assert!(advice.now.is_some_and(|now| now.starts_with("dmesg")));
    assert_eq!(advice.lasting, None);
    let advice = enfile(None, Op::IoUring);
    assert_eq!(advice.now.as_deref(), Some("sysctl fs.file-nr fs.file-max"));
    assert!(advice.note.is_some_and(|note| note.contains("fixed files")));
}

#[test]
fn every_reason_has_advice_in_single_safe_lines() {
    for (failure, who) in [samples::rich(), samples::minimal(), samples::hostile()] {
        let party = who.party.expect("its process");
        let accept = Reason::ALL
            .iter()
            // What is inferred has no errno, and its advice is with the listeners'.
            .filter(|reason| reason.code().starts_with("accept."))
            .filter(|reason| **reason != Reason::AcceptShed);
        for reason in accept {
            let about = Advised {
                pid: party.id.pid,
                identity: &party.identity,
                errno: failure.key.errno.expect("an errno"),
                op: failure.key.op,
                nofile: party.facts.nofile,
                limits: None,
                system: System::default(),
            };
            let advice = advise(*reason, &about);
            assert_ne!(advice, Advice::default(), "{reason:?}");
            for line in [advice.now, advice.lasting, advice.note]
                .into_iter()
                .flatten()
            {
                assert!(!line.chars().any(char::is_control), "{line:?}");
                assert!(!line.contains("  "), "{line:?}");
            }
        }
    }
}

#[test]
fn misuse_is_told_apart_by_errno() {
    let identity = Identity::default();
    let note = |errno| {
        let about = Advised {
            errno,
            ..about(&identity, 1)
        };
        advise(Reason::AcceptMisuse, &about).note.expect("a note")
    };
    assert!(note(22).starts_with("EINVAL: ") && note(22).contains("graceful stop"));
    assert!(note(9).starts_with("EBADF: ") && note(9).contains("closed"));
    let notes: std::collections::BTreeSet<String> = [9, 14, 22, 88, 95].map(note).into();
    assert_eq!(notes.len(), 5);
}

#[test]
fn the_hosts_limits_are_read() {
    let root = tempfile::tempdir().expect("a directory");
    let fs = root.path().join("proc/sys/fs");
    std::fs::create_dir_all(&fs).expect("created");
    std::fs::write(fs.join("file-max"), "400000\n").expect("written");
    assert_eq!(
        System::read(root.path()),
        System {
            file_max: Some(400_000),
            nr_open: None
        }
    );
}

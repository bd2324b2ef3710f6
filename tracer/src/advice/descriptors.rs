//! What to do about descriptors that cannot be had, and about limits that are near.

use turnaway_common::{Reason, reason::errno as number};

use super::{Advice, Advised, System, emfile, enfile, table};

/// Advice on descriptors of a process; nothing for reasons that are about something else. `call` is what
/// asked for one.
#[must_use]
pub fn advise_descriptors(reason: Reason, about: &Advised<'_>, call: Option<&str>) -> Advice {
    match (reason, about.errno) {
        (Reason::FdExhausted, number::ENFILE) => enfile(about),
        (Reason::FdExhausted, _) => {
            let note = match call {
                Some("inotify_init" | "inotify_init1") => {
                    "EMFILE here also means that the user has as many inotify instances as \
                     fs.inotify.max_user_instances allows (sysctl -w fs.inotify.max_user_instances=1024)"
                }
                Some("recvmsg" | "recvmmsg") => {
                    "the call succeeded: a descriptor that was sent is lost, and MSG_CTRUNC is all that \
                     says so"
                }
                _ => return emfile(about),
            };
            noted(emfile(about), note)
        }
        (Reason::FdPressure, _) => noted(
            emfile(about),
            "nothing fails yet; a number that only grows is a leak, which a higher limit only delays",
        ),
        _ => Advice::default(),
    }
}

/// Advice on the host's table of files.
#[must_use]
pub fn advise_table(system: System) -> Advice {
    let (now, lasting, note) = table(system);
    Advice {
        now: Some(now),
        lasting,
        note: note.map(str::to_owned),
    }
}

/// Says this first.
fn noted(advice: Advice, first: &str) -> Advice {
    Advice {
        note: Some(match advice.note {
            Some(rest) => format!("{first}; {rest}"),
            None => first.to_owned(),
        }),
        ..advice
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attribute::Identity,
        event::{NofileLimit, Op},
    };

    fn about(identity: &Identity, errno: u16) -> Advised<'_> {
        Advised {
            pid: 812,
            identity,
            errno,
            op: Op::Syscall,
            nofile: Some(NofileLimit {
                soft: Some(1_024),
                copied: false,
            }),
            limits: None,
            system: System {
                file_max: Some(400_000),
                nr_open: Some(1_048_576),
            },
        }
    }

    #[test]
    fn a_limit_is_raised_before_and_after_it_is_reached() {
        let identity = Identity {
            unit: Some("a.service".to_owned()),
            ..Identity::default()
        };
        for reason in [Reason::FdExhausted, Reason::FdPressure] {
            let advice =
                advise_descriptors(reason, &about(&identity, number::EMFILE), Some("openat"));
            let now = advice.now.expect("a command");
            assert!(
                now.starts_with("prlimit --pid 812 --nofile=65535:"),
                "{now}"
            );
            let lasting = advice.lasting.expect("a way");
            assert!(
                lasting.starts_with("LimitNOFILE=65535 in a.service"),
                "{lasting}"
            );
        }
    }

    #[test]
    fn a_full_table_is_the_host_s() {
        let identity = Identity::default();
        let advice =
            advise_descriptors(Reason::FdExhausted, &about(&identity, number::ENFILE), None);
        assert_eq!(advice.now.as_deref(), Some("sysctl -w fs.file-max=800000"));
        let table = advise_table(about(&identity, 0).system);
        assert_eq!(table.now, advice.now);
        assert_eq!(table.lasting, advice.lasting);
    }

    #[test]
    fn what_a_call_means_is_said() {
        let identity = Identity::default();
        let note = |call| {
            let about = about(&identity, number::EMFILE);
            advise_descriptors(Reason::FdExhausted, &about, Some(call))
                .note
                .expect("a note")
        };
        assert!(note("inotify_init1").contains("max_user_instances"));
        assert!(note("recvmsg").contains("MSG_CTRUNC"));
        assert!(!note("openat").contains("MSG_CTRUNC"));
    }
}

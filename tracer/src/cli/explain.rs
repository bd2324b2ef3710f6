//! `turnaway explain`: what a reason means, from docs/reasons, which is compiled in.

use std::process::ExitCode;

use anyhow::Result;
use turnaway_common::Reason;

use super::filter::{Reasons, reasons};

/// Tell what a reason means, how to try it, and how to mend it
///
/// The pages of docs/reasons, for whoever has nothing but this program at hand.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// The reason, such as accept.emfile, or a family of them, such as accept; without it, a list of all
    #[arg(value_name = "CODE", value_parser = reasons)]
    reason: Option<Reasons>,
}

const HELP: &str = "\
Examples:
  turnaway explain                        all reasons, one a line
  turnaway explain accept.emfile
  turnaway explain queue                  all about queues

Exit codes: 0 it is told, 2 there is no such reason";

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let text = if let Some(Reasons(all)) = &args.reason {
        let pages: Vec<&str> = all.iter().map(|reason| page(*reason)).collect();
        pages.join("\n")
    } else {
        let lines = Reason::ALL
            .iter()
            .map(|reason| format!("{:<20} {}", reason.code(), short(*reason)));
        lines.chain([String::new()]).collect::<Vec<_>>().join("\n")
    };
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// What a page says first, in a sentence.
fn short(reason: Reason) -> &'static str {
    page(reason).lines().nth(2).unwrap_or_default()
}

/// The page of a reason.
fn page(reason: Reason) -> &'static str {
    macro_rules! page {
        ($code:literal) => {
            include_str!(concat!("../../../docs/reasons/", $code, ".md"))
        };
    }
    match reason {
        Reason::AcceptEmfile => page!("accept.emfile"),
        Reason::AcceptEnfile => page!("accept.enfile"),
        Reason::AcceptNomem => page!("accept.nomem"),
        Reason::AcceptAborted => page!("accept.aborted"),
        Reason::AcceptDenied => page!("accept.denied"),
        Reason::AcceptMisuse => page!("accept.misuse"),
        Reason::AcceptOther => page!("accept.other"),
        Reason::AcceptShed => page!("accept.shed"),
        Reason::QueueSynOverflow => page!("queue.syn_overflow"),
        Reason::QueueAckOverflow => page!("queue.ack_overflow"),
        Reason::QueueRstOverflow => page!("queue.rst_overflow"),
        Reason::QueueOverflow => page!("queue.overflow"),
        Reason::QueueSynFlood => page!("queue.syn_flood"),
        Reason::QueueDropped => page!("queue.dropped"),
        Reason::QueueStalled => page!("queue.stalled"),
        Reason::QueueSlow => page!("queue.slow"),
        Reason::QueueAbandoned => page!("queue.abandoned"),
        Reason::ListenerClosed => page!("listener.closed"),
        Reason::ConnectRefused => page!("connect.refused"),
        Reason::ConnectTimeout => page!("connect.timeout"),
        Reason::ConnectUnreachable => page!("connect.unreachable"),
        Reason::ConnectReset => page!("connect.reset"),
        Reason::ConnectDenied => page!("connect.denied"),
        Reason::ConnectNoPort => page!("connect.no_port"),
        Reason::ConnectOther => page!("connect.other"),
        Reason::QueueUnixFull => page!("queue.unix_full"),
        Reason::FdExhausted => page!("fd.exhausted"),
        Reason::FdPressure => page!("fd.pressure"),
        Reason::FdTablePressure => page!("fd.table_pressure"),
        Reason::NetConntrackFull => page!("net.conntrack_full"),
    }
}

#[cfg(test)]
mod tests {
    use turnaway_common::Reason;

    use super::{page, short};

    #[test]
    fn each_reason_has_its_own_page_with_all_its_parts() {
        for reason in Reason::ALL {
            let text = page(*reason);
            assert!(text.starts_with(&format!("# {}\n\n", reason.code())));
            assert!(short(*reason).ends_with('.'), "{reason:?}");
            let parts: Vec<&str> = text
                .lines()
                .filter(|line| line.starts_with("## "))
                .collect();
            assert_eq!(
                parts,
                [
                    "## What the kernel did",
                    "## What users see",
                    "## Try it",
                    "## Mend it"
                ],
                "{reason:?}"
            );
        }
    }
}

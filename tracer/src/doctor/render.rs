//! The report as text.

use std::fmt::Write as _;

use super::{Check, Report, risks::Severity};

/// Most risks of a kind that are shown.
const SHOWN: usize = 20;

/// The report for people: one line a fact, what is wrong marked.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let lockdown = report.kernel.lockdown.as_deref().unwrap_or("not known");
    line(
        &mut out,
        true,
        "kernel",
        &format!(
            "{} {}, lockdown: {lockdown}",
            report.kernel.release, report.kernel.machine
        ),
    );
    check(&mut out, "BTF", &report.btf);
    check(&mut out, "tracefs", &report.tracefs);
    check(&mut out, "cgroup", &report.cgroup);
    check(&mut out, "conntrack", &report.conntrack);
    for capability in &report.capabilities {
        line(
            &mut out,
            capability.effective,
            capability.name,
            capability.purpose,
        );
    }
    for hook in &report.hooks {
        match (&hook.tier, &hook.target) {
            (Some(tier), Some(target)) => {
                line(
                    &mut out,
                    true,
                    hook.name,
                    &format!("{target} ({})", tier.name()),
                );
            }
            _ => line(
                &mut out,
                false,
                hook.name,
                &format!(
                    "not attached; not seen: {}",
                    hook.unseen.unwrap_or("unknown")
                ),
            ),
        }
        for refusal in &hook.refused {
            let _ = writeln!(out, "       {}: {}", refusal.tier.name(), refusal.why);
        }
    }
    if !report.absent_fields.is_empty() {
        let _ = writeln!(
            out,
            "       not in this kernel's BTF, so unknown in records: {}",
            report.absent_fields.join(", ")
        );
    }
    if let Some(error) = &report.error {
        line(&mut out, false, "load", error);
    }
    risks(&mut out, report);
    let _ = writeln!(
        out,
        "{}",
        if report.healthy {
            "Everything that this version watches can be seen here."
        } else {
            "Not everything can be seen here: see the lines marked [--]."
        }
    );
    out
}

/// What is at risk now: a line of what, and one of what to type.
fn risks(out: &mut String, report: &Report) {
    for kind in report.risks.chunk_by(|a, b| a.code == b.code) {
        for risk in kind.iter().take(SHOWN) {
            let mark = match risk.severity {
                Severity::Warning => "!!",
                Severity::Hint => "! ",
            };
            let _ = writeln!(out, "[{mark}]   {:<20} {}", risk.code.name(), risk.text);
            let parts = [risk.advice.as_deref(), risk.lasting.as_deref()];
            match parts {
                [Some(now), Some(lasting)] => {
                    let _ = writeln!(out, "       mend: {now}; for good: {lasting}");
                }
                [Some(only), None] | [None, Some(only)] => {
                    let _ = writeln!(out, "       mend: {only}");
                }
                [None, None] => {}
            }
        }
        if kind.len() > SHOWN {
            let _ = writeln!(
                out,
                "       and {} more {}: see --json",
                kind.len() - SHOWN,
                kind[0].code.name()
            );
        }
    }
    for unknown in report.risks_unknown.iter().take(SHOWN) {
        let _ = writeln!(out, "[??]   {:<20} {unknown}", "not known");
    }
    if report.risks_unknown.len() > SHOWN {
        let more = report.risks_unknown.len() - SHOWN;
        let _ = writeln!(out, "       and {more} more that is not known: see --json");
    }
    let verdict = match (report.risks.len(), report.risks_unknown.is_empty()) {
        (0, true) => "Nothing was found that is at risk now.".to_owned(),
        (0, false) => "Nothing was found that is at risk now, in what could be read.".to_owned(),
        (1, _) => "1 risk was found: see the line marked [!!], or [! ] for a hint.".to_owned(),
        (all, _) => {
            format!("{all} risks were found: see the lines marked [!!], and [! ] for hints.")
        }
    };
    let _ = writeln!(out, "{verdict}");
}

fn check(out: &mut String, name: &str, check: &Check) {
    line(out, check.ok, name, &check.detail);
}

fn line(out: &mut String, ok: bool, name: &str, detail: &str) {
    let mark = if ok { "ok" } else { "--" };
    let _ = writeln!(out, "[{mark}]   {name:<20} {detail}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        Capability, Hook, Kernel, Refusal,
        risks::{Code, Risk},
    };
    use crate::event::Tier;

    fn risk(number: u64) -> Risk {
        Risk {
            code: Code::FdPressure,
            severity: Severity::Warning,
            process: None,
            listener: None,
            netns: None,
            value: Some(number),
            limit: None,
            text: format!("risk {number}"),
            advice: Some(format!("do {number}")),
            lasting: Some("be".to_owned()),
        }
    }

    #[test]
    fn what_is_not_seen_is_said() {
        let ok = Check {
            ok: true,
            detail: "fine".to_owned(),
        };
        let report = Report {
            schema: "turnaway/1",
            kind: "doctor",
            healthy: false,
            error: None,
            version: "0",
            kernel: Kernel {
                release: "6.1.0".to_owned(),
                machine: "x86_64".to_owned(),
                lockdown: None,
            },
            btf: ok.clone(),
            tracefs: ok.clone(),
            cgroup: ok,
            capabilities: vec![Capability {
                name: "CAP_BPF",
                effective: false,
                purpose: "loading",
            }],
            hooks: vec![Hook {
                name: "accept",
                status: "unavailable",
                tier: None,
                target: None,
                unseen: Some("failed accepts"),
                refused: vec![Refusal {
                    tier: Tier::Kprobe,
                    why: "no kprobes".to_owned(),
                }],
            }],
            absent_fields: vec!["mptcp_sock.first"],
            conntrack: Check {
                ok: true,
                detail: "not in use".to_owned(),
            },
            risks: (0..23).map(risk).collect(),
            risks_unknown: vec!["the weather".to_owned()],
        };
        let text = text(&report);
        assert!(
            text.contains("[!!]   process.fd_pressure  risk 19\n       mend: do 19; for good: be")
        );
        assert!(text.contains("and 3 more process.fd_pressure: see --json"));
        assert!(!text.contains("risk 20"), "the lines of a kind are bounded");
        assert!(text.contains("[??]   not known            the weather"));
        assert!(text.contains("23 risks were found"));
        assert!(
            text.contains("[--]   accept               not attached; not seen: failed accepts")
        );
        assert!(text.contains("kprobe: no kprobes"));
        assert!(text.contains("[--]   CAP_BPF"));
        assert!(text.contains("lockdown: not known"));
        assert!(text.contains("mptcp_sock.first"));
        assert!(text.contains("Not everything can be seen here"));
    }
}

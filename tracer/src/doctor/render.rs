//! The report as text.

use std::fmt::Write as _;

use super::{Check, Report};

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
    use crate::doctor::{Capability, Hook, Kernel, Refusal};
    use crate::event::Tier;

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
        };
        let text = text(&report);
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

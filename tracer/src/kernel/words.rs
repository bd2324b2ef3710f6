//! Says in words what became of the hooks.

use super::attach::HookStatus;

/// Most places of a hook that are named.
const TARGETS: usize = 6;

/// One line per way that was refused or failed.
#[must_use]
pub fn refusals(hooks: &[HookStatus]) -> String {
    let lines: Vec<String> = hooks
        .iter()
        .flat_map(|hook| {
            hook.refused
                .iter()
                .map(|(tier, why)| format!("  {} ({}): {why}", hook.hook.name(), tier.name()))
        })
        .collect();
    lines.join("\n")
}

/// Where a hook sits, such as `fexit/__sys_accept4`.
#[must_use]
pub fn targets(hook: &HookStatus) -> String {
    hook.attached
        .as_ref()
        .map_or_else(String::new, |(_, targets)| {
            let mut targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
            // Two programs may sit at one place.
            targets.dedup();
            let more = targets.len().saturating_sub(TARGETS);
            targets.truncate(TARGETS);
            if more > 0 {
                targets.push(format!("{more} more"));
            }
            targets.join(" + ")
        })
}

/// `attached` or `unavailable`.
#[must_use]
pub fn status(hook: &HookStatus) -> &'static str {
    if hook.attached.is_some() {
        "attached"
    } else {
        "unavailable"
    }
}

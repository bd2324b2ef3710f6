//! What a guest says about itself on its kernel's console.

/// Starts every line of `guest-init`; see that program.
const MARK: &str = "turnaway-guest: ";

/// How many of the last lines an error shows.
const SHOWN: usize = 40;

/// How the guest's command ended, according to its first program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It ran and returned this.
    Exit(i32),
    /// It could not be run.
    Failed(String),
    /// The guest ended without saying.
    Silent,
}

/// Reads the verdict from the kernel's console.
pub(crate) fn verdict(kernel: &str) -> Verdict {
    let said = kernel
        .lines()
        .filter_map(|line| Some(line.split_once(MARK)?.1.trim_end()));
    for message in said {
        if let Some(code) = message.strip_prefix("exit ") {
            if let Ok(code) = code.parse() {
                return Verdict::Exit(code);
            }
        } else if let Some(reason) = message.strip_prefix("failed ") {
            return Verdict::Failed(reason.to_owned());
        }
    }
    Verdict::Silent
}

/// The last lines of the kernel's console and of the command's output, for an error.
pub(crate) fn last_lines(kernel: &str, output: &str) -> String {
    format!(
        "last lines of the kernel's console:\n{}\nlast lines of the command's output:\n{}",
        tail(kernel),
        tail(output)
    )
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let start = lines.len().saturating_sub(SHOWN);
    if lines.is_empty() {
        return "  (none)".to_owned();
    }
    lines[start..]
        .iter()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_found_among_kernel_messages() {
        let kernel = "[    0.1] Linux version 6.12\r\n[    2.5] turnaway-guest: exit 3\r\n\
                      [    2.6] reboot: Power down\r\n";
        assert_eq!(verdict(kernel), Verdict::Exit(3));
    }

    #[test]
    fn failures_and_silence_are_told_apart() {
        assert_eq!(
            verdict("[ 1.0] turnaway-guest: failed cannot mount /proc: EPERM\r\n"),
            Verdict::Failed("cannot mount /proc: EPERM".to_owned())
        );
        assert_eq!(
            verdict("Kernel panic - not syncing: VFS\r\nturnaway-guest: exit"),
            Verdict::Silent
        );
    }

    #[test]
    fn only_the_last_lines_are_shown() {
        let lines: Vec<_> = (0..100).map(|n| format!("line {n}")).collect();
        let shown = last_lines(&lines.join("\n"), "");
        assert!(!shown.contains("line 59\n") && shown.contains("line 60\n"));
        assert!(shown.ends_with("(none)"));
    }
}

//! Standard output: a few lines for people, or a line of JSON.

use std::io::{self, Write as _};

use super::{
    config::Format,
    receiver::{Failure, Receiver},
    wording,
};
use crate::alert::Alert;

/// Standard output.
pub(super) struct Stdout(Format);

impl Stdout {
    pub(super) fn new(format: Format) -> Self {
        Self(format)
    }
}

impl Receiver for Stdout {
    fn deliver(&mut self, alert: &Alert) -> Result<(), Failure> {
        let text = render(alert, self.0)?;
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|error| Failure::later(format!("cannot write: {error}")))
    }
}

fn render(alert: &Alert, format: Format) -> Result<String, Failure> {
    let mut text = match format {
        Format::Json => serde_json::to_string(alert)
            .map_err(|error| Failure::Never(format!("the alert cannot be written: {error}")))?,
        Format::Text => {
            let mut lines = vec![format!(
                "{} {}",
                alert.updated_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                wording::headline(alert)
            )];
            for (name, text) in wording::details(alert) {
                lines.push(format!(
                    "  {}: {}",
                    wording::line(name),
                    wording::line(text)
                ));
            }
            lines.join("\n")
        }
    };
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::{
        alert::{Alert, Status},
        notify::{config::Format, sample},
    };

    #[test]
    fn people_get_lines_and_programs_get_one() {
        let alert = sample("a", Status::Firing);
        let text = render(&alert, Format::Text).unwrap();
        assert_eq!(
            text,
            "2026-03-03T03:13:30Z critical: pgbouncer turns clients away: 1024 of 1024 descriptors\n  \
             description: Two lines, of which <one> & \"quotes\"\n  \
             now: prlimit --nofile=4096 -p 17\n  \
             lasting: LimitNOFILE=4096 in pgbouncer.service\n"
        );
        let json = render(&alert, Format::Json).unwrap();
        assert_eq!(json.lines().count(), 1);
        assert_eq!(serde_json::from_str::<Alert>(&json).unwrap(), alert);
    }
}

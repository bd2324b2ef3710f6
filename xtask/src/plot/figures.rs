//! Figures out of what was measured (pure).

use anyhow::{Context as _, Result, ensure};
use serde_json::{Deserializer, Value};

/// What there may be many of: how figures call it, and what the picture says.
const SCALES: [(&str, &str); 4] = [
    ("listeners", "listeners"),
    ("processes", "processes, 1000 failures a second"),
    ("cgroups", "cgroups, 1000 failures a second"),
    ("keys", "keys of 100 000 failures in a minute"),
];

/// What so many of something took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) size: f64,
    pub(super) percent_of_a_core: f64,
    pub(super) rss_mib: f64,
}

/// One part of the picture: points by size, at least two.
#[derive(Debug, PartialEq)]
pub(super) struct Panel {
    pub(super) title: &'static str,
    pub(super) points: Vec<Point>,
}

impl Panel {
    /// All parts, of what one command took.
    pub(super) fn all(text: &str, program: &str) -> Result<Vec<Self>> {
        let mut measured = Vec::new();
        for value in Deserializer::from_str(text).into_iter() {
            let value: Value = value.context("no JSON")?;
            match value.get("measured").and_then(Value::as_array) {
                Some(all) => measured.extend(all.iter().cloned()),
                None => measured.push(value),
            }
        }
        SCALES
            .iter()
            .map(|(scale, title)| {
                let ours = measured
                    .iter()
                    .filter(|one| one["scale"] == *scale && one["program"] == program);
                let mut points = ours.map(point).collect::<Result<Vec<_>>>()?;
                points.sort_by(|one, other| one.size.total_cmp(&other.size));
                ensure!(
                    points.len() > 1,
                    "fewer than two sizes of {scale} were measured with {program}"
                );
                Ok(Self { title, points })
            })
            .collect()
    }
}

fn point(measured: &Value) -> Result<Point> {
    let number = |name: &str| {
        measured[name]
            .as_f64()
            .filter(|number| *number > 0.0)
            .with_context(|| format!("{name} is no number above 0 in {measured}"))
    };
    Ok(Point {
        size: number("size")?,
        percent_of_a_core: number("percent_of_a_core")?,
        rss_mib: number("rss_mib")?,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    /// Figures of all parts, for a command each.
    pub(in crate::plot) fn measured() -> Vec<Value> {
        let mut all = Vec::new();
        for (scale, _) in SCALES {
            for (size, cpu) in [(100, 0.5), (1, 0.1), (10, 0.25)] {
                for (program, rss) in [("trace", 17.0), ("daemon", 22.5)] {
                    all.push(json!({
                        "scale": scale, "program": program, "size": size,
                        "percent_of_a_core": cpu, "rss_mib": rss,
                    }));
                }
            }
        }
        all
    }

    #[test]
    fn lines_and_a_bench_are_read_alike() {
        let all: Vec<String> = measured().iter().map(Value::to_string).collect();
        let lines = all.join("\n");
        let bench = json!({"machine": "Linux", "measured": measured(), "loads": []}).to_string();
        let panels = Panel::all(&lines, "daemon").unwrap();
        assert_eq!(panels, Panel::all(&bench, "daemon").unwrap());
        assert_eq!(panels.len(), 4);
        let point = |size, percent_of_a_core| Point {
            size,
            percent_of_a_core,
            rss_mib: 22.5,
        };
        let wanted = [point(1.0, 0.1), point(10.0, 0.25), point(100.0, 0.5)];
        assert_eq!(panels[2].points, wanted);
    }

    #[test]
    fn what_was_not_measured_is_said() {
        let refused = |text: &str| format!("{:#}", Panel::all(text, "daemon").unwrap_err());
        assert!(refused("").contains("sizes of listeners"));
        assert!(refused("scale").contains("no JSON"));
        let mut all = measured();
        all[1]["rss_mib"] = json!(0);
        let lines: String = all.iter().map(Value::to_string).collect();
        assert!(refused(&lines).contains("rss_mib is no number above 0"));
    }
}

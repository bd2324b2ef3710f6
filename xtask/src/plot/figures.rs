//! Figures out of what was measured (pure).

use std::fmt::Write as _;

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
        let measured = measured(text)?;
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

/// The things that were measured, of lines or of a bench's file.
fn measured(text: &str) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for value in Deserializer::from_str(text).into_iter() {
        let value: Value = value.context("no JSON")?;
        match value.get("measured").and_then(Value::as_array) {
            Some(measured) => all.extend(measured.iter().cloned()),
            None => all.push(value),
        }
    }
    Ok(all)
}

/// What there was many of, as rows of Markdown.
pub(super) fn table(text: &str) -> Result<String> {
    let mut rows =
        "| what | how many | command | failures | counted | % of a core | MiB at the end |\n\
                    |---|---|---|---|---|---|---|\n"
            .to_owned();
    for one in measured(text)? {
        let Some(scale) = one["scale"].as_str() else {
            continue;
        };
        let count = |name: &str| {
            one[name]
                .as_u64()
                .map(|n| n.to_string())
                .unwrap_or_default()
        };
        let point = point(&one)?;
        writeln!(
            rows,
            "| {scale} | {} | {} | {} | {} | {:.2} | {:.0} |",
            count("size"),
            one["program"].as_str().unwrap_or_default(),
            count("failures"),
            count("counted"),
            point.percent_of_a_core,
            point.rss_mib,
        )?;
    }
    Ok(rows)
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
    fn rows_say_what_was_measured_and_leave_out_what_was_not() {
        let counted = json!({
            "scale": "keys", "program": "trace", "size": 100, "failures": 7, "counted": 8,
            "percent_of_a_core": 1.234, "rss_mib": 17.6,
        });
        let storm = json!({"storm": "spin", "program": "trace", "failures": 1});
        let listeners = &measured()[1];
        let rows = table(&format!("{counted}\n{storm}\n{listeners}")).unwrap();
        let rows: Vec<&str> = rows.lines().skip(2).collect();
        let wanted = [
            "| keys | 100 | trace | 7 | 8 | 1.23 | 18 |",
            "| listeners | 100 | daemon |  |  | 0.50 | 22 |",
        ];
        assert_eq!(rows, wanted);
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

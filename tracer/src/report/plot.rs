//! Pictures, drawn as SVG without a script.

use std::{collections::BTreeMap, fmt::Write as _};

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

use super::html::escape;

/// A picture.
#[derive(Clone, Debug)]
pub enum Figure {
    /// Numbers over time.
    Plot(Plot),
    /// When incidents began.
    Calendar(Calendar),
}

/// Numbers over time.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Of what.
    pub title: &'static str,
    /// In what.
    pub unit: &'static str,
    /// From when.
    pub from: Timestamp,
    /// To when.
    pub until: Timestamp,
    /// When the incident began.
    pub began: Timestamp,
    /// The numbers.
    pub lines: Vec<Line>,
    /// What else happened.
    pub marks: Vec<Mark>,
}

/// Numbers of one kind, in order of time.
#[derive(Clone, Debug)]
pub struct Line {
    /// What they are.
    pub name: &'static str,
    /// Them.
    pub points: Vec<(Timestamp, f64)>,
    /// Drawn as a limit.
    pub is_limit: bool,
}

/// Something that happened once.
#[derive(Clone, Debug)]
pub struct Mark {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: String,
}

/// When incidents began: how many on each day, and by day of the week and hour.
#[derive(Clone, Debug, Default)]
pub struct Calendar {
    /// By day.
    pub days: BTreeMap<Date, u64>,
    /// By day of the week from Monday, and hour.
    pub hours: Vec<Vec<u64>>,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 28.0;
/// Most marks that are named in the picture.
const NAMED: usize = 3;
/// Most points of a line: there are no more columns to draw them in.
const POINTS: usize = 800;
/// Most weeks of a calendar, the newest.
const WEEKS: i64 = 60;
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Draws a picture.
#[must_use]
pub(super) fn draw(figure: &Figure, zone: &TimeZone) -> String {
    match figure {
        Figure::Plot(plot) => plot.draw(zone),
        Figure::Calendar(calendar) => calendar.draw(),
    }
}

impl Plot {
    fn x(&self, at: Timestamp) -> f64 {
        let whole = self.until.duration_since(self.from).as_secs_f64().max(1.0);
        let part = at.duration_since(self.from).as_secs_f64() / whole;
        LEFT + part.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn draw(&self, zone: &TimeZone) -> String {
        let values = self.lines.iter().flat_map(|line| &line.points);
        let most = values.map(|(_, value)| *value).fold(0.0, f64::max);
        let step = step(most);
        let most = ((most / step).ceil() * step).max(step);
        let y = |value: f64| HEIGHT - BOTTOM - value / most * (HEIGHT - TOP - BOTTOM);
        let mut out = format!(
            "<figure class=\"plot\" data-plot=\"{0}\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{0}, {1}\"><text class=\"name\" x=\"{LEFT}\" y=\"14\">{0}</text>\
             <text class=\"unit\" x=\"{LEFT}\" dx=\"{2}\" y=\"14\">{1}</text>",
            self.title,
            self.unit,
            self.title.len() * 8 + 8,
        );
        let mut value = 0.0;
        while value <= most + step / 2.0 {
            let at = y(value);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                short(value),
            );
            value += step;
        }
        self.times(&mut out, zone);
        for mark in &self.marks {
            if mark.at < self.from || mark.at > self.until {
                continue;
            }
            let x = self.x(mark.at);
            // Few have room for their names.
            let named = if self.marks.len() > NAMED {
                String::new()
            } else {
                format!(
                    "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    x + 4.0,
                    TOP + 10.0,
                    escape(&mark.what)
                )
            };
            let clock = zone.to_datetime(mark.at).strftime("%H:%M:%S").to_string();
            let _ = write!(
                out,
                "<g class=\"mark\">{named}<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
                 <title>{clock} {}</title></g>",
                HEIGHT - BOTTOM,
                escape(&mark.what),
            );
        }
        let began = self.x(self.began);
        let _ = write!(
            out,
            "<g class=\"began\"><line x1=\"{began:.1}\" x2=\"{began:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
             <title>the incident began</title></g>",
            HEIGHT - BOTTOM,
        );
        for (number, line) in self.lines.iter().enumerate() {
            let class = if line.is_limit {
                "limit".to_owned()
            } else {
                format!("line l{number}")
            };
            let points: Vec<String> = thinned(&line.points)
                .into_iter()
                .map(|(at, value)| format!("{:.1},{:.1}", self.x(at), y(value)))
                .collect();
            let last = line.points.last().map_or(0.0, |(_, value)| *value);
            let most = line
                .points
                .iter()
                .map(|(_, value)| *value)
                .fold(0.0, f64::max);
            let _ = write!(
                out,
                "<polyline class=\"{class}\" data-line=\"{}\" data-max=\"{most}\" data-last=\"{last}\" \
                 points=\"{}\"/>",
                line.name,
                points.join(" "),
            );
        }
        self.legend(&mut out);
        out.push_str("</svg></figure>");
        out
    }

    fn times(&self, out: &mut String, zone: &TimeZone) {
        let whole = self.until.duration_since(self.from);
        let format = if whole > SignedDuration::from_hours(24) {
            "%m-%d %H:%M"
        } else {
            "%H:%M:%S"
        };
        for part in 0..=5 {
            let at = self.from + whole * part / 5;
            let anchor = match part {
                0 => "start",
                5 => "end",
                _ => "middle",
            };
            let _ = write!(
                out,
                "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                self.x(at),
                HEIGHT - 8.0,
                zone.to_datetime(at).strftime(format),
            );
        }
    }

    fn legend(&self, out: &mut String) {
        let mut x = WIDTH - RIGHT;
        for (number, line) in self.lines.iter().enumerate().rev() {
            let class = if line.is_limit {
                "limit".to_owned()
            } else {
                format!("line l{number}")
            };
            let _ = write!(
                out,
                "<text class=\"legend\" x=\"{x:.1}\" y=\"14\" text-anchor=\"end\">{}</text>",
                line.name
            );
            x -= f64::from(u32::try_from(line.name.len()).unwrap_or(0)) * 7.5 + 8.0;
            let _ = write!(
                out,
                "<line class=\"{class}\" x1=\"{:.1}\" x2=\"{x:.1}\" y1=\"10\" y2=\"10\"/>",
                x - 18.0
            );
            x -= 30.0;
        }
    }
}

/// At most [`POINTS`] points, each the highest of those that it stands for: a peak stays.
fn thinned(points: &[(Timestamp, f64)]) -> Vec<(Timestamp, f64)> {
    let size = points.len().div_ceil(POINTS).max(1);
    points
        .chunks(size)
        .filter_map(|chunk| {
            chunk
                .iter()
                .copied()
                .max_by(|(_, one), (_, other)| one.total_cmp(other))
        })
        .collect()
}

/// A distance of lines that gives about four, as people count.
fn step(most: f64) -> f64 {
    let rough = (most / 4.0).max(0.25);
    let scale = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0]
        .into_iter()
        .find(|factor| factor * scale >= rough);
    factor.unwrap_or(10.0) * scale
}

fn short(value: f64) -> String {
    if value >= 1e6 {
        format!("{}M", value / 1e6)
    } else if value >= 1e4 {
        format!("{}k", value / 1e3)
    } else {
        format!("{}", (value * 100.0).round() / 100.0)
    }
}

impl Calendar {
    fn draw(&self) -> String {
        let mut out = String::from("<figure class=\"calendar\" data-plot=\"calendar\">");
        self.weeks(&mut out);
        self.clock(&mut out);
        out.push_str("</figure>");
        out
    }

    fn weeks(&self, out: &mut String) {
        let (Some(first), Some(last)) = (self.days.keys().next(), self.days.keys().next_back())
        else {
            return;
        };
        let monday = |day: Date| {
            let back = i64::from(day.weekday().to_monday_zero_offset());
            day.checked_sub(SignedDuration::from_hours(24 * back))
                .unwrap_or(day)
        };
        let end = monday(*last);
        let earliest = end
            .checked_sub(SignedDuration::from_hours(24 * 7 * (WEEKS - 1)))
            .unwrap_or(end);
        let begin = monday(*first).max(earliest);
        let weeks = end.duration_since(begin).as_hours() / 24 / 7 + 1;
        let most = self.days.values().copied().max().unwrap_or(1);
        let width = 44 + weeks * 14;
        let _ = write!(
            out,
            "<svg class=\"grid7\" viewBox=\"0 0 {width} 124\" width=\"{width}\" height=\"124\" role=\"img\" \
             aria-label=\"incidents by day\">",
        );
        for (row, name) in DAYS.iter().enumerate() {
            let _ = write!(
                out,
                "<text class=\"tick\" x=\"0\" y=\"{}\">{name}</text>",
                30 + row * 14
            );
        }
        let mut labelled = None;
        for week in 0..weeks {
            for row in 0..7 {
                let hours = SignedDuration::from_hours(24 * (7 * week + row));
                let Ok(day) = begin.checked_add(hours) else {
                    continue;
                };
                let x = 40 + week * 14;
                if row == 0 && labelled != Some(day.month()) && day.day() <= 7
                    || week == 0 && row == 0
                {
                    labelled = Some(day.month());
                    let _ = write!(
                        out,
                        "<text class=\"tick\" x=\"{x}\" y=\"14\">{}</text>",
                        day.strftime("%b")
                    );
                }
                let count = self.days.get(&day).copied().unwrap_or(0);
                cell(out, x, 20 + row * 14, count, most, &day.to_string());
            }
        }
        out.push_str("</svg>");
    }

    fn clock(&self, out: &mut String) {
        let most = self.hours.iter().flatten().copied().max().unwrap_or(1);
        out.push_str(
            "<svg class=\"grid7\" viewBox=\"0 0 384 124\" width=\"384\" height=\"124\" role=\"img\" \
             aria-label=\"incidents by day of the week and hour\">",
        );
        for hour in (0..24).step_by(3) {
            let _ = write!(
                out,
                "<text class=\"tick\" x=\"{}\" y=\"14\">{hour:02}</text>",
                40 + hour * 14
            );
        }
        for (row, (name, hours)) in (0..).zip(DAYS.iter().zip(&self.hours)) {
            let _ = write!(
                out,
                "<text class=\"tick\" x=\"0\" y=\"{}\">{name}</text>",
                30 + row * 14
            );
            for (hour, count) in (0..).zip(hours) {
                let what = format!("{name} {hour:02}:00");
                cell(out, 40 + hour * 14, 20 + row * 14, *count, most, &what);
            }
        }
        out.push_str("</svg>");
    }
}

fn cell(out: &mut String, x: i64, y: i64, count: u64, most: u64, what: &str) {
    // Four shades, and none for nothing.
    let shade = if count == 0 {
        0
    } else {
        (count * 4).div_ceil(most.max(1))
    };
    let shade = shade.min(4);
    let _ = write!(
        out,
        "<rect class=\"s{shade}\" x=\"{x}\" y=\"{y}\" width=\"12\" height=\"12\" rx=\"2\" data-count=\"{count}\">\
         <title>{what}: {count}</title></rect>",
    );
}

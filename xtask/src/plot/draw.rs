//! The picture (pure): a part for each thing that there may be many of, both axes logarithmic, so that growth in proportion is
//! a straight line, and no growth a level one.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::figures::{Panel, Point};

/// What is drawn of a point.
type Height = fn(&Point) -> f64;

const SIZE: (u32, u32) = (960, 720);
/// Per cent of a core, and MiB.
const HEIGHTS: (f64, f64) = (0.01, 1000.0);
const CPU: RGBColor = RGBColor(0xc0, 0x39, 0x2b);
const RSS: RGBColor = RGBColor(0x1f, 0x61, 0xa8);
const LINEAR: RGBColor = RGBColor(0x88, 0x88, 0x88);

/// The picture's text.
pub(super) fn svg(panels: &[Panel]) -> Result<String> {
    let mut text = String::new();
    draw(panels, &mut text).map_err(|error| anyhow!("cannot draw: {error}"))?;
    Ok(text)
}

fn draw(panels: &[Panel], text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    for (panel, part) in panels.iter().zip(area.split_evenly((2, 2))) {
        let (Some(first), Some(last)) = (panel.points.first(), panel.points.last()) else {
            continue;
        };
        let sizes = (first.size..last.size).log_scale();
        let mut chart = ChartBuilder::on(&part)
            .caption(panel.title, ("sans-serif", 16))
            .margin(20)
            .x_label_area_size(28)
            .y_label_area_size(48)
            .build_cartesian_2d(sizes, (HEIGHTS.0..HEIGHTS.1).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_label_formatter(&|size| format!("{size}"))
            .y_label_formatter(&|height| format!("{height}"))
            .label_style(("sans-serif", 12))
            .draw()?;
        let straight = in_proportion(*first, last.size);
        chart
            .draw_series(LineSeries::new(straight, LINEAR))?
            .label("CPU if it grew in proportion")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 14, y)], LINEAR));
        let lines: [(RGBColor, &str, Height); 2] = [
            (CPU, "CPU, % of a core", |point| point.percent_of_a_core),
            (RSS, "RSS, MiB", |point| point.rss_mib),
        ];
        for (color, name, height) in lines {
            let places = panel.points.iter().map(|point| (point.size, height(point)));
            chart
                .draw_series(LineSeries::new(places, color).point_size(3))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], color));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .label_font(("sans-serif", 12))
            .background_style(WHITE)
            .draw()?;
    }
    area.present()?;
    Ok(())
}

/// From the first point to where growth in proportion leaves the picture.
fn in_proportion(first: Point, last_size: f64) -> [(f64, f64); 2] {
    let times = (last_size / first.size).min(HEIGHTS.1 / first.percent_of_a_core);
    [
        (first.size, first.percent_of_a_core),
        (first.size * times, first.percent_of_a_core * times),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::measured;
    use super::*;
    use serde_json::Value;

    fn picture() -> String {
        let lines: String = measured().iter().map(Value::to_string).collect();
        svg(&Panel::all(&lines, "daemon").unwrap()).unwrap()
    }

    #[test]
    fn the_same_figures_are_the_same_picture() {
        assert_eq!(picture(), picture());
    }

    /// The numbers of an attribute, of all points that were drawn.
    fn numbers(picture: &str, name: &str) -> Vec<f64> {
        let circles = picture.split("<circle ").skip(1);
        circles
            .map(|circle| {
                let (_, rest) = circle.split_once(&format!("{name}=\"")).unwrap();
                rest.split_once('"').unwrap().0.parse().unwrap()
            })
            .collect()
    }

    #[test]
    fn ten_is_in_the_middle_between_one_and_a_hundred() {
        let across = numbers(&picture(), "cx");
        // Two lines of three points in each part.
        assert_eq!(across.len(), 4 * 2 * 3);
        for line in across.chunks(3) {
            let &[one, ten, hundred] = line else {
                panic!("{line:?}");
            };
            // Points are at whole pixels.
            assert!((f64::midpoint(one, hundred) - ten).abs() <= 1.0, "{line:?}");
        }
        // 0.1, 0.25 and 0.5.
        let up = numbers(&picture(), "cy");
        let [low, middle, high] = up[..3] else {
            panic!("{up:?}");
        };
        let share = (low - middle) / (low - high);
        assert!(
            (share - 2.5_f64.log10() / 5_f64.log10()).abs() < 0.02,
            "{share}"
        );
    }

    #[test]
    fn growth_in_proportion_ends_where_the_picture_does() {
        let first = Point {
            size: 100.0,
            percent_of_a_core: 10.0,
            rss_mib: 20.0,
        };
        assert_eq!(in_proportion(first, 200.0), [(100.0, 10.0), (200.0, 20.0)]);
        assert_eq!(in_proportion(first, 1e6), [(100.0, 10.0), (1e4, 1e3)]);
    }
}

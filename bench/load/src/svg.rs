//! A picture of how long things took: for each series, the time below which a share of all lies. Readable on light and
//! dark ground alike, as it has no ground of its own.
//!
//! Shares are spread by nines (50 %, 90 %, 99 %, 99.9 % …), times by powers of ten.

use crate::histogram::Histogram;
use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 56.0;
/// Points of a curve.
const POINTS: u32 = 120;
/// Shares as marked, and as text.
const SHARES: [(f64, &str); 5] = [
    (0.0, "0"),
    (0.9, "90 %"),
    (0.99, "99 %"),
    (0.999, "99.9 %"),
    (0.9999, "99.99 %"),
];
/// Told apart by people who see colours differently, and on light and dark.
const COLOURS: [&str; 6] = ["#2e86de", "#e67e22", "#16a085", "#c0399f", "#b7950b", "#7f8c8d"];
const INK: &str = "#808890";

/// Draws the series, each with its name.
pub fn draw(title: &str, series: &[(String, Histogram)]) -> String {
    let series: Vec<_> = series.iter().filter(|(_, took)| took.count() > 0).collect();
    let nines = series
        .iter()
        .map(|(_, took)| (took.count() as f64).log10())
        .fold(1.0, f64::max)
        .clamp(1.0, 4.0);
    let lowest = series.iter().map(|(_, took)| took.quantile_ms(0.0));
    let low = decade(lowest.fold(f64::MAX, f64::min)).floor();
    let highest = series.iter().map(|(_, took)| took.max_ms()).fold(0.0, f64::max);
    let high = decade(highest).ceil().max(low + 1.0);
    let (low, high) = if series.is_empty() {
        (0.0, 1.0)
    } else {
        (low, high)
    };
    let scale = Scale { nines, low, high };
    let mut out = String::new();
    scale.frame(&mut out, title);
    for (nth, (name, took)) in series.iter().enumerate() {
        scale.curve(&mut out, nth, name, took);
    }
    out.push_str("</svg>\n");
    out
}

fn decade(ms: f64) -> f64 {
    ms.max(1e-4).log10()
}

struct Scale {
    nines: f64,
    low: f64,
    high: f64,
}

impl Scale {
    fn x(&self, nines: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * nines / self.nines
    }

    fn y(&self, ms: f64) -> f64 {
        let share = (decade(ms) - self.low) / (self.high - self.low);
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share.clamp(0.0, 1.0)
    }

    fn frame(&self, out: &mut String, title: &str) {
        let text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"{INK}\">\n<title>{0}</title>\n\
             <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{0}</text>\n",
            escaped(title)
        );
        out.push_str(&text);
        let mut mark = |line: [f64; 4], label: (f64, f64, &str, &str)| {
            let [x1, y1, x2, y2] = line;
            let (x, y, anchor, text) = label;
            // Writing to a string cannot fail.
            let _always = writeln!(
                out,
                "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"{INK}\" stroke-opacity=\".35\"/>\
                 <text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
            );
        };
        for (share, label) in SHARES {
            let nines = -(1.0f64 - share).log10();
            if nines <= self.nines + 1e-9 {
                let (x, bottom) = (self.x(nines), HEIGHT - BOTTOM);
                mark([x, TOP, x, bottom], (x, bottom + 18.0, "middle", label));
            }
        }
        for power in self.low as i32..=self.high as i32 {
            let ms = 10f64.powi(power);
            let y = self.y(ms);
            let label = if ms < 1.0 {
                format!("{} µs", ms * 1e3)
            } else {
                format!("{ms} ms")
            };
            mark(
                [LEFT, y, WIDTH - RIGHT, y],
                (LEFT - 8.0, y + 4.0, "end", label.as_str()),
            );
        }
        let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
        out.push_str(&format!(
            "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">share of all that took at most so long</text>\n",
            HEIGHT - 12.0
        ));
    }

    fn curve(&self, out: &mut String, nth: usize, name: &str, took: &Histogram) {
        let colour = COLOURS[nth % COLOURS.len()];
        let own = (took.count() as f64).log10().clamp(0.0, self.nines);
        let mut path = String::new();
        for point in 0..=POINTS {
            let nines = own * f64::from(point) / f64::from(POINTS);
            let ms = took.quantile_ms(1.0 - 10f64.powf(-nines));
            let letter = if point == 0 { 'M' } else { 'L' };
            path.push_str(&format!("{letter}{:.1} {:.1}", self.x(nines), self.y(ms)));
        }
        let (row, column) = (nth / 3, nth % 3);
        let (x, y) = (
            LEFT + 12.0 + 225.0 * column as f64,
            TOP + 14.0 + 16.0 * row as f64,
        );
        out.push_str(&format!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n\
             <text x=\"{x}\" y=\"{y}\" fill=\"{colour}\">{}</text>\n",
            escaped(name)
        ));
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn took(milliseconds: std::ops::Range<u64>) -> Histogram {
        let mut took = Histogram::default();
        milliseconds.for_each(|ms| took.record(Duration::from_millis(ms)));
        took
    }

    #[test]
    fn every_series_is_a_curve_with_its_name() {
        let series = [
            ("a < b".to_owned(), took(1..1000)),
            ("other".to_owned(), took(5..50)),
            ("empty".to_owned(), took(0..0)),
        ];
        let svg = draw("A & B", &series);
        assert_eq!(svg.matches("stroke-width=\"2\"").count(), 2);
        assert!(svg.contains(">a &lt; b<") && svg.contains("A &amp; B") && !svg.contains("empty"));
        assert!(svg.contains(">99 %<") && svg.contains(">1 ms<") && svg.contains(">1000 ms<"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(svg.ends_with("</svg>\n"));
    }

    #[test]
    fn a_curve_never_goes_down_in_time() {
        let svg = draw("t", &[("s".to_owned(), took(1..5000))]);
        let path = svg.split("d=\"M").last().unwrap().split('"').next().unwrap();
        let heights: Vec<f64> = path
            .split('L')
            .map(|point| point.split(' ').nth(1).unwrap().parse().unwrap())
            .collect();
        assert!(heights.windows(2).all(|two| two[1] <= two[0]), "{heights:?}");
    }

    #[test]
    fn nothing_measured_is_still_a_picture() {
        assert!(draw("none", &[]).ends_with("</svg>\n"));
    }
}

//! The results as one self-contained page.

use super::result::{HEAD, NONE, Results, Row};

const WIDTH: f64 = 620.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 46.0;
/// Colours that are distinct with colour blindness too (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// The page, in HTML.
pub fn page(results: &Results) -> String {
    let [width, height] = results.size;
    let good: Vec<&Row> = results.rows.iter().filter(|row| row.error.is_none()).collect();
    let mut encoders: Vec<&str> = good.iter().map(|row| row.encoder.as_str()).collect();
    encoders.dedup();
    let ssim = |row: &Row| row.quality.as_ref().map(|quality| quality.ssim);
    let mut plots = String::new();
    for (title, x, y) in [
        (
            "Speed against quality",
            Axis::log("frames per second", |row| Some(row.fps)),
            Axis::new("SSIM of luma", ssim),
        ),
        (
            "Speed against size",
            Axis::log("frames per second", |row| Some(row.fps)),
            Axis::log("kbit/s", |row| Some(row.kbit_s)),
        ),
        (
            "Size against quality",
            Axis::log("kbit/s", |row| Some(row.kbit_s)),
            Axis::new("SSIM of luma", ssim),
        ),
        (
            "CPU against latency",
            Axis::log("CPU ms per frame", |row| row.cpu_ms),
            Axis::new("latency, median, ms", |row| Some(row.latency_ms?[0])),
        ),
    ] {
        plots += &plot(title, &good, &encoders, &x, &y);
    }
    let head: String = HEAD.iter().map(|name| format!("<th>{}</th>", escape(name))).collect();
    let body: String = results.rows.iter().map(line).collect();
    let notes: String =
        results.notes.iter().map(|note| format!("<p class=note>{}</p>", escape(note))).collect();
    let refused: String = results
        .refused
        .iter()
        .map(|one| {
            let [encoder, reason, hint] = [&one.encoder, &one.reason, &one.hint].map(|t| escape(t));
            format!("<li><b>{encoder}</b> does not work here: {reason} ({hint})</li>")
        })
        .collect();
    let how: String = good
        .iter()
        .filter(|row| {
            row.preset == good.iter().find(|r| r.encoder == row.encoder).map_or("", |r| &r.preset)
        })
        .map(|row| {
            format!("<li><b>{}</b>: {}</li>", escape(&row.encoder), escape(&row.description))
        })
        .collect();
    let facts = format!(
        "{}; {width}×{height}, {} frames, {} at once, {} threads; medians of {} rounds; {}; encoder {}",
        results.clip,
        results.frames,
        results.cameras,
        results.threads,
        results.rounds,
        results.machine,
        results.version
    );
    format!(
        "<!doctype html>\n<html lang=en><meta charset=utf-8><title>encoder bench</title>\n<style>{STYLE}\
         </style>\n<h1>How fast is video encoding on this machine?</h1>\n<p class=answer>{}</p>\n\
         <p>{}</p>\n<div class=plots>{plots}</div>\n<table><thead><tr>{head}</tr></thead>\n\
         <tbody>{body}</tbody></table>\n{notes}\n<ul>{how}{refused}</ul>\n</html>\n",
        escape(&results.answer),
        escape(&facts)
    )
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1320px;margin:2em auto;\
padding:0 1em;color:#222;background:#fff}h1{font-size:1.4em}.answer{font-size:1.15em;border-left:4px \
solid #0072b2;padding-left:.8em}.plots{display:flex;flex-wrap:wrap;gap:1em}figure{margin:0}\
figcaption{font-weight:600}table{border-collapse:collapse;margin:1em 0}th,td{padding:.2em .6em;\
text-align:right;border-bottom:1px solid #ddd}th:nth-child(-n+2),td:nth-child(-n+2){text-align:left}\
.note{color:#555;max-width:60em}.bad{color:#b00}svg text{font-size:12px;fill:#333}";

fn line(row: &Row) -> String {
    if let Some(error) = &row.error {
        let [encoder, preset, error] = [&row.encoder, &row.preset, error].map(|text| escape(text));
        let rest = HEAD.len() - 2;
        return format!("<tr><td>{encoder}<td>{preset}<td class=bad colspan={rest}>{error}</tr>");
    }
    let cells: String = row.cells().iter().map(|cell| format!("<td>{}", escape(cell))).collect();
    format!("<tr>{cells}</tr>\n")
}

struct Axis<'a> {
    name: &'a str,
    value: Box<dyn Fn(&Row) -> Option<f64> + 'a>,
    is_log: bool,
}

impl<'a> Axis<'a> {
    fn new(name: &'a str, value: impl Fn(&Row) -> Option<f64> + 'a) -> Self {
        Self { name, value: Box::new(value), is_log: false }
    }

    fn log(name: &'a str, value: impl Fn(&Row) -> Option<f64> + 'a) -> Self {
        Self { is_log: true, ..Self::new(name, value) }
    }

    /// The ends of an axis that includes all values, and the marks on it.
    fn scale(&self, values: &[f64]) -> (f64, f64, Vec<f64>) {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if self.is_log {
            let (low, high) = (low.max(1e-3) / 1.3, high.max(1e-3) * 1.3);
            let decades = -3..7;
            let marks = decades.flat_map(|n| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(n)));
            return (low, high, marks.filter(|mark| (low..=high).contains(mark)).collect());
        }
        let span = if high > low { high - low } else { high.abs().max(1e-3) * 0.1 };
        let (low, high) = (low - span * 0.12, high + span * 0.12);
        let raw = (high - low) / 5.0;
        let power = 10f64.powf(raw.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|m| m * power);
        let step = steps.into_iter().find(|step| *step >= raw).unwrap_or(power);
        let first = (low / step).ceil() as i64;
        let marks = (first..).map(|n| n as f64 * step).take_while(|mark| *mark <= high);
        (low, high, marks.collect())
    }

    /// Where a value lies between the ends, 0 to 1.
    fn place(&self, value: f64, low: f64, high: f64) -> f64 {
        if self.is_log {
            (value.max(1e-3) / low).ln() / (high / low).ln()
        } else {
            (value - low) / (high - low)
        }
    }
}

/// One plot, a line of points for each encoder.
fn plot(title: &str, rows: &[&Row], encoders: &[&str], x: &Axis<'_>, y: &Axis<'_>) -> String {
    let points: Vec<(&Row, f64, f64)> =
        rows.iter().filter_map(|row| Some((*row, (x.value)(row)?, (y.value)(row)?))).collect();
    if points.is_empty() {
        return String::new();
    }
    let of = |pick: fn(&(&Row, f64, f64)) -> f64| points.iter().map(pick).collect::<Vec<_>>();
    let (x_low, x_high, x_marks) = x.scale(&of(|point| point.1));
    let (y_low, y_high, y_marks) = y.scale(&of(|point| point.2));
    let at_x = |value| LEFT + x.place(value, x_low, x_high) * (WIDTH - LEFT - RIGHT);
    let at_y = |value| HEIGHT - BOTTOM - y.place(value, y_low, y_high) * (HEIGHT - TOP - BOTTOM);
    let mut svg = String::new();
    let base = HEIGHT - BOTTOM;
    for mark in x_marks {
        let at = at_x(mark);
        svg += &format!(
            "<path d='M{at:.1} {TOP}V{base}' stroke='#eee'/><text x={at:.1} y={:.1} \
             text-anchor=middle>{}</text>",
            base + 16.0,
            figure(mark)
        );
    }
    for mark in y_marks {
        let at = at_y(mark);
        svg += &format!(
            "<path d='M{LEFT} {at:.1}H{:.1}' stroke='#eee'/><text x={:.1} y={:.1} \
             text-anchor=end>{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            figure(mark)
        );
    }
    for (n, encoder) in encoders.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        let mine: Vec<_> = points.iter().filter(|point| point.0.encoder == *encoder).collect();
        let path: Vec<_> =
            mine.iter().map(|(_, px, py)| format!("{:.1},{:.1}", at_x(*px), at_y(*py))).collect();
        svg += &format!("<polyline points='{}' fill=none stroke='{colour}'/>", path.join(" "));
        for (row, px, py) in mine {
            let (cx, cy) = (at_x(*px), at_y(*py));
            let fill = if row.front { colour } else { "#fff" };
            svg += &format!(
                "<circle cx={cx:.1} cy={cy:.1} r=5 fill='{fill}' stroke='{colour}'>\
                 <title>{} {}: {} {}, {} {}</title></circle>\
                 <text x={:.1} y={:.1}>{}</text>",
                escape(encoder),
                escape(&row.preset),
                figure(*px),
                escape(x.name),
                figure(*py),
                escape(y.name),
                cx + 8.0,
                cy - 6.0,
                escape(&row.preset)
            );
        }
        svg += &format!(
            "<circle cx={:.1} cy={:.1} r=5 fill='{colour}'/><text x={:.1} y={:.1}>{}</text>",
            LEFT + 14.0 + 110.0 * n as f64,
            TOP + 8.0,
            LEFT + 24.0 + 110.0 * n as f64,
            TOP + 12.0,
            escape(encoder)
        );
    }
    let (middle, low) = ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0);
    svg += &format!(
        "<text x={middle:.1} y={low:.1} text-anchor=middle>{}</text><text \
         transform='translate(14 {:.1}) rotate(-90)' text-anchor=middle>{}</text>",
        escape(x.name),
        (TOP + base) / 2.0,
        escape(y.name)
    );
    format!(
        "<figure><figcaption>{}</figcaption><svg viewBox='0 0 {WIDTH} {HEIGHT}' width={WIDTH} \
         height={HEIGHT} role=img>{svg}</svg></figure>\n",
        escape(title)
    )
}

/// A number with its significant digits.
fn figure(value: f64) -> String {
    if !value.is_finite() {
        return NONE.into();
    }
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 2.0 => 1,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').into(),
        false => text,
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_significant_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.955, "0.955"),
            (0.9, "0.9"),
            (12.34, "12.3"),
            (5.0, "5"),
            (200.0, "200"),
            (1234.5, "1234"),
            (f64::NAN, NONE),
        ] {
            assert_eq!(figure(value), text);
        }
    }

    #[test]
    fn axes_include_all_values() {
        let plain = Axis::new("", |_| None);
        let (low, high, marks) = plain.scale(&[0.9, 0.95]);
        assert!(low < 0.9 && high > 0.95 && (3..=8).contains(&marks.len()), "{marks:?}");
        assert_eq!((plain.place(low, low, high), plain.place(high, low, high)), (0.0, 1.0));
        // A single value, and zero, have an axis too.
        assert!(plain.scale(&[5.0]).0 < 5.0 && plain.scale(&[0.0]).1 > 0.0);
        let log = Axis::log("", |_| None);
        let (low, high, marks) = log.scale(&[20.0, 900.0]);
        assert_eq!(marks, [20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
        let middle = log.place((low * high).sqrt(), low, high);
        assert!((middle - 0.5).abs() < 1e-9, "{middle}");
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(escape("<b>&"), "&lt;b&gt;&amp;");
        let row = Row { encoder: "<x>".into(), error: Some("a < b".into()), ..Row::default() };
        assert!(line(&row).contains("&lt;x&gt;") && line(&row).contains("a &lt; b"));
    }
}

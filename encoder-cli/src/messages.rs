//! Messages on standard error: for people, as a command line has them, or as a log.

use std::{
    env,
    fmt::{self, Write as _},
    io::{self, IsTerminal, Write},
};

use encoder_pipeline::text::{json_escaped, printable};
use indicatif::MultiProgress;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    field::MakeExt as _,
    fmt::{
        MakeWriter,
        format::{Writer, debug_fn},
    },
    layer::{Context, SubscriberExt as _},
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use crate::{args::LogArg, option_names::with_options};

/// The target of messages that are shown without `-v`, although nothing is wrong.
pub const NOTE: &str = "encoder::note";

/// Begins to write messages to standard error, above the bars.
pub fn begin(form: LogArg, quiet: bool, verbose: u8, bars: Option<MultiProgress>) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) => &*format!("warn,{NOTE}=info"),
        (_, 1) => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("ENCODER_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let registry = tracing_subscriber::registry().with(filter);
    let above = Above { bars, form };
    match form {
        LogArg::Plain => registry.with(Plain { above, colours: colours() }).init(),
        LogArg::Text => {
            let field = |writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| {
                let value = format!("{value:?}");
                match field.name() {
                    "message" => write!(writer, "{}", printable(&value)),
                    name => write!(writer, "{name}={}", printable(&value)),
                }
            };
            let log = tracing_subscriber::fmt::layer()
                .fmt_fields(debug_fn(field).delimited(" "))
                .with_ansi(false);
            registry.with(log.with_target(false).with_writer(above)).init();
        }
        LogArg::Json => {
            let log = tracing_subscriber::fmt::layer().json().with_target(false);
            registry.with(log.with_writer(above)).init();
        }
    }
}

/// Whether standard error shows colours, and the user wants them (<https://no-color.org>).
fn colours() -> bool {
    let is_unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !is_unwanted && env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Writes messages as a command line does: `warning: /cam: frame cannot be decoded: …`, and a hint
/// on a line of its own.
struct Plain {
    above: Above,
    colours: bool,
}

/// The topic of a camera's span.
struct Topic(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Plain {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let (Some(topic), Some(span)) = (fields.topic, context.span(id)) {
            span.extensions_mut().insert(Topic(topic));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut spans = context.event_scope(event).into_iter().flatten();
        let topic = spans.find_map(|span| Some(span.extensions().get::<Topic>()?.0.clone()));
        fields.topic = fields.topic.or(topic);
        let text = plain(*event.metadata().level(), &fields, self.colours);
        // A `Line` takes all text, and writes it when it is dropped.
        let _ = self.above.make_writer().write_all(text.as_bytes());
    }
}

/// The fields of an event or a span.
#[derive(Default)]
struct Fields {
    message: String,
    hint: String,
    topic: Option<String>,
    encoder: Option<String>,
    others: Vec<String>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            "hint" => self.hint = value.to_owned(),
            "topic" => self.topic = Some(value.to_owned()),
            "encoder" => self.encoder = Some(value.to_owned()),
            name => self.others.push(format!("{name} {value}")),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if value {
            self.others.push(field.name().to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

fn plain(level: Level, fields: &Fields, colours: bool) -> String {
    let (word, colour) = match level {
        Level::ERROR => ("error", "1;31"),
        Level::WARN => ("warning", "1;33"),
        Level::INFO => ("note", "1"),
        _ => ("debug", "2"),
    };
    let label = |word: &str, colour: &str| match colours {
        true => format!("\x1b[{colour}m{word}:\x1b[0m"),
        false => format!("{word}:"),
    };
    let mut text = label(word, colour);
    for context in [&fields.topic, &fields.encoder].into_iter().flatten() {
        let _ = write!(text, " {}:", printable(context));
    }
    // Further lines are indented, so that none of them looks like another message.
    for (n, line) in fields.message.lines().enumerate() {
        let _ = write!(text, "{}{}", if n == 0 { " " } else { "\n  " }, printable(line));
    }
    if !fields.others.is_empty() {
        let _ = write!(text, " ({})", printable(&fields.others.join(", ")));
    }
    text.push('\n');
    for hint in fields.hint.lines() {
        let _ = writeln!(text, "{} {}", label("hint", "1;36"), printable(hint));
    }
    text
}

/// Writes to standard error, above the bars instead of through them.
struct Above {
    bars: Option<MultiProgress>,
    form: LogArg,
}

impl<'a> MakeWriter<'a> for Above {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { above: self, text: Vec::new() }
    }
}

struct Line<'a> {
    above: &'a Above,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.text);
        let text = match self.above.form {
            LogArg::Json => json_escaped(&text),
            _ => text,
        };
        let text = with_options(&text);
        let print = || io::stderr().write_all(text.as_bytes());
        // An error of standard error itself cannot be reported anywhere.
        let _ = match &self.above.bars {
            Some(bars) => bars.suspend(print),
            None => print(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_read_like_those_of_a_command_line() {
        let fields = Fields {
            message: "it\u{1b}[2J failed\nerror: not a message".into(),
            hint: "do this\nor that\u{7}".into(),
            topic: Some("/cam\r".into()),
            encoder: Some("nvenc".into()),
            others: vec!["frame 3".into(), "transient".into()],
        };
        assert_eq!(
            plain(Level::WARN, &fields, false),
            "warning: /cam\\r: nvenc: it\\u{1b}[2J failed\n  error: not a message \
             (frame 3, transient)\nhint: do this\nhint: or that\\u{7}\n"
        );
        let fields = Fields { message: "no".into(), hint: "yes".into(), ..Fields::default() };
        assert_eq!(
            plain(Level::ERROR, &fields, true),
            "\x1b[1;31merror:\x1b[0m no\n\x1b[1;36mhint:\x1b[0m yes\n"
        );
        assert_eq!(
            plain(Level::INFO, &Fields { hint: String::new(), ..fields }, false),
            "note: no\n"
        );
    }
}

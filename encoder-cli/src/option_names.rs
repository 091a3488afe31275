//! The names that a user of this program knows, in place of those of the libraries.
//!
//! A text of a library names the fields and functions of its API: `raise Limits::message_bytes`.
//! Each text that this program prints or saves passes [`with_options`], which puts in the option or
//! the command that does the same.

use std::borrow::Cow;

/// What the texts of the libraries name, with its backticks, and what this program has for it. `{}`
/// is a value, which is kept.
const NAMES: &[(&str, &str)] = &[
    ("`Limits::message_bytes`", "--max-message-bytes"),
    ("`Limits::pixels`", "--max-pixels"),
    ("`Limits::temporary_bytes`", "--max-temporary-bytes"),
    ("`SourceOptions::rate`", "--fps"),
    ("`PictureOptions::depth_range`", "--depth-range MIN:MAX"),
    ("`PictureOptions::is_depth`", "--depth-range TOPIC=MIN:MAX"),
    ("`PictureOptions::turn_upright`", "--exif-orientation apply"),
    ("`pictures[{}].depth_range`", "--depth-range {}=MIN:MAX"),
    ("`pictures[{}].bits = {}`", "--bits {}={}"),
    ("`Recovery::find({})`", "`encoder repair {}`"),
    ("`Detection::run`", "`encoder detect`"),
];

/// The text, with options and commands of this program in place of the names of the libraries. The
/// text may be JSON: what is put in needs no escapes.
///
/// A name whose value has a backtick is left as it is.
pub fn with_options(text: &str) -> Cow<'_, str> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('`') {
        let (before, quoted) = rest.split_at(at);
        out.push_str(before);
        let found = NAMES.iter().find_map(|(name, option)| replaced(quoted, name, option));
        let (put, after) = found.unwrap_or_else(|| ("`".into(), &quoted[1..]));
        out.push_str(&put);
        rest = after;
    }
    match out.is_empty() {
        true => text.into(),
        false => (out + rest).into(),
    }
}

/// If `text` begins with `name`: the option in place of it, and the rest of the text.
fn replaced<'a>(text: &'a str, name: &str, option: &str) -> Option<(String, &'a str)> {
    let (mut names, mut options) = (name.split("{}"), option.split("{}"));
    let mut rest = text.strip_prefix(names.next()?)?;
    let mut out = options.next()?.to_owned();
    for (name, option) in names.zip(options) {
        let (value, after) = rest.split_once(name)?;
        if value.contains(['`', '\n']) {
            return None;
        }
        out.push_str(value);
        out.push_str(option);
        rest = after;
    }
    Some((out, rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use clap::CommandFactory;
    use encoder_testbed::source::{Text, texts};

    use super::*;
    use crate::args::Cli;

    #[test]
    fn names_become_options() {
        for (text, expected) in [
            ("raise `Limits::message_bytes`", "raise --max-message-bytes"),
            (
                "more than the limit (`Limits::pixels`, `Limits::message_bytes`)",
                "more than the limit (--max-pixels, --max-message-bytes)",
            ),
            ("dark: `pictures[/a b].bits = 12` shows", "dark: --bits /a b=12 shows"),
            ("`pictures[/d].depth_range`", "--depth-range /d=MIN:MAX"),
            ("a; `Recovery::find(o/a.mp4.part)` b", "a; `encoder repair o/a.mp4.part` b"),
            // What is not in the table, or only similar to it, stays.
            ("`encoder.crf` is `Limits::pixel`", "`encoder.crf` is `Limits::pixel`"),
            ("`pictures[/a`b].bits = 12`", "`pictures[/a`b].bits = 12`"),
            ("`pictures[/a\n].bits = 12`", "`pictures[/a\n].bits = 12`"),
            ("Limits::pixels, ``Limits::pixels`", "Limits::pixels, `--max-pixels"),
            ("`", "`"),
            ("", ""),
        ] {
            assert_eq!(with_options(text), expected);
        }
    }

    #[test]
    fn json_stays_json() {
        let value = serde_json::json!({
            "a": "`Recovery::find(C:\\a\"b)`", "b": ["`pictures[x", "].bits = 5`"], "c": "`"
        });
        let text = with_options(&value.to_string()).into_owned();
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["a"], "`encoder repair C:\\a\"b`");
        for (_, option) in NAMES {
            assert_eq!(serde_json::to_string(option).unwrap(), format!("\"{option}\""));
        }
    }

    /// The options and commands of this program.
    struct Program {
        options: BTreeSet<String>,
        commands: BTreeSet<String>,
    }

    impl Program {
        fn new() -> Self {
            let command = Cli::command();
            let commands = || command.get_subcommands();
            let arguments = commands().chain([&command]).flat_map(|c| c.get_arguments());
            let names = arguments.flat_map(|argument| {
                let long = argument.get_long_and_visible_aliases().unwrap_or_default();
                // Other programs have -q and -v too.
                let has_value = argument.get_action().takes_values();
                let short = argument.get_short().filter(|_| has_value);
                let long = long.into_iter().map(|name| format!("--{name}"));
                long.chain(short.map(|name| format!("-{name}")))
            });
            Self {
                options: names.collect(),
                commands: commands().map(|c| c.get_name().to_owned()).collect(),
            }
        }

        /// The options and commands that a text names.
        fn named_in<'a>(&'a self, text: &'a str) -> Vec<&'a str> {
            let is_outside = |c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_'));
            let options = text.split(is_outside).filter(|word| self.options.contains(*word));
            let follow = text.match_indices("encoder ").map(|(at, word)| &text[at + word.len()..]);
            let commands = follow.filter_map(|text| text.split(is_outside).next());
            options.chain(commands.filter(|word| self.commands.contains(*word))).collect()
        }
    }

    /// The texts of all crates of the workspace that are libraries.
    fn texts_of_libraries() -> Vec<Text> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut all = Vec::new();
        let mut crates = 0;
        for entry in fs::read_dir(workspace).unwrap() {
            let directory = entry.unwrap().path();
            let name = directory.file_name().unwrap().to_string_lossy();
            let root = directory.join("src/lib.rs");
            if name.starts_with("encoder-") && name != "encoder-cli" && root.exists() {
                all.extend(texts(&root).unwrap());
                crates += 1;
            }
        }
        assert!(crates >= 15 && all.len() > 2000, "{crates} crates, {} texts", all.len());
        all
    }

    #[test]
    fn options_and_commands_are_found_in_texts() {
        let program = Program::new();
        for (text, expected) in [
            ("raise --max-pixels", &["--max-pixels"][..]),
            ("(`--bits {topic}={bits}`)", &["--bits"]),
            ("give another -o, or --overwrite", &["-o", "--overwrite"]),
            ("`encoder repair {part}` makes a video", &["repair"]),
            ("--max-pixelsize, nvidia-smi -q, --gpus all, an-o", &[]),
            ("the encoder detects, an encoder, repair it, encoder", &[]),
        ] {
            assert_eq!(program.named_in(text), expected, "{text}");
        }
    }

    #[test]
    fn libraries_name_no_option_or_command() {
        let program = Program::new();
        let wrong: Vec<_> = texts_of_libraries()
            .iter()
            .filter(|found| !program.named_in(&found.text).is_empty())
            .map(|found| format!("{}:{}: {}", found.file.display(), found.line, found.text))
            .collect();
        assert!(
            wrong.is_empty(),
            "texts of libraries that name options or commands of this program; name the field, and \
             add it to NAMES:\n{}",
            wrong.join("\n")
        );
    }

    /// The names of the API in a text, with `{}` for each value: `` `Type::field` `` and
    /// `` `pictures[{}].field` ``.
    fn names_in(text: &str) -> Vec<String> {
        let is_name = |quoted: &&str| {
            let is_type = |name: &str| {
                name.starts_with(|c: char| c.is_ascii_uppercase())
                    && name.chars().all(|c| c.is_alphanumeric())
            };
            quoted.starts_with("pictures[")
                || quoted.split_once("::").is_some_and(|(name, _)| is_type(name))
        };
        // The spans between two backticks.
        let quoted = text.split('`').skip(1).step_by(2).filter(is_name);
        quoted
            .map(|quoted| {
                let mut parts = quoted.split('{');
                let first = parts.next().unwrap_or_default().to_owned();
                let rest = parts.map(|part| part.split_once('}').map_or(part, |(_, after)| after));
                format!("`{}`", rest.fold(first, |name, part| name + "{}" + part))
            })
            .collect()
    }

    #[test]
    fn the_table_has_each_name_of_the_libraries_and_no_other() {
        assert_eq!(
            names_in("`a`, `Limits::pixels`, `{x}` `pictures[{topic}].bits = {bits}` `b::c`"),
            ["`Limits::pixels`", "`pictures[{}].bits = {}`"]
        );
        let used: BTreeSet<_> =
            texts_of_libraries().iter().flat_map(|found| names_in(&found.text)).collect();
        let known: BTreeSet<_> = NAMES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(
            used, known,
            "names of the API in texts of the libraries (left), and those of NAMES (right)"
        );
    }

    #[test]
    fn the_options_of_the_table_exist() {
        let program = Program::new();
        for (name, option) in NAMES {
            assert_eq!(program.named_in(option).len(), 1, "{option}");
            let values = |text: &str| text.matches("{}").count();
            assert_eq!(values(name), values(option), "{name}");
        }
    }
}

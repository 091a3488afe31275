//! The texts in the source code of a crate.

use std::{
    fs, io,
    iter::Peekable,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, Group, Literal, TokenStream, TokenTree, token_stream::IntoIter};

/// A string literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The file with it.
    pub file: PathBuf,
    /// The line on which it begins, from 1.
    pub line: usize,
    /// The text between its quotes, as it is in the file; but where a line ends with a backslash,
    /// the next line is joined to it.
    pub text: String,
}

/// The string literals of a crate whose root is the file `root`, in all of its modules, but not in
/// comments, documentation, and items under `#[cfg(test)]`.
///
/// # Errors
/// When a module cannot be read or is no Rust.
pub fn texts(root: &Path) -> io::Result<Vec<Text>> {
    let mut found = Vec::new();
    read(root, root.parent().unwrap_or(Path::new("")), &mut found)?;
    Ok(found)
}

/// Reads a file whose modules are in `directory`.
fn read(file: &Path, directory: &Path, found: &mut Vec<Text>) -> io::Result<()> {
    let named = |error: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", file.display()))
    };
    let source = fs::read_to_string(file).map_err(|error| named(&error))?;
    let tokens: TokenStream = source.parse().map_err(|error| named(&error))?;
    Reader { file, found }.items(tokens, directory)
}

struct Reader<'a> {
    file: &'a Path,
    found: &'a mut Vec<Text>,
}

impl Reader<'_> {
    /// Reads a sequence of tokens; modules without a body are files in `directory`.
    fn items(&mut self, tokens: TokenStream, directory: &Path) -> io::Result<()> {
        let mut tokens = tokens.into_iter().peekable();
        // The path in an attribute of the next item.
        let mut path = None;
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    // `#![…]` is about the whole file.
                    tokens.next_if(|next| is_punct(next, '!'));
                    let Some(attribute) = next_group(&mut tokens, Delimiter::Bracket) else {
                        continue;
                    };
                    match Attribute::of(&attribute) {
                        Attribute::Documentation => {}
                        Attribute::Test => skip_item(&mut tokens),
                        Attribute::Path(file) => path = Some(file),
                        Attribute::Other => self.items(attribute.stream(), directory)?,
                    }
                }
                TokenTree::Ident(word) if word == "mod" => {
                    let Some(TokenTree::Ident(name)) = tokens.next() else { continue };
                    let name = name.to_string();
                    if let Some(body) = next_group(&mut tokens, Delimiter::Brace) {
                        self.items(body.stream(), &directory.join(name))?;
                    } else {
                        self.module(&name, path.take(), directory)?;
                    }
                }
                TokenTree::Group(group) => self.items(group.stream(), directory)?,
                TokenTree::Literal(literal) => self.literal(&literal),
                _ => {}
            }
        }
        Ok(())
    }

    fn module(&mut self, name: &str, path: Option<String>, directory: &Path) -> io::Result<()> {
        if let Some(path) = path {
            let file = self.file.with_file_name(path);
            let directory = file.parent().unwrap_or(directory).to_path_buf();
            return read(&file, &directory, self.found);
        }
        let inside = directory.join(name);
        let file = directory.join(format!("{name}.rs"));
        match file.exists() {
            true => read(&file, &inside, self.found),
            false => read(&inside.join("mod.rs"), &inside, self.found),
        }
    }

    fn literal(&mut self, literal: &Literal) {
        let source = literal.to_string();
        let quoted = source.trim_start_matches(['b', 'c', 'r']).trim_matches('#');
        let text = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        if let Some(text) = text {
            let mut lines = text.split("\\\n");
            let first = lines.next().unwrap_or_default().to_owned();
            let text = lines.fold(first, |text, line| text + line.trim_start());
            let line = literal.span().start().line;
            self.found.push(Text { file: self.file.into(), line, text });
        }
    }
}

/// What an attribute means for the texts.
enum Attribute {
    Documentation,
    /// The item is only in tests.
    Test,
    /// The file of a module.
    Path(String),
    Other,
}

impl Attribute {
    fn of(attribute: &Group) -> Self {
        let mut tokens = attribute.stream().into_iter();
        let Some(TokenTree::Ident(name)) = tokens.next() else { return Self::Other };
        match (name.to_string().as_str(), tokens.last()) {
            ("doc", _) => Self::Documentation,
            ("cfg", Some(TokenTree::Group(condition))) if is_test(condition.stream()) => Self::Test,
            ("path", Some(TokenTree::Literal(file))) => {
                Self::Path(file.to_string().trim_matches('"').into())
            }
            _ => Self::Other,
        }
    }
}

/// Whether a condition is met only in tests: it is `test`, or `all(…)` with it.
fn is_test(condition: TokenStream) -> bool {
    let mut tokens = condition.into_iter();
    let mut is_all = false;
    tokens.any(|token| match token {
        TokenTree::Ident(word) => {
            is_all = word == "all";
            word == "test"
        }
        TokenTree::Group(inner) => is_all && is_test(inner.stream()),
        _ => false,
    })
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

fn next_group(tokens: &mut Peekable<IntoIter>, delimiter: Delimiter) -> Option<Group> {
    let is_it = |token: &TokenTree| matches!(token, TokenTree::Group(group) if group.delimiter() == delimiter);
    match tokens.next_if(is_it) {
        Some(TokenTree::Group(group)) => Some(group),
        _ => None,
    }
}

/// Skips an item: up to its body, or its semicolon.
fn skip_item(tokens: &mut Peekable<IntoIter>) {
    let is_end = |token: TokenTree| {
        is_punct(&token, ';')
            || matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
    };
    let _ = tokens.any(is_end);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_of_all_modules_without_tests_and_comments() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        };
        let root = write(
            "lib.rs",
            r##"//! "no"
            /* "no" /* "no" */ "no" */
            #[cfg(test)]
            mod tests;
            #[cfg(all(test, feature = "no"))]
            mod counted;
            /// "no"
            mod a;
            #[cfg(all(unix, feature = "a feature"))]
            mod b { mod inside; }
            #[path = "elsewhere.rs"]
            mod c;
            #[error("of an attribute {0}")]
            struct E(char);
            #[cfg(test)]
            mod inline { const A: &str = "no"; }
            #[cfg(test)]
            const A: &str = "no";
            #[cfg(not(test))]
            const B: &str = "not in a test";
            fn f() { let (a, q, b) = ('"', '\'', b"bytes"); g!(r#"raw "quoted" text"#, 'a'); // "no"
                print("of two \
                       lines") }
            "##,
        );
        write("a.rs", "mod deeper; const A: &str = \"in a\";");
        write("a/deeper/mod.rs", "const A: &str = \"in a::deeper\";");
        write("b/inside.rs", "const A: &str = \"in b::inside\";");
        let elsewhere = write("elsewhere.rs", "\n\nconst A: &str = \"elsewhere\";");
        let found = texts(&root).unwrap();
        let all: Vec<_> = found.iter().map(|found| found.text.as_str()).collect();
        assert_eq!(
            all,
            [
                "in a::deeper",
                "in a",
                "a feature",
                "in b::inside",
                "elsewhere",
                "of an attribute {0}",
                "not in a test",
                "bytes",
                "raw \"quoted\" text",
                "of two lines",
            ]
        );
        let text = "elsewhere".into();
        assert!(found.contains(&Text { file: elsewhere, line: 3, text }));
        write("a.rs", "mod absent;");
        let error = texts(&root).unwrap_err().to_string();
        assert!(error.contains("absent"), "{error}");
    }
}

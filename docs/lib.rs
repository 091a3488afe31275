//! Compiles the Rust code of pages, as doc tests: `cargo test -p encoder-docs`. A page that is not
//! listed here is not compiled.

/// A page whose code blocks are doc tests.
#[cfg(doctest)]
macro_rules! page {
    ($($name:ident = $path:literal;)*) => {$(
        #[doc = include_str!($path)]
        mod $name {}
    )*};
}

#[cfg(doctest)]
page! {
    add_a_destination = "add-a-destination.md";
    add_a_source = "add-a-source.md";
    embedding = "embedding.md";
    of_core = "../encoder-core/README.md";
    of_workspace = "../README.md";
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs, path::Path};

    /// Pages with code that are neither listed above nor part of their crate's documentation.
    fn missing(pages: &[(String, String)], included: impl Fn(&str) -> bool) -> Vec<&str> {
        let has_code = |text: &str| {
            text.lines().any(|line| line.starts_with("```rust") && !line.contains("ignore"))
        };
        let listed = include_str!("lib.rs");
        let unknown = |name: &str| !listed.contains(&format!("\"{name}\";")) && !included(name);
        let all = pages.iter().filter(|(name, text)| has_code(text) && unknown(name));
        all.map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn every_page_with_code_is_compiled() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut pages = Vec::new();
        for entry in fs::read_dir(here).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.file_name().unwrap().to_str().unwrap().to_string();
                pages.push((name, fs::read_to_string(path).unwrap()));
            }
        }
        let of_workspace = "../README.md".to_owned();
        let text = fs::read_to_string(here.join(&of_workspace)).unwrap();
        pages.push((of_workspace, text));
        for entry in fs::read_dir(here.parent().unwrap()).unwrap() {
            let folder = entry.unwrap().file_name().into_string().unwrap();
            let name = format!("../{folder}/README.md");
            if folder.starts_with("encoder-")
                && let Ok(text) = fs::read_to_string(here.join(&name))
            {
                pages.push((name, text));
            }
        }
        assert!(pages.len() > 20, "{pages:?}");
        let by_its_crate = |name: &str| {
            let library = here.join(name).with_file_name("src").join("lib.rs");
            fs::read_to_string(library)
                .is_ok_and(|text| text.contains("include_str!(\"../README.md\")"))
        };
        assert_eq!(missing(&pages, by_its_crate), [""; 0]);
        pages.push(("new.md".into(), "```rust,no_run\n```\n".into()));
        pages.push(("words.md".into(), "```rust,ignore\n```\n".into()));
        assert_eq!(missing(&pages, by_its_crate), ["new.md"]);
    }
}

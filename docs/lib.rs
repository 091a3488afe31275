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
    add_a_source = "add-a-source.md";
    embedding = "embedding.md";
    of_core = "../encoder-core/README.md";
    of_ffmpeg = "../encoder-ffmpeg/README.md";
    of_nvenc = "../encoder-nvenc/README.md";
    of_openh264 = "../encoder-openh264/README.md";
    of_qsv = "../encoder-qsv/README.md";
    of_vaapi = "../encoder-vaapi/README.md";
    of_videotoolbox = "../encoder-videotoolbox/README.md";
    of_x264 = "../encoder-x264/README.md";
}

//! OpenH264 backend: embedded, built from source, needs nothing installed.

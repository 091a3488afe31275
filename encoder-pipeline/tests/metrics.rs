//! The page of metrics and the dashboard describe exactly the existing metrics.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use encoder_pipeline::metrics::{ALL, FAILOVER_REASONS, Kind, LATENCY};
use serde_json::Value;

const PAGE: &str = include_str!("../../docs/metrics.md");

#[test]
fn the_page_lists_every_metric_as_it_is() {
    let rows: Vec<_> = PAGE.lines().filter(|line| line.starts_with("| `encoder_")).collect();
    let expected: Vec<_> = ALL
        .iter()
        .map(|metric| {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let labels =
                if labels.is_empty() { " ".into() } else { format!(" {} ", labels.join(", ")) };
            format!("| `{}` | {kind} |{labels}| {} | {} |", metric.name, metric.unit, metric.help)
        })
        .collect();
    assert_eq!(rows, expected);
    for reason in FAILOVER_REASONS {
        assert!(PAGE.contains(&format!("`{reason}`")), "{reason}");
    }
    let page: BTreeSet<_> = names(PAGE);
    assert_eq!(page, known(&["encoder_pipeline"]), "the rest of the page");
}

#[test]
fn the_dashboard_shows_every_metric_and_no_other() {
    let dashboard: Value = serde_json::from_str(include_str!("../../docs/grafana.json")).unwrap();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 39);
    let variables: Vec<_> =
        list(&dashboard["templating"]["list"]).iter().map(|v| &v["name"]).collect();
    assert_eq!(variables, ["datasource", "instance", "encoder_type"]);
    let mut shown = BTreeSet::new();
    let mut ids = BTreeSet::new();
    let mut places = BTreeSet::new();
    for panel in list(&dashboard["panels"]) {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let place = &panel["gridPos"];
        let (x, y) = (place["x"].as_u64().unwrap(), place["y"].as_u64().unwrap());
        let (w, h) = (place["w"].as_u64().unwrap(), place["h"].as_u64().unwrap());
        assert!(x + w <= 24, "{panel}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(places.insert(cell), "two panels at one place: {panel}");
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}");
        for target in list(&panel["targets"]) {
            assert_eq!(target["datasource"]["uid"], "${datasource}");
            let expr = target["expr"].as_str().unwrap();
            assert!(expr.contains(r#"encoder_type=~"$encoder_type""#), "{expr}");
            assert_eq!(expr.matches('(').count(), expr.matches(')').count(), "{expr}");
            shown.extend(names(expr));
        }
    }
    assert_eq!(shown, known(&[]));
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

/// The names of all metrics, and of `more`.
fn known(more: &[&str]) -> BTreeSet<String> {
    let names = ALL.iter().map(|metric| metric.name);
    names.chain(more.iter().copied()).map(str::to_owned).collect()
}

/// Every `encoder_…` name in a text except the label; a histogram by its base name.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("encoder_") && *word != "encoder_type")
        .map(|word| match word.strip_suffix("_bucket") {
            Some(name) if name == LATENCY => name.to_owned(),
            _ => word.to_owned(),
        })
        .collect()
}

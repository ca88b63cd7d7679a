//! Writes families down in Prometheus' text format, version 0.0.4.
//!
//! Always true here: families come in order of their names, samples in order of their label values, labels
//! in order of their names with `le` last, numbers as Go prints them; so the text equals what a Go client
//! library writes for the same values. Pure; called by the scraper, never on the request path.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::cells::HistogramTotals;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A label's name and value. Give them in order of the names.
pub(super) type Label<'a> = (&'static str, &'a str);

/// All families of one scrape.
#[derive(Default)]
pub(super) struct Page {
    families: BTreeMap<String, Family>,
}

struct Family {
    help: String,
    kind: Kind,
    /// By label values: the finished lines.
    samples: BTreeMap<Vec<String>, String>,
}

impl Page {
    pub(super) fn counter(&mut self, name: &str, help: &str, labels: &[Label<'_>], value: f64) {
        self.sample(name, help, Kind::Counter, labels, value);
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, labels: &[Label<'_>], value: f64) {
        self.sample(name, help, Kind::Gauge, labels, value);
    }

    fn sample(&mut self, name: &str, help: &str, kind: Kind, labels: &[Label<'_>], value: f64) {
        let mut line = String::new();
        push_sample(&mut line, name, "", labels, None, &go_float(value));
        self.add(name, help, kind, labels, line);
    }

    pub(super) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        labels: &[Label<'_>],
        totals: &HistogramTotals,
    ) {
        let mut lines = String::new();
        let mut below = 0;
        for (bound, count) in totals.bounds.iter().zip(&totals.buckets) {
            below += count;
            let bound = go_float(*bound);
            push_sample(
                &mut lines,
                name,
                "_bucket",
                labels,
                Some(&bound),
                &below.to_string(),
            );
        }
        let all = totals.buckets.iter().sum::<u64>().to_string();
        push_sample(&mut lines, name, "_bucket", labels, Some("+Inf"), &all);
        push_sample(
            &mut lines,
            name,
            "_sum",
            labels,
            None,
            &go_float(totals.sum),
        );
        push_sample(&mut lines, name, "_count", labels, None, &all);
        self.add(name, help, Kind::Histogram, labels, lines);
    }

    fn add(&mut self, name: &str, help: &str, kind: Kind, labels: &[Label<'_>], lines: String) {
        debug_assert!(
            labels.is_sorted_by_key(|(name, _)| *name),
            "labels of {name} in order"
        );
        let family = self
            .families
            .entry(name.to_owned())
            .or_insert_with(|| Family {
                help: help.to_owned(),
                kind,
                samples: BTreeMap::new(),
            });
        debug_assert_eq!(family.kind, kind, "{name} has one type");
        let values = labels
            .iter()
            .map(|(_, value)| (*value).to_owned())
            .collect();
        let replaced = family.samples.insert(values, lines);
        debug_assert!(replaced.is_none(), "{name} {labels:?} occurs once");
    }

    pub(super) fn finish(self) -> String {
        let mut out = String::new();
        for (name, family) in self.families {
            out.push_str("# HELP ");
            out.push_str(&name);
            out.push(' ');
            push_escaped(&mut out, &family.help, false);
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let _ = writeln!(out, "\n# TYPE {name} {kind}");
            out.extend(family.samples.into_values());
        }
        out
    }
}

fn push_sample(
    out: &mut String,
    name: &str,
    suffix: &str,
    labels: &[Label<'_>],
    le: Option<&str>,
    value: &str,
) {
    out.push_str(name);
    out.push_str(suffix);
    let mut open = '{';
    for (name, value) in labels.iter().copied().chain(le.map(|bound| ("le", bound))) {
        out.push(open);
        out.push_str(name);
        out.push_str("=\"");
        push_escaped(out, value, true);
        out.push('"');
        open = ',';
    }
    if open == ',' {
        out.push('}');
    }
    out.push(' ');
    out.push_str(value);
    out.push('\n');
}

fn push_escaped(out: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

/// The shortest text that reads back as the same number, in the shape Go's `%g` gives it: an exponent of
/// at least two digits below 0.0001 and from a million on.
pub(super) fn go_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific
        .split_once('e')
        .expect("`e` format has an exponent");
    let exponent: i32 = exponent.parse().expect("`e` format has a decimal exponent");
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_go_prints_them() {
        let check = |value, expected: &str| assert_eq!(go_float(value), expected);
        check(0.0, "0");
        check(1.0, "1");
        check(-1.0, "-1");
        check(0.0001, "0.0001");
        check(0.00001, "1e-05");
        check(0.0002048, "0.0002048");
        check(8.192, "8.192");
        check(409600.0, "409600");
        check(819200.0, "819200");
        check(1_048_576.0, "1.048576e+06");
        check(8_388_608.0, "8.388608e+06");
        check(1_767_366_245.5, "1.7673662455e+09");
        check(2_147_483_648.0, "2.147483648e+09");
        check(1e100, "1e+100");
        check(f64::INFINITY, "+Inf");
        check(f64::NAN, "NaN");
    }

    #[test]
    fn a_page_is_ordered_and_escaped() {
        static BOUNDS: [f64; 2] = [0.5, 1.0];
        let mut page = Page::default();
        page.counter("b_total", "counts", &[("k", "y")], 2.0);
        page.counter("b_total", "counts", &[("k", "x\"\\\n")], 1.0);
        let totals = HistogramTotals {
            bounds: &BOUNDS,
            buckets: vec![1, 2, 3],
            sum: 7.25,
        };
        page.histogram("a_seconds", "line\nbreak", &[("op", "Put")], &totals);
        page.gauge("c", "", &[], 0.0);
        assert_eq!(
            page.finish(),
            r#"# HELP a_seconds line\nbreak
# TYPE a_seconds histogram
a_seconds_bucket{op="Put",le="0.5"} 1
a_seconds_bucket{op="Put",le="1"} 3
a_seconds_bucket{op="Put",le="+Inf"} 6
a_seconds_sum{op="Put"} 7.25
a_seconds_count{op="Put"} 6
# HELP b_total counts
# TYPE b_total counter
b_total{k="x\"\\\n"} 1
b_total{k="y"} 2
# HELP c 
# TYPE c gauge
c 0
"#
        );
    }
}

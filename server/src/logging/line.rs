//! One log line: the bytes etcd's logger would write.
//!
//! Always true here: a JSON line is one valid JSON object and one newline, whatever texts are in it; keys
//! come in the order `level`, `ts`, `caller`, `msg`, then fields as given; time is UTC with microseconds.
//! Pure: time and place are passed in. Called on every core that logs, into a buffer it reuses.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{LogFormat, LogLevel};

/// Where and when a line was logged.
pub(super) struct Head<'a> {
    pub(super) level: LogLevel,
    pub(super) time: SystemTime,
    /// Source path, shortened to its last two parts.
    pub(super) file: &'a str,
    pub(super) line: u32,
}

/// A field's value, before encoding.
pub(super) enum Value<'a> {
    Text(&'a str),
    /// Already JSON: numbers and booleans.
    Literal(&'a str),
}

/// Fields gathered while an event is visited, encoded for the format.
pub(super) struct Fields {
    format: LogFormat,
    pub(super) encoded: String,
}

impl Fields {
    pub(super) fn new(format: LogFormat) -> Fields {
        Fields {
            format,
            encoded: String::new(),
        }
    }

    pub(super) fn push(&mut self, key: &str, value: Value<'_>) {
        let (between, after_key) = match self.format {
            LogFormat::Json => (",", ":"),
            LogFormat::Console if self.encoded.is_empty() => ("", ": "),
            LogFormat::Console => (", ", ": "),
        };
        self.encoded.push_str(between);
        push_json_text(&mut self.encoded, key);
        self.encoded.push_str(after_key);
        match value {
            Value::Text(text) => push_json_text(&mut self.encoded, text),
            Value::Literal(literal) => self.encoded.push_str(literal),
        }
    }
}

/// Appends the whole line, newline included.
pub(super) fn push_line(out: &mut String, head: &Head<'_>, message: &str, fields: &Fields) {
    let level = head.level.name();
    let caller = short(head.file);
    match fields.format {
        LogFormat::Json => {
            out.push_str(r#"{"level":""#);
            out.push_str(level);
            out.push_str(r#"","ts":""#);
            push_time(out, head.time);
            out.push_str(r#"","caller":""#);
            let _ = write!(out, "{caller}:{}", head.line);
            out.push_str(r#"","msg":"#);
            push_json_text(out, message);
            out.push_str(&fields.encoded);
            out.push_str("}\n");
        }
        LogFormat::Console => {
            push_time(out, head.time);
            let _ = write!(out, "\t{level}\t{caller}:{}\t", head.line);
            // A line break inside a message would look like a line of its own.
            out.extend(
                message
                    .chars()
                    .map(|c| if c.is_control() { ' ' } else { c }),
            );
            if !fields.encoded.is_empty() {
                let _ = write!(out, "\t{{{}}}", fields.encoded);
            }
            out.push('\n');
        }
    }
}

/// `server/src/config/mod.rs` → `config/mod.rs`.
fn short(path: &str) -> &str {
    let mut slashes = path.rmatch_indices('/');
    slashes.next();
    match slashes.next() {
        Some((position, _)) => &path[position + 1..],
        None => path,
    }
}

/// `2026-01-02T15:04:05.000000Z`.
/// Year, month, day, hour, minute, second and millisecond.
pub(super) fn utc_parts(time: SystemTime) -> [u64; 7] {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let millis = u64::from(since.subsec_millis());
    [year, month, day, hour, minute, second, millis]
}

fn push_time(out: &mut String, time: SystemTime) {
    let [year, month, day, hour, minute, second, _] = utc_parts(time);
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let micros = since.subsec_micros();
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
    );
}

/// The Gregorian date of a day since 1970-01-01. Counts in years that begin in March, so that the leap
/// day is the last of its year, and in eras of 400 years, which all have the same length.
fn civil_date(days: u64) -> (u64, u64, u64) {
    const DAYS_BEFORE_1970: u64 = 719_468;
    const ERA_DAYS: u64 = 146_097;
    let days = days + DAYS_BEFORE_1970;
    let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + carry, month, day)
}

pub(super) fn push_json_text(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(position) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
        let (plain, tail) = rest.split_at(position);
        out.push_str(plain);
        let special = tail.as_bytes()[0];
        match special {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            other => {
                let _ = write!(out, "\\u{other:04x}");
            }
        }
        rest = &tail[1..];
    }
    out.push_str(rest);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: LogFormat, message: &str, fields: &[(&str, Value<'_>)]) -> String {
        let mut encoded = Fields::new(format);
        for (key, value) in fields {
            let value = match value {
                Value::Text(text) => Value::Text(text),
                Value::Literal(literal) => Value::Literal(literal),
            };
            encoded.push(key, value);
        }
        let head = Head {
            level: LogLevel::Info,
            time: UNIX_EPOCH + Duration::from_micros(1_767_366_245_000_042),
            file: "server/src/config/mod.rs",
            line: 12,
        };
        let mut out = String::new();
        push_line(&mut out, &head, message, &encoded);
        out
    }

    #[test]
    fn a_json_line_has_etcds_keys_in_order() {
        let fields = [
            ("status-code", Value::Literal("503")),
            ("path", Value::Text("a\"b\\c\n\u{1}é")),
        ];
        assert_eq!(
            line(LogFormat::Json, "ready to serve client requests", &fields),
            "{\"level\":\"info\",\"ts\":\"2026-01-02T15:04:05.000042Z\",\"caller\":\"config/mod.rs:12\",\
             \"msg\":\"ready to serve client requests\",\"status-code\":503,\
             \"path\":\"a\\\"b\\\\c\\n\\u0001é\"}\n"
        );
    }

    #[test]
    fn a_console_line_has_columns() {
        let fields = [("a", Value::Literal("1")), ("b", Value::Text("x"))];
        assert_eq!(
            line(LogFormat::Console, "hello\nworld", &fields),
            "2026-01-02T15:04:05.000042Z\tinfo\tconfig/mod.rs:12\thello world\t{\"a\": 1, \"b\": \"x\"}\n"
        );
        assert!(line(LogFormat::Console, "plain", &[]).ends_with("\tplain\n"));
    }

    #[test]
    fn every_text_gives_valid_json() {
        let nasty: String = (0..=0x2fff).filter_map(char::from_u32).collect();
        let text = line(LogFormat::Json, &nasty, &[("k", Value::Text(&nasty))]);
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["msg"], nasty.as_str());
        assert_eq!(parsed["k"], nasty.as_str());
        assert_eq!(text.matches('\n').count(), 1);
    }

    #[test]
    fn dates_follow_the_calendar() {
        let check = |days, expected| assert_eq!(civil_date(days), expected, "day {days}");
        check(0, (1970, 1, 1));
        check(59, (1970, 3, 1));
        check(11_016, (2000, 2, 29));
        check(11_017, (2000, 3, 1));
        check(19_782, (2024, 2, 29));
        check(20_454, (2026, 1, 1));
        check(47_540, (2100, 2, 28));
        check(47_541, (2100, 3, 1));
    }
}

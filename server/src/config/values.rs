//! Parsers for single values, in the spellings Go's flag package accepts.
//!
//! Always true here: the same text means the same value as for etcd, or is refused by both. Durations are
//! Go's (`1h30m`, `1.5s`, `300ms`, `0`). Pure; knows no flag names.

pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("parse error".to_owned()),
    }
}

/// An integer in decimal, `0x`, `0o`, `0b` or old octal, with underscores between digits where a prefix
/// allows them.
pub(super) fn parse_integer(text: &str) -> Result<i128, String> {
    let error = || "parse error".to_owned();
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest.replace('_', ""))
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest.replace('_', ""))
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest.replace('_', ""))
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, lower[1..].replace('_', ""))
    } else {
        (10, lower)
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(error());
    }
    let value =
        i128::from_str_radix(&digits, radix).map_err(|_| "value out of range".to_owned())?;
    Ok(if negative { -value } else { value })
}

/// A Go duration in nanoseconds; negative ones are valid text.
pub(super) fn parse_duration_ns(text: &str) -> Result<i64, String> {
    let error = || "parse error".to_owned();
    let (negative, mut rest) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(error());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let whole_end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
        let (whole, after) = rest.split_at(whole_end);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => {
                let end = after
                    .find(|c: char| !c.is_ascii_digit())
                    .ok_or_else(error)?;
                after.split_at(end)
            }
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(error());
        }
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit_ns: i128 = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(error()),
        };
        // Nineteen digits hold any duration there is; more would only overflow the sum.
        if whole.len() > 19 {
            return Err(error());
        }
        let whole: i128 = if whole.is_empty() {
            0
        } else {
            whole.parse().map_err(|_| error())?
        };
        total += whole * unit_ns;
        let mut scale = unit_ns;
        let mut part: i128 = 0;
        let mut weight: i128 = 1;
        for digit in fraction.bytes().take(15) {
            part = part * 10 + i128::from(digit - b'0');
            weight *= 10;
        }
        scale *= part;
        total += scale / weight;
        if total > i128::from(i64::MAX) {
            return Err(error());
        }
        rest = after;
    }
    let total = total as i64;
    Ok(if negative { -total } else { total })
}

/// What Go says about a text that is no duration, as etcd repeats it.
pub(super) fn duration_error(text: &str) -> String {
    let invalid = format!("time: invalid duration {text:?}");
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    while !rest.is_empty() {
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        let is_number = number.bytes().any(|b| b.is_ascii_digit());
        if !is_number || number.bytes().filter(|b| *b == b'.').count() > 1 {
            return invalid;
        }
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        match unit {
            "" => return format!("time: missing unit in duration {text:?}"),
            "ns" | "us" | "\u{b5}s" | "\u{3bc}s" | "ms" | "s" | "m" | "h" => {}
            _ => return format!("time: unknown unit {unit:?} in duration {text:?}"),
        }
        rest = after;
    }
    invalid
}

/// `0-3,8`: single cores and ranges, ascending in the result; each may be named once.
pub(super) fn parse_cores(text: &str) -> Result<Vec<usize>, String> {
    /// Linux supports no more; also keeps a typing error from asking for a huge list.
    const CORE_NUMBER_MAX: usize = 8191;
    let error = || {
        format!(
            r#""{text}" is not a list of cores; write `auto`, or numbers and ranges like `0-3,8`"#
        )
    };
    let number = |digits: &str| -> Result<usize, String> {
        let core: usize = digits.trim().parse().map_err(|_| error())?;
        if core > CORE_NUMBER_MAX {
            Err(error())
        } else {
            Ok(core)
        }
    };
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(error());
        }
        cores.extend(first..=last);
    }
    cores.sort_unstable();
    if let Some(twice) = cores.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!(
            r#""{text}" names core {} twice; a core runs its stages once, name each once"#,
            twice[0]
        ));
    }
    Ok(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_gos_syntax() {
        let check = |text: &str, expected: Option<i64>| {
            assert_eq!(parse_duration_ns(text).ok(), expected, "{text}");
        };
        check("0", Some(0));
        check("10s", Some(10_000_000_000));
        check("1h30m", Some(5_400_000_000_000));
        check("2h0m0s", Some(7_200_000_000_000));
        check("1.5s", Some(1_500_000_000));
        check(".5s", Some(500_000_000));
        check("1.s", Some(1_000_000_000));
        check("300ms", Some(300_000_000));
        check("7us", Some(7_000));
        check("7µs", Some(7_000));
        check("-1s", Some(-1_000_000_000));
        check("+1ns", Some(1));
        check("9223372036854775807ns", Some(i64::MAX));
        for bad in [
            "",
            "-",
            "5",
            "s",
            "1 s",
            "1x",
            ".s",
            "1.",
            "5m3",
            "9223372036854775808ns",
        ] {
            check(bad, None);
        }
        check("99999999999999999999h", None);
    }

    #[test]
    fn what_is_no_duration_is_refused_in_gos_words() {
        let check = |text: &str, expected: &str| assert_eq!(duration_error(text), expected);
        check("abc", "time: invalid duration \"abc\"");
        check("", "time: invalid duration \"\"");
        check("-5", "time: missing unit in duration \"-5\"");
        check("1h5", "time: missing unit in duration \"1h5\"");
        check("1d", "time: unknown unit \"d\" in duration \"1d\"");
        check("1.2.3s", "time: invalid duration \"1.2.3s\"");
        check(
            "99999999999999999999h",
            "time: invalid duration \"99999999999999999999h\"",
        );
    }

    #[test]
    fn booleans_and_integers_follow_gos_spellings() {
        assert_eq!(parse_bool("T"), Ok(true));
        assert_eq!(parse_bool("FALSE"), Ok(false));
        assert!(parse_bool("yes").is_err());
        assert_eq!(parse_integer("-12"), Ok(-12));
        assert_eq!(parse_integer("0x10"), Ok(16));
        assert_eq!(parse_integer("010"), Ok(8));
        assert_eq!(parse_integer("0"), Ok(0));
        for bad in ["", "-", "1_0", "08", "0x", "1.0", " 1", "--1"] {
            assert!(parse_integer(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn core_lists_take_numbers_and_ranges() {
        assert_eq!(parse_cores("3,0-1"), Ok(vec![0, 1, 3]));
        for bad in ["", "a", "2-1", "1,,2", "0-99999999"] {
            assert!(parse_cores(bad).is_err(), "{bad}");
        }
        for twice in ["1,1", "3,0-1,1", "0-2,2-3"] {
            let why = parse_cores(twice).expect_err("a core is named twice");
            assert!(why.contains("twice"), "{why}");
        }
    }
}

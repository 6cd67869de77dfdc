//! Figures as people read them.

/// Something that is a number; one that is not there is shown as a dash.
pub(in crate::admin) trait Figure {
    fn figure(&self) -> Option<f64>;
}

macro_rules! figure {
    ($($of:ty)*) => {$(
        impl Figure for $of {
            fn figure(&self) -> Option<f64> {
                Some(*self as f64)
            }
        }
    )*};
}
figure!(f64 u64 i64 u32 i32 u16 i16 usize);

impl<T: Figure> Figure for Option<T> {
    fn figure(&self) -> Option<f64> {
        self.as_ref()?.figure()
    }
}

impl<T: Figure + ?Sized> Figure for &T {
    fn figure(&self) -> Option<f64> {
        (**self).figure()
    }
}

const NOTHING: &str = "–";

fn shown(figure: impl Figure, show: impl FnOnce(f64) -> String) -> String {
    figure.figure().map_or_else(|| NOTHING.to_owned(), show)
}

/// `1.5 MiB`.
pub(in crate::admin) fn bytes(figure: impl Figure) -> String {
    shown(figure, |mut size| {
        for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
            if size < 1024.0 || unit == "TiB" {
                return match unit {
                    "B" => format!("{size:.0} B"),
                    _ if size < 10.0 => format!("{size:.2} {unit}"),
                    _ if size < 100.0 => format!("{size:.1} {unit}"),
                    _ => format!("{size:.0} {unit}"),
                };
            }
            size /= 1024.0;
        }
        String::new()
    })
}

/// `1.5 MiB/s`.
pub(in crate::admin) fn byte_rate(figure: impl Figure) -> String {
    shown(figure, |rate| format!("{}/s", bytes(rate)))
}

/// `12,345`.
pub(in crate::admin) fn count(figure: impl Figure) -> String {
    shown(figure, |number| {
        let digits = format!("{:.0}", number.abs());
        let mut out = String::from(if number <= -0.5 { "-" } else { "" });
        for (n, digit) in digits.chars().enumerate() {
            if n > 0 && (digits.len() - n) % 3 == 0 {
                out.push(',');
            }
            out.push(digit);
        }
        out
    })
}

/// `12,345/s`.
pub(in crate::admin) fn rate(figure: impl Figure) -> String {
    shown(figure, |rate| match rate {
        0.0 => "0/s".to_owned(),
        rate if rate < 10.0 => format!("{rate:.1}/s"),
        rate => format!("{}/s", count(rate)),
    })
}

/// `1.2 ms`, `3.4 s`, `5 min`, `3 d 4 h`.
pub(in crate::admin) fn duration(ms: impl Figure) -> String {
    shown(ms, |ms| match ms {
        0.0 => "0 ms".to_owned(),
        ms if ms < 1.0 => format!("{:.0} µs", ms * 1e3),
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1e3 => format!("{ms:.0} ms"),
        ms if ms < 60e3 => format!("{:.1} s", ms / 1e3),
        ms => {
            let minutes = (ms / 60e3) as u64;
            match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
                (0, 0, minutes) => format!("{minutes} min {} s", (ms / 1e3) as u64 % 60),
                (0, hours, minutes) => format!("{hours} h {minutes} min"),
                (days, hours, _) => format!("{days} d {hours} h"),
            }
        }
    })
}

/// `12.3 %`.
pub(in crate::admin) fn percent(figure: impl Figure) -> String {
    shown(figure, |percent| format!("{percent:.1} %"))
}

/// `12.3 %` of one processor.
pub(in crate::admin) fn cpu(figure: impl Figure) -> String {
    shown(figure, |cpu| format!("{:.1} %", cpu * 100.0))
}

/// `2026-11-26 05:21:03`, UTC.
pub(in crate::admin) fn time(ms: impl Figure) -> String {
    shown(ms, |ms| match ms as i64 {
        ..0 => NOTHING.to_owned(),
        ms => {
            let (day, second) = (
                ms.div_euclid(86_400_000),
                ms.div_euclid(1000).rem_euclid(86_400),
            );
            let (year, month, day) = date(day);
            let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
            format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
        }
    })
}

/// The date of a day since 1970 (Howard Hinnant's civil_from_days).
fn date(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

/// A text as a part of a path.
pub(in crate::admin) fn path(text: impl AsRef<str>) -> String {
    let mut out = String::new();
    for byte in text.as_ref().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => out.push(char::from(byte)),
            b'.' if !matches!(text.as_ref(), "." | "..") => out.push('.'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// At most so many characters of a long name.
pub(in crate::admin) fn short(text: impl AsRef<str>) -> String {
    const CHARS_MAX: usize = 60;
    match text.as_ref().char_indices().nth(CHARS_MAX) {
        None => text.as_ref().to_owned(),
        Some((at, _)) => format!("{}…", &text.as_ref()[..at]),
    }
}

/// A word of the API for people.
pub(in crate::admin) fn words(text: impl AsRef<str>) -> String {
    text.as_ref().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_have_units() {
        assert_eq!(bytes(0u64), "0 B");
        assert_eq!(bytes(1536u64), "1.50 KiB");
        assert_eq!(bytes(250u64 << 20), "250 MiB");
        assert_eq!(bytes(None::<u64>), "–");
        assert_eq!(count(1_234_567i64), "1,234,567");
        assert_eq!(count(-1234i64), "-1,234");
        assert_eq!(rate(0.25), "0.2/s");
        assert_eq!(duration(0.5), "500 µs");
        assert_eq!(duration(90_000i64), "1 min 30 s");
        assert_eq!(duration(90_000_000i64), "1 d 1 h");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time(0i64), "1970-01-01 00:00:00");
        assert_eq!(time(951_782_400_000i64), "2000-02-29 00:00:00");
        assert_eq!(time(1_700_000_000_000i64), "2023-11-14 22:13:20");
        assert_eq!(time(-1i64), "–");
    }

    #[test]
    fn names_do_not_escape_their_path() {
        assert_eq!(path("a/b?c#d.e"), "a%2Fb%3Fc%23d.e");
        assert_eq!(path(".."), "%2E%2E");
        assert_eq!(path("<é>"), "%3C%C3%A9%3E");
    }
}

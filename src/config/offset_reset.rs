//! Where a share group begins with a partition: `share.auto.offset.reset` (Kafka's ShareGroupAutoOffsetResetStrategy).

use std::str::FromStr;

/// See the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetReset {
    /// With the first record there is.
    Earliest,
    /// With what comes from then on.
    Latest,
    /// With records of the last so many ms.
    ByDuration(i64),
}

/// The text before a duration.
const BY_DURATION: &str = "by_duration:";

impl FromStr for OffsetReset {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            _ => {
                let duration = text.strip_prefix(BY_DURATION).and_then(duration_ms);
                duration.map(Self::ByDuration).ok_or(())
            }
        }
    }
}

/// Milliseconds of an ISO 8601 duration of days, hours, minutes and seconds, not negative (`PnDTnHnMn.nS`).
fn duration_ms(text: &str) -> Option<i64> {
    let text = text.to_ascii_uppercase();
    let text = text.strip_prefix('P')?;
    let (date, time) = match text.split_once('T') {
        Some((_, "")) => return None,
        Some((date, time)) => (date, time),
        None => (text, ""),
    };
    if date.is_empty() && time.is_empty() {
        return None;
    }
    let mut total = parts(date, &[('D', 86_400_000)])?;
    let of_time = [('H', 3_600_000), ('M', 60_000), ('S', 1000)];
    total = total.checked_add(parts(time, &of_time)?)?;
    Some(total)
}

/// The sum of numbers with these units, each at most once and in this order.
fn parts(mut text: &str, units: &[(char, i64)]) -> Option<i64> {
    let mut total: i64 = 0;
    for (unit, ms) in units {
        if let Some((number, rest)) = text.split_once(*unit) {
            let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
            let is_number =
                |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            if !is_number(whole) || !is_number(fraction) || (number.contains('.') && *unit != 'S') {
                return None;
            }
            let whole: i64 = whole.parse().ok()?;
            let thousandths: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
            total = total.checked_add(whole.checked_mul(*ms)?)?;
            total = total.checked_add(thousandths)?;
            text = rest;
        }
    }
    text.is_empty().then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_iso_8601() {
        let of = |text: &str| format!("by_duration:{text}").parse::<OffsetReset>().ok();
        let ms = |ms| Some(OffsetReset::ByDuration(ms));
        assert_eq!(of("PT1H"), ms(3_600_000));
        assert_eq!(of("P1DT2H3M4.5S"), ms(93_784_500));
        assert_eq!(of("p2d"), ms(172_800_000));
        assert_eq!(of("PT0.001S"), ms(1));
        assert_eq!(of("PT0S"), ms(0));
        for wrong in [
            "", "P", "PT", "P1", "1H", "PT1H2", "PT1M1H", "PT-1S", "PT1.5H", "PT.5S", "P1H", "PTS",
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_group_begins_where_its_configuration_says() {
        assert_eq!("earliest".parse(), Ok(OffsetReset::Earliest));
        assert_eq!("latest".parse(), Ok(OffsetReset::Latest));
        for wrong in ["", "none", "by_duration", "PT1H"] {
            assert_eq!(wrong.parse::<OffsetReset>(), Err(()), "{wrong}");
        }
    }
}

//! Times of day as MetaQ's deleteWhen gives them: quartz's cron expressions, `0 0 6,18 * * ?` for six and eighteen
//! o'clock, in the machine's time zone.
//!
//! Fields: second, minute, hour, day of the month, month, day of the week, and optionally the year. Each is `*`, `?`
//! (days only), a number or a name (JAN, MON), a range `a-b`, a step `a/n`, `a-b/n` or `*/n`, or several of these
//! separated by commas; `L` is the last day of a month. Days of the week count from 1 for Sunday, as quartz does.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// A schedule is searched this far into the future; February 29 on a given weekday comes every 28 years.
const YEARS_SEARCHED_MAX: i16 = 40;
const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not six or seven fields.
    #[error(
        "expected second minute hour day month weekday, such as 0 0 6,18 * * ?, found {0} fields"
    )]
    Fields(usize),
    /// A field that is not understood.
    #[error(
        "{field}: {text:?} is not understood; numbers {low} to {high}, *, a-b, a/n and lists are"
    )]
    Field {
        /// Which.
        field: &'static str,
        /// Its text.
        text: String,
        /// Smallest number.
        low: u16,
        /// Largest number.
        high: u16,
    },
    /// No day is like that.
    #[error("there is no such day")]
    Never,
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    last_day: bool,
    any_day: bool,
    months: u64,
    weekdays: u64,
    any_weekday: bool,
    /// Empty for every year.
    years: Vec<u16>,
}

/// Names and range of a field.
struct Field {
    name: &'static str,
    low: u16,
    high: u16,
    names: &'static [&'static str],
}

impl Field {
    const fn new(name: &'static str, low: u16, high: u16) -> Self {
        Self {
            name,
            low,
            high,
            names: &[],
        }
    }

    fn error(&self, text: &str) -> ScheduleError {
        ScheduleError::Field {
            field: self.name,
            text: text.to_owned(),
            low: self.low,
            high: self.high,
        }
    }

    fn number(&self, text: &str) -> Result<u16, ScheduleError> {
        let upper = text.to_ascii_uppercase();
        let named = self.names.iter().position(|name| *name == upper);
        let number = named
            .map(|at| at as u16 + self.low)
            .or_else(|| text.parse().ok());
        number
            .filter(|number| (self.low..=self.high).contains(number))
            .ok_or_else(|| self.error(text))
    }

    /// All numbers that a field stands for.
    fn numbers(&self, text: &str) -> Result<Vec<u16>, ScheduleError> {
        let mut all = Vec::new();
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => {
                    let step = step.parse::<u16>().ok().filter(|step| *step > 0);
                    (range, Some(step.ok_or_else(|| self.error(part))?))
                }
                None => (part, None),
            };
            let (first, last) = match range.split_once('-') {
                Some((first, last)) => (self.number(first)?, self.number(last)?),
                None if range == "*" => (self.low, self.high),
                // A step goes on to the end.
                None if step.is_some() => (self.number(range)?, self.high),
                None => (self.number(range)?, self.number(range)?),
            };
            let step = usize::from(step.unwrap_or(1));
            if first <= last {
                all.extend((first..=last).step_by(step));
            } else {
                // Over the end, as FRI-MON.
                let around = (first..=self.high).chain(self.low..=last);
                all.extend(around.step_by(step));
            }
        }
        Ok(all)
    }

    fn bits(&self, text: &str) -> Result<u64, ScheduleError> {
        Ok(self
            .numbers(text)?
            .into_iter()
            .fold(0, |bits, number| bits | 1 << number))
    }
}

impl Schedule {
    /// Reads an expression.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let (fields, year) = match fields[..] {
            [s, m, h, d, mo, w] => ([s, m, h, d, mo, w], None),
            [s, m, h, d, mo, w, y] => ([s, m, h, d, mo, w], Some(y)),
            _ => return Err(ScheduleError::Fields(fields.len())),
        };
        let [second, minute, hour, day, month, weekday] = fields;
        let months = Field {
            names: &MONTHS,
            ..Field::new("month", 1, 12)
        };
        let weekdays = Field {
            names: &WEEKDAYS,
            ..Field::new("weekday", 1, 7)
        };
        let is_any = |text: &str| text == "*" || text == "?";
        let days_of = |field: &Field, text: &str| match is_any(text) {
            true => field.bits("*"),
            false => field.bits(text),
        };
        let last_day = day.eq_ignore_ascii_case("L");
        let schedule = Self {
            text: fields.into_iter().chain(year).collect::<Vec<_>>().join(" "),
            seconds: Field::new("second", 0, 59).bits(second)?,
            minutes: Field::new("minute", 0, 59).bits(minute)?,
            hours: Field::new("hour", 0, 23).bits(hour)?,
            days: match last_day {
                true => 0,
                false => days_of(&Field::new("day", 1, 31), day)?,
            },
            last_day,
            any_day: is_any(day),
            months: months.bits(month)?,
            weekdays: days_of(&weekdays, weekday)?,
            any_weekday: is_any(weekday),
            years: match year {
                None | Some("*") => Vec::new(),
                Some(year) => Field::new("year", 1970, 2199).numbers(year)?,
            },
        };
        // A day that never comes is a mistake; one that came is not.
        let begin = Date::constant(1970, 1, 1).at(0, 0, 0, 0);
        let begin = match schedule.years.iter().min() {
            Some(first) => DateTime::new(*first as i16, 1, 1, 0, 0, 0, 0).unwrap_or(begin),
            None => begin,
        };
        schedule.next_local(begin).ok_or(ScheduleError::Never)?;
        Ok(schedule)
    }

    /// The first time after `after_ms`, both in ms since 1970, in the machine's time zone; `None` when none comes.
    pub fn next_after(&self, after_ms: i64) -> Option<i64> {
        self.next_after_in(after_ms, &TimeZone::system())
    }

    fn next_after_in(&self, after_ms: i64, zone: &TimeZone) -> Option<i64> {
        let after = Timestamp::from_millisecond(after_ms).ok()?;
        let mut from = zone.to_datetime(after).checked_add(1.second()).ok()?;
        loop {
            let local = self.next_local(from)?;
            // A time that the clock skips is taken at the end of the gap; one that comes twice at the first.
            let at = local.to_zoned(zone.clone()).ok()?.timestamp();
            if at > after {
                return Some(at.as_millisecond());
            }
            from = local.checked_add(1.second()).ok()?;
        }
    }

    /// The first local time at or after `from`, to the second.
    fn next_local(&self, from: DateTime) -> Option<DateTime> {
        let mut date = from.date();
        let mut earliest = (from.hour(), from.minute(), from.second());
        let last_year = from.year().checked_add(YEARS_SEARCHED_MAX)?;
        while date.year() <= last_year {
            if self.is_day(date)
                && let Some((hour, minute, second)) = self.next_time(earliest)
            {
                return Some(date.at(hour, minute, second, 0));
            }
            earliest = (0, 0, 0);
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn is_day(&self, date: Date) -> bool {
        let year = date.year() as u16;
        if self.months & 1 << date.month() == 0
            || !(self.years.is_empty() || self.years.contains(&year))
        {
            return false;
        }
        let by_day = match self.last_day {
            true => date.day() == date.days_in_month(),
            false => self.days & 1 << date.day() != 0,
        };
        let weekday = date.weekday().to_sunday_one_offset();
        let by_weekday = self.weekdays & 1 << weekday != 0;
        // Where both are given, either will do.
        match (self.any_day, self.any_weekday) {
            (false, false) => by_day || by_weekday,
            _ => by_day && by_weekday,
        }
    }

    fn next_time(&self, (hour, minute, second): (i8, i8, i8)) -> Option<(i8, i8, i8)> {
        let next = |bits: u64, from: i8| {
            let bits = bits & u64::MAX.checked_shl(from as u32)?;
            (bits != 0).then(|| bits.trailing_zeros() as i8)
        };
        let first = |bits: u64| bits.trailing_zeros() as i8;
        let (first_minute, first_second) = (first(self.minutes), first(self.seconds));
        let at_hour = next(self.hours, hour)?;
        if at_hour > hour {
            return Some((at_hour, first_minute, first_second));
        }
        match next(self.minutes, minute) {
            Some(at) if at > minute => return Some((hour, at, first_second)),
            Some(_) => {
                if let Some(at) = next(self.seconds, second) {
                    return Some((hour, minute, at));
                }
                if let Some(at) = next(self.minutes, minute + 1) {
                    return Some((hour, at, first_second));
                }
            }
            None => {}
        }
        Some((next(self.hours, hour + 1)?, first_minute, first_second))
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        Self::parse(text)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str) -> String {
        let after: DateTime = after.parse().unwrap();
        let after = after.to_zoned(TimeZone::UTC).unwrap().timestamp();
        let schedule = Schedule::parse(schedule).unwrap();
        let at = schedule
            .next_after_in(after.as_millisecond(), &TimeZone::UTC)
            .unwrap();
        let at = Timestamp::from_millisecond(at).unwrap();
        TimeZone::UTC.to_datetime(at).to_string()
    }

    #[test]
    fn metaqs_default_is_six_and_eighteen_oclock() {
        let default = "0 0 6,18 * * ?";
        assert_eq!(next(default, "2024-02-28T06:00:00"), "2024-02-28T18:00:00");
        assert_eq!(next(default, "2024-02-28T18:00:00"), "2024-02-29T06:00:00");
        assert_eq!(next(default, "2024-12-31T23:59:59"), "2025-01-01T06:00:00");
    }

    #[test]
    fn steps_ranges_names_and_the_last_day_are_understood() {
        assert_eq!(
            next("0/5 * * * * ?", "2024-01-01T00:00:07"),
            "2024-01-01T00:00:10"
        );
        assert_eq!(
            next("0 */20 * * * ?", "2024-01-01T00:41:00"),
            "2024-01-01T01:00:00"
        );
        assert_eq!(
            next("0 0 0 ? * MON-FRI", "2024-01-05T01:00:00"),
            "2024-01-08T00:00:00"
        );
        assert_eq!(
            next("0 0 0 ? * 1", "2024-01-05T01:00:00"),
            "2024-01-07T00:00:00"
        );
        assert_eq!(
            next("0 0 3 L * ?", "2024-02-01T00:00:00"),
            "2024-02-29T03:00:00"
        );
        assert_eq!(
            next("30 59 23 1 JAN ? 2030", "2024-02-01T00:00:00"),
            "2030-01-01T23:59:30"
        );
        assert_eq!(
            next("0 0 0 29 FEB ?", "2024-03-01T00:00:00"),
            "2028-02-29T00:00:00"
        );
        assert_eq!(
            next("0 30 12 * * ?", "2024-03-01T12:30:00"),
            "2024-03-02T12:30:00"
        );
    }

    #[test]
    fn an_hour_that_the_clock_skips_or_repeats_comes_once() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let schedule = Schedule::parse("0 30 2 * * ?").unwrap();
        let ms = |text: &str| text.parse::<Timestamp>().unwrap().as_millisecond();
        let skipped = schedule.next_after_in(ms("2024-03-30T12:00:00Z"), &zone);
        assert_eq!(skipped, Some(ms("2024-03-31T01:30:00Z")));
        let first = schedule
            .next_after_in(ms("2024-10-26T12:00:00Z"), &zone)
            .unwrap();
        assert_eq!(first, ms("2024-10-27T00:30:00Z"));
        assert_eq!(
            schedule.next_after_in(first, &zone),
            Some(ms("2024-10-28T01:30:00Z"))
        );
    }

    #[test]
    fn what_is_no_schedule_says_which_field() {
        assert_eq!(Schedule::parse("0 0 6"), Err(ScheduleError::Fields(3)));
        let error = Schedule::parse("0 0 25 * * ?").unwrap_err().to_string();
        assert!(error.contains("hour") && error.contains("25"), "{error}");
        for wrong in [
            "0 0 6 * * MOX",
            "0 0/0 6 * * ?",
            "a 0 6 * * ?",
            "0 0 6 0 * ?",
            "0 0 6 31 2 ?",
        ] {
            assert!(Schedule::parse(wrong).is_err(), "{wrong}");
        }
    }
}

//! The page of the message browser.

use askama::Template;
use axum::response::Response;
use serde::Deserialize;

use super::{Frame, Visit, format, render};
use crate::admin::api;
use crate::admin::errors::ApiError;
use crate::admin::extract::{Asked, Named};
use crate::admin::views::messages::{MessagesAsked, MessagesView};

/// What the browser's form brings: everything is text, and may be empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Browse {
    offset: String,
    time: String,
    key: String,
    format: String,
    limit: String,
}

const FORMATS: &[&str] = &["json", "auto", "text", "hex"];

#[derive(Template)]
#[template(path = "messages.html")]
struct Messages {
    frame: Frame,
    asked: Browse,
    formats: &'static [&'static str],
    view: MessagesView,
    before: Option<String>,
    behind: Option<String>,
}

impl Browse {
    fn asked(&self) -> Result<MessagesAsked, ApiError> {
        let number = |name: &str, text: &str| match text.trim() {
            "" => Ok(None),
            text => text
                .parse::<i64>()
                .map(Some)
                .map_err(|_| ApiError::bad(format!("{name} is not a number: {text}"))),
        };
        let limit = number("The number of messages", &self.limit)?;
        Ok(MessagesAsked {
            offset: number("The offset", &self.offset)?,
            timestamp: time_of(&self.time)?,
            key: Some(self.key.clone()).filter(|key| !key.is_empty()),
            limit: limit.map(|limit| limit.clamp(1, 100) as u16),
            format: Some(self.format.clone()),
        })
    }

    fn link(&self, offset: i64, limit: i64) -> String {
        let key = format::path(&self.key);
        let format = format::path(&self.format);
        format!("?offset={offset}&limit={limit}&key={key}&format={format}")
    }
}

/// `2026-01-31 12:00:00`, a part of it from the left, or ms since 1970.
fn time_of(text: &str) -> Result<Option<i64>, ApiError> {
    let text = text.trim().trim_end_matches('Z');
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(ms) = text.parse::<i64>()
        && text.len() > 4
    {
        return Ok(Some(ms));
    }
    let wrong = || ApiError::bad(format!("This is no time: {text}"));
    let mut parts = text.split(['-', ' ', 'T', ':', '.']).map(str::parse::<i64>);
    let mut next = |default: i64| match parts.next() {
        None => Ok(default),
        Some(part) => part.map_err(|_| wrong()),
    };
    let (year, month, day) = (next(0)?, next(1)?, next(1)?);
    let (hour, minute, second) = (next(0)?, next(0)?, next(0)?);
    let valid =
        (1970..10_000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !valid || hour > 23 || minute > 59 || second > 60 {
        return Err(wrong());
    }
    // Howard Hinnant's days_from_civil.
    let shifted = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let (era, of_era) = (shifted.0.div_euclid(400), shifted.0.rem_euclid(400));
    let of_year = (153 * shifted.1 + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Ok(Some(
        (((days * 24 + hour) * 60 + minute) * 60 + second) * 1000,
    ))
}

pub(super) async fn messages(
    visit: Visit,
    Named((topic, index)): Named<(String, i32)>,
    Asked(mut asked): Asked<Browse>,
) -> Response {
    let back = format!("/topics/{}", format::path(&topic));
    if !FORMATS.contains(&asked.format.as_str()) {
        asked.format = FORMATS[0].to_owned();
    }
    let view = match asked.asked() {
        Ok(wanted) => api::messages_of(&visit.shared, &topic, index, wanted).await,
        Err(error) => Err(error),
    };
    let view = match view {
        Ok(view) => view,
        Err(error) => return visit.fail(error, &back),
    };
    let shown = view.messages.len().max(1) as i64;
    let limit = asked
        .limit
        .trim()
        .parse::<i64>()
        .unwrap_or(20)
        .clamp(1, 100);
    let first = view
        .messages
        .first()
        .map_or(view.high_watermark, |first| first.offset);
    let before = (first > view.log_start && asked.key.is_empty()).then(|| {
        asked.link(
            (first - limit).max(view.log_start),
            limit.min(first - view.log_start),
        )
    });
    let behind = view
        .more
        .then(|| asked.link(view.next_offset, limit.max(shown)));
    let frame = visit.frame;
    render(&Messages {
        frame,
        asked,
        formats: FORMATS,
        view,
        before,
        behind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_shown() {
        let ms = |text: &str| time_of(text).unwrap();
        assert_eq!(ms(""), None);
        assert_eq!(ms("1700000000000"), Some(1_700_000_000_000));
        assert_eq!(ms("2023-11-14 22:13:20"), Some(1_700_000_000_000));
        assert_eq!(ms("2000-02-29"), Some(951_782_400_000));
        assert_eq!(ms("2023-11-14T22:13:20Z"), Some(1_700_000_000_000));
        for wrong in ["tomorrow", "2023-13-01", "2023-11-14 25:00"] {
            assert!(time_of(wrong).is_err(), "{wrong}");
        }
    }
}

//! A log of one client's or one topic's requests, for a limited time (`metaq loggers requests`). Off, it costs a request
//! one relaxed load.
//!
//! A topic's requests are those whose first 64 KiB contain its name or id; fetches of a session that name no topic are
//! not among them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use metaq_protocol::frame::RequestFrame;
use parking_lot::Mutex;
use uuid::Uuid;

/// How long without a wish.
pub const REQUEST_LOG_TIME_DEFAULT: Duration = Duration::from_secs(60);
/// The longest time.
pub const REQUEST_LOG_TIME_MAX: Duration = Duration::from_secs(3600);
/// Lines after which it ends early.
pub const REQUEST_LOG_LINES_MAX: usize = 100_000;
/// The topic is searched for in so many bytes of a request.
const SEARCHED_BYTES_MAX: usize = 64 << 10;

/// See the module's documentation.
#[derive(Default)]
pub struct RequestLog {
    armed: AtomicBool,
    wanted: Mutex<Option<Filter>>,
}

/// Which requests are logged; both must fit where both are given.
struct Filter {
    client_id: Option<String>,
    topic: Option<(String, Option<Uuid>)>,
    until: Instant,
    lines_left: usize,
}

impl RequestLog {
    /// Begins to log, instead of what was logged before.
    pub fn start(
        &self,
        client_id: Option<String>,
        topic: Option<(String, Option<Uuid>)>,
        time: Duration,
    ) {
        *self.wanted.lock() = Some(Filter {
            client_id,
            topic,
            until: Instant::now() + time.min(REQUEST_LOG_TIME_MAX),
            lines_left: REQUEST_LOG_LINES_MAX,
        });
        self.armed.store(true, Ordering::Relaxed);
    }

    /// Ends it.
    pub fn stop(&self) {
        *self.wanted.lock() = None;
        self.armed.store(false, Ordering::Relaxed);
    }

    /// Whether anything is to be logged.
    #[inline]
    pub fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    /// Whether a request is to be logged; ends the log when its time is over.
    pub fn wants(&self, frame: &RequestFrame) -> bool {
        let mut guard = self.wanted.lock();
        let Some(wanted) = guard.as_mut() else {
            return false;
        };
        if wanted.until <= Instant::now() || wanted.lines_left == 0 {
            *guard = None;
            self.armed.store(false, Ordering::Relaxed);
            tracing::info!("the log of requests has ended");
            return false;
        }
        let client_id = frame.client_id.as_deref().unwrap_or_default();
        let fits = wanted
            .client_id
            .as_ref()
            .is_none_or(|wanted| wanted == client_id)
            && wanted
                .topic
                .as_ref()
                .is_none_or(|topic| names(&frame.body, topic));
        wanted.lines_left -= usize::from(fits);
        fits
    }
}

fn names(body: &[u8], (name, id): &(String, Option<Uuid>)) -> bool {
    let body = &body[..body.len().min(SEARCHED_BYTES_MAX)];
    let contains =
        |bytes: &[u8]| !bytes.is_empty() && body.windows(bytes.len()).any(|window| window == bytes);
    contains(name.as_bytes()) || id.is_some_and(|id| contains(id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use metaq_protocol::frame;
    use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
    use metaq_protocol::messages::{MetadataRequest, TopicName};
    use metaq_protocol::protocol::StrBytes;

    fn request(client: &str, topic: &str) -> RequestFrame {
        let name = TopicName(StrBytes::from_string(topic.to_owned()));
        let asked = MetadataRequestTopic::default().with_name(Some(name));
        let request = MetadataRequest::default().with_topics(Some(vec![asked]));
        let bytes = frame::encode_request(9, 1, client, &request).unwrap();
        frame::parse_request(bytes.slice(4..)).unwrap()
    }

    #[test]
    fn only_what_was_asked_for_is_logged_and_only_for_its_time() {
        let log = RequestLog::default();
        assert!(!log.is_armed());
        log.start(Some("a".to_owned()), None, Duration::from_secs(9));
        assert!(log.is_armed());
        assert!(log.wants(&request("a", "t")) && !log.wants(&request("b", "t")));
        log.start(
            None,
            Some(("orders".to_owned(), None)),
            Duration::from_secs(9),
        );
        assert!(log.wants(&request("b", "orders")) && !log.wants(&request("b", "other")));
        log.start(None, None, Duration::ZERO);
        assert!(!log.wants(&request("a", "t")) && !log.is_armed());
        log.start(None, None, Duration::from_secs(9));
        log.stop();
        assert!(!log.wants(&request("a", "t")));
    }
}

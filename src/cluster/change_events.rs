//! Records what changes as events, for people: when this broker stops leading and coordinating and when it may again, who
//! the controller is, how the session with the coordination store is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cluster::Cluster;
use crate::meta::SessionState;
use crate::observe::{EventKind, Events, Happened};

/// How often it is checked.
const LOOK: Duration = Duration::from_millis(200);

/// Checks for ever.
pub async fn record_changes(cluster: Arc<Cluster>, events: Events) {
    let mut lease = Lasting::new(true);
    let mut session = Lasting::new(SessionState::Connected);
    let mut controller = Lasting::new(cluster.image().controller_id);
    loop {
        tokio::time::sleep(LOOK).await;
        if let Some((_, lasted)) = lease.becomes(cluster.may_act()) {
            tell_of_lease(&cluster, &events, lasted);
        }
        let state = cluster.meta().session().borrow().state;
        if let Some((before, lasted)) = session.becomes(state) {
            let what = format!("{} after {}", state.name(), before.name());
            let changed = Happened::new(EventKind::Session, cluster.meta().kind()).why(what);
            events.tell(changed.took_ms(lasted.as_millis() as i64));
        }
        let id = cluster.image().controller_id;
        if let Some((before, lasted)) = controller.becomes(id) {
            let why = match (before, id) {
                (_, -1) => format!("broker {before} is not the controller any more"),
                (-1, _) => format!("broker {id} was elected"),
                _ => format!("broker {id} was elected after broker {before}"),
            };
            let changed = Happened::new(EventKind::Controller, "controller").why(why);
            events.tell(changed.took_ms(lasted.as_millis() as i64));
        }
    }
}

fn tell_of_lease(cluster: &Cluster, events: &Events, lasted: Duration) {
    let why = match cluster.may_act() {
        false => {
            "others may act in this broker's place: it neither leads nor coordinates until it is registered anew"
        }
        true => "this broker leads and coordinates again",
    };
    match cluster.may_act() {
        false => tracing::warn!("{why}"),
        true => tracing::info!("{why}"),
    }
    let who = format!("broker {}", cluster.broker_id());
    let changed = Happened::new(EventKind::Session, who).why(why);
    events.tell(changed.took_ms(lasted.as_millis() as i64));
}

/// Something and since when it is so.
struct Lasting<T> {
    value: T,
    since: Instant,
}

impl<T: Copy + PartialEq> Lasting<T> {
    fn new(value: T) -> Self {
        Self {
            value,
            since: Instant::now(),
        }
    }

    /// What it was before, and for how long, when it is something else now.
    fn becomes(&mut self, value: T) -> Option<(T, Duration)> {
        if value == self.value {
            return None;
        }
        let before = std::mem::replace(self, Self::new(value));
        Some((before.value, before.since.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_told() {
        let mut lasting = Lasting::new(1);
        assert!(lasting.becomes(1).is_none());
        assert_eq!(lasting.becomes(2).map(|(before, _)| before), Some(1));
        assert!(lasting.becomes(2).is_none());
    }
}

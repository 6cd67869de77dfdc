//! Keeps the image true: reads again what the tree says has changed, and carries out what follows on this broker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;

use super::changes::ClusterError;
use super::cluster::Cluster;
use super::view::ClusterEvent;
use crate::meta::{Change, SessionState, paths};

/// How long to wait before trying again what the tree's failure cut short.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How long a broker waits to hear of a topic that the controller created for its client.
const NEW_TOPIC_WAIT: Duration = Duration::from_secs(1);
/// Changes that come in quick succession are read together.
const GATHER: Duration = Duration::from_millis(5);

/// What must be read again.
#[derive(Debug, Default)]
struct Stale {
    everything: bool,
    brokers: bool,
    controller: bool,
    slots: bool,
    deletions: bool,
    configs: bool,
    acls: BTreeSet<String>,
    tokens: BTreeSet<String>,
    topics: BTreeSet<String>,
}

impl Stale {
    fn add(&mut self, change: Result<Change, broadcast::error::RecvError>) {
        let changed = match change {
            Ok(Change::Paths(changed)) => changed,
            Ok(Change::Everything) | Err(_) => {
                self.everything = true;
                return;
            }
        };
        for path in changed.iter() {
            let below = |root: &str| paths::is_at_or_below(path, root);
            if below(paths::TOPICS) {
                self.topics.extend(paths::topic_of(path));
            } else if below(paths::BROKERS) {
                self.brokers = true;
            } else if below(paths::DELETED) {
                self.deletions = true;
            } else if below(paths::CONFIG) {
                self.configs = true;
            } else if below(paths::ACLS) {
                self.acls.insert(path.clone());
            } else if below(paths::TOKENS) {
                self.tokens.extend(paths::token_of(path));
            } else if below(paths::COORDINATORS) {
                self.slots = true;
            } else if path == paths::CONTROLLER {
                self.controller = true;
            }
        }
    }
}

impl Cluster {
    /// Follows the tree until the task is aborted.
    pub async fn follow(self: Arc<Self>) {
        let mut tree = self.tree.lock().await;
        let mut session = self.view.meta.session();
        // Changes between the first reading and now were noticed by the receiver.
        loop {
            let mut stale = Stale::default();
            tokio::select! {
                change = tree.recv() => stale.add(change),
                () = self.controller.deposed() => stale.controller = true,
                changed = session.changed() => {
                    let state = session.borrow_and_update().state;
                    if changed.is_err() || state == SessionState::Closed {
                        return;
                    }
                    if state == SessionState::Lost {
                        self.lose_session();
                    }
                    continue;
                }
            }
            tokio::time::sleep(GATHER).await;
            while let Some(more) = next_of(&mut tree) {
                stale.add(more);
            }
            while let Err(error) = self.refresh(&stale).await {
                tracing::warn!(%error, "cannot follow the coordination tree; trying again");
                tokio::time::sleep(RETRY_PAUSE).await;
                let Some(state) = self.session_state() else {
                    return;
                };
                if state == SessionState::Lost {
                    self.lose_session();
                }
                stale.everything = true;
            }
        }
    }

    /// Waits a little for topics that another broker was asked to create.
    pub async fn wait_for_topics(&self, names: &[String]) {
        let there = async {
            let mut images = self.view.image_changes();
            while names
                .iter()
                .any(|name| self.view.image().topic(name).is_none())
                && images.changed().await.is_ok()
            {}
        };
        let _ = tokio::time::timeout(NEW_TOPIC_WAIT, there).await;
    }

    /// Reads all topics again; whether they could be read.
    pub async fn refresh_topics(&self) -> bool {
        let read = self.view.reload_topics(None).await;
        if let Err(error) = &read {
            tracing::warn!(%error, "cannot read the topics");
        }
        read.is_ok()
    }

    fn session_state(&self) -> Option<SessionState> {
        let state = self.view.meta.session().borrow().state;
        (state != SessionState::Closed).then_some(state)
    }

    /// Nothing that this broker held in the tree is there any more.
    fn lose_session(&self) {
        self.controller.resign();
        if !self.view.image().slots.is_empty() {
            self.view.change_image(|image| image.slots.clear());
        }
        self.view.publish_event(ClusterEvent::Slots);
    }

    async fn refresh(&self, stale: &Stale) -> Result<(), ClusterError> {
        if stale.everything {
            self.view.check_tree().await?;
            self.view.finish_deletions().await?;
            self.view.reload_configs().await?;
            self.view.reload_acls(None).await?;
            self.view.reload_tokens(None).await?;
            self.view.reload_topics(None).await?;
            self.membership.rejoin().await?;
            return self.publish_topics().await;
        }
        if stale.configs {
            self.view.reload_configs().await?;
            // One that a controller before wrote, and did not come to.
            self.controller.follow_settings().await?;
        }
        if !stale.acls.is_empty() {
            self.view.reload_acls(Some(&stale.acls)).await?;
        }
        if !stale.tokens.is_empty() {
            self.view.reload_tokens(Some(&stale.tokens)).await?;
        }
        if stale.deletions {
            self.view.finish_deletions().await?;
        }
        if !stale.topics.is_empty() {
            self.view.reload_topics(Some(&stale.topics)).await?;
        }
        if stale.brokers {
            self.membership.reload_brokers().await?;
            if self.is_controller() {
                // Those that take more brokers than there were.
                self.controller.create_named_topics().await;
            }
        }
        if stale.controller {
            self.membership.reload_controller().await?;
        }
        if stale.slots {
            self.controller.reload_slots().await?;
        }
        if !stale.topics.is_empty() {
            self.publish_topics().await?;
        }
        Ok(())
    }
}

/// What is there without waiting.
fn next_of(
    tree: &mut broadcast::Receiver<Change>,
) -> Option<Result<Change, broadcast::error::RecvError>> {
    match tree.try_recv() {
        Ok(change) => Some(Ok(change)),
        Err(broadcast::error::TryRecvError::Lagged(n)) => {
            Some(Err(broadcast::error::RecvError::Lagged(n)))
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stale(paths: &[&str]) -> Stale {
        let mut stale = Stale::default();
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        stale.add(Ok(Change::Paths(paths)));
        stale
    }

    #[test]
    fn a_path_tells_what_is_read_again() {
        let topics = stale(&[
            "/brokers/topics",
            "/brokers/topics/a",
            "/brokers/topics/b%2fc/partitions/100",
        ]);
        let names: Vec<&str> = topics.topics.iter().map(String::as_str).collect();
        assert_eq!(names, ["a", "b/c"]);
        assert!(!topics.everything && !topics.brokers && !topics.deletions);
        assert!(stale(&["/brokers/ids/3/master"]).brokers);
        assert!(stale(&["/brokers/deleted/x"]).deletions);
        assert!(stale(&["/config/brokers/0"]).configs);
        assert_eq!(stale(&["/acl/literal/topic/t"]).acls.len(), 1);
        let tokens = stale(&["/tokens", "/tokens/a-b"]).tokens;
        assert_eq!(tokens, BTreeSet::from(["a-b".to_owned()]));
        assert!(stale(&["/coordinators/3"]).slots);
        assert!(stale(&["/controller"]).controller);
        let nothing = stale(&["/brokers/topics-pub/t/0-m", "/controller_epoch"]);
        assert!(nothing.topics.is_empty() && !nothing.brokers && !nothing.controller);
    }

    #[test]
    fn who_missed_something_reads_everything() {
        let mut stale = Stale::default();
        stale.add(Err(broadcast::error::RecvError::Lagged(3)));
        assert!(stale.everything);
    }
}

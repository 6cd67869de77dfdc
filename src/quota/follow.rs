//! Keeps the rules in step with the cluster's configurations.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Fuse, FusedFuture};
use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;

use super::quotas::{Options, Quotas};
use super::rules::{CONNECTION_RATE, Rules};
use super::window::Samples;
use crate::cluster::{Cluster, Configs, Entity, EntityName};
use crate::config::Config;

/// Hosts may get other addresses.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(60);
/// Where one has none yet, all are looked for sooner.
const UNRESOLVED_PAUSE: Duration = Duration::from_secs(15);
/// Names that are looked for at the same time: each keeps a thread.
const RESOLVED_AT_ONCE: usize = 4;
/// How long a host's name may take to be resolved.
const RESOLVE_MAX: Duration = Duration::from_secs(5);

impl Options {
    /// What the configuration says.
    pub fn of(config: &Config) -> Self {
        let samples = |count: &str, seconds: &str| Samples {
            count: config.number(count).unsigned_abs(),
            ms: config.number(seconds).unsigned_abs() * 1000,
        };
        Self {
            samples: samples("quota.window.num", "quota.window.size.seconds"),
            controller_samples: samples(
                "controller.quota.window.num",
                "controller.quota.window.size.seconds",
            ),
        }
    }
}

/// Puts in force what the cluster's configurations say now, and whenever they say something else, until the broker stops.
pub async fn follow(cluster: Arc<Cluster>, quotas: Arc<Quotas>) {
    let mut images = cluster.image_changes();
    let mut known: Option<Arc<Configs>> = None;
    let mut hosts = Hosts::default();
    // Goes on whatever else changes meanwhile.
    let mut looking = pin!(Fuse::terminated());
    loop {
        let configs = cluster.image().configs.clone();
        let is_known = |known: &Arc<Configs>| Arc::ptr_eq(known, &configs);
        if !known.as_ref().is_some_and(is_known) {
            hosts.are(hosts_in(&configs));
            quotas.set_rules(hosts.rules(&configs));
            known = Some(configs.clone());
        }
        if looking.is_terminated() && !hosts.known.is_empty() {
            looking.set(look_for(hosts.known.keys().cloned().collect(), hosts.due).fuse());
        }
        tokio::select! {
            changed = images.changed() => if changed.is_err() {
                return;
            },
            // A limit that is set meanwhile does not wait for a name.
            found = &mut looking, if !looking.is_terminated() => {
                hosts.found(found);
                quotas.set_rules(hosts.rules(&configs));
            }
        }
    }
}

/// Hosts that have a limit by their name.
fn hosts_in(configs: &Configs) -> BTreeSet<String> {
    let named = configs.entities().filter_map(|(entity, set)| match entity {
        Entity::Ip(EntityName::Named(name)) => set.contains_key(CONNECTION_RATE).then_some(name),
        _ => None,
    });
    named
        .filter(|name| name.parse::<IpAddr>().is_err())
        .collect()
}

/// The addresses of hosts, as they were when they were found last.
struct Hosts {
    known: HashMap<String, Vec<IpAddr>>,
    /// When they are looked for next.
    due: Instant,
}

impl Default for Hosts {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            due: Instant::now(),
        }
    }
}

impl Hosts {
    fn are(&mut self, names: BTreeSet<String>) {
        self.known.retain(|name, _| names.contains(name));
        for name in names {
            if let Entry::Vacant(new) = self.known.entry(name) {
                new.insert(Vec::new());
                self.due = Instant::now();
            }
        }
    }

    fn rules(&self, configs: &Configs) -> Rules {
        Rules::of(configs, |name| match name.parse() {
            Ok(ip) => vec![ip],
            Err(_) => self.known.get(name).cloned().unwrap_or_default(),
        })
    }

    /// What was found of names; one that is not resolved now keeps the addresses that it had.
    fn found(&mut self, found: Vec<(String, Option<Vec<IpAddr>>)>) {
        for (name, addresses) in found {
            let Some(known) = self.known.get_mut(&name) else {
                continue;
            };
            match addresses {
                Some(addresses) => *known = addresses,
                None if known.is_empty() => tracing::warn!(
                    name,
                    "the quota of a host has no effect: its name is not resolved"
                ),
                None => tracing::debug!(name, "the name is not resolved now"),
            }
        }
        let is_new = |addresses: &Vec<IpAddr>| addresses.is_empty();
        let pause = match self.known.values().any(is_new) {
            true => UNRESOLVED_PAUSE,
            false => RESOLVE_INTERVAL,
        };
        self.due = Instant::now() + pause;
    }
}

/// Looks for the addresses of hosts when it is time.
async fn look_for(names: Vec<String>, due: Instant) -> Vec<(String, Option<Vec<IpAddr>>)> {
    tokio::time::sleep_until(due).await;
    let looks = names.into_iter().map(|name| async move {
        let found = tokio::time::timeout(RESOLVE_MAX, tokio::net::lookup_host((&*name, 0))).await;
        let found = found.ok().and_then(Result::ok);
        let addresses = found.map(|found| found.map(|address| address.ip()).collect());
        (name, addresses)
    });
    let looks: Vec<_> = looks.collect();
    stream::iter(looks)
        .buffer_unordered(RESOLVED_AT_ONCE)
        .collect()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_name_that_is_not_resolved_once_keeps_its_addresses() {
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let mut hosts = Hosts::default();
        hosts.are(BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        let told = |name: &str, found: Option<u8>| {
            (name.to_owned(), found.map(|last| vec![address(last)]))
        };
        hosts.found(vec![
            told("a", Some(1)),
            told("b", None),
            told("gone", Some(9)),
        ]);
        assert_eq!(hosts.due, Instant::now() + UNRESOLVED_PAUSE);
        assert!(!hosts.known.contains_key("gone"));
        hosts.found(vec![told("a", None), told("b", Some(2))]);
        assert_eq!(hosts.due, Instant::now() + RESOLVE_INTERVAL);
        assert_eq!(
            (&hosts.known["a"], &hosts.known["b"]),
            (&vec![address(1)], &vec![address(2)])
        );
        // One that is named again is looked for at once.
        hosts.are(BTreeSet::from(["a".to_owned(), "c".to_owned()]));
        assert_eq!(hosts.due, Instant::now());
        assert_eq!(hosts.known["a"], [address(1)]);
    }

    #[tokio::test]
    async fn names_are_looked_for_side_by_side_and_a_wrong_one_is_none() {
        let names = vec!["localhost".to_owned(), "no such host".to_owned()];
        let found = look_for(names, Instant::now()).await;
        let of = |name: &str| found.iter().find(|(of, _)| of == name).unwrap().1.clone();
        assert!(of("localhost").unwrap().iter().all(IpAddr::is_loopback));
        assert_eq!(of("no such host"), None);
    }
}

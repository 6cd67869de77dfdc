//! Client telemetry (KIP-714): which client pushes which of its metrics how often, and what it pushed last.
//!
//! As Kafka's ClientMetricsManager decides, without a clock and without wire types. What clients push is kept for people
//! to look at; the newest of each, within limits.

mod clients;
mod otlp;

use std::collections::BTreeMap;
use std::sync::Arc;

use metaq_protocol::batch::Compression;
use metaq_protocol::compression::{CompressionError, decompress};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::config::ClientMetricsSubscription;

use clients::{Clients, Instance, POINTS_MAX};
pub use otlp::{OtlpError, Point};

/// Why a client's request is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TelemetryError {
    /// Ids are given out by brokers.
    #[error("Invalid request from the client [{0}], invalid client instance id")]
    InvalidInstance(Uuid),
    /// It said that it ends.
    #[error(
        "Client [{0}] sent the previous request with state terminating to TRUE, can not accept any requests after that"
    )]
    Terminated(Uuid),
    /// Too early.
    #[error("Request from the client [{0}] arrived before the next push interval time")]
    Throttled(Uuid),
    /// The subscriptions changed.
    #[error("Unknown client subscription id for the client [{0}]")]
    UnknownSubscription(Uuid),
    /// No such codec.
    #[error("Unknown compression type [{0}] is received in telemetry request")]
    UnsupportedCompression(i8),
    /// Above `telemetry.max.bytes`, packed or unpacked.
    #[error("Telemetry request is larger than the maximum allowed size [{0}]")]
    TooLarge(usize),
    /// It does not unpack.
    #[error("{0}")]
    Damaged(String),
    /// It is no metrics.
    #[error(transparent)]
    Malformed(#[from] OtlpError),
}

/// Who a client is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientFacts {
    /// Its name for itself.
    pub client_id: String,
    /// From ApiVersions (KIP-511).
    pub software_name: String,
    /// From ApiVersions.
    pub software_version: String,
    /// Where it connects from.
    pub source_address: String,
    /// Where it connects from.
    pub source_port: String,
}

/// All subscriptions; another one after every change.
pub type Subscriptions = Arc<Vec<ClientMetricsSubscription>>;

/// What a client is to push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribed {
    /// The client's id.
    pub instance: Uuid,
    /// Changes with the metrics and the interval.
    pub subscription_id: i32,
    /// Prefixes of names; `*` for all, empty for none.
    pub metrics: Vec<String>,
    /// How often.
    pub interval_ms: i32,
}

/// What a client pushes.
#[derive(Debug)]
pub struct Push<'a> {
    /// Under which subscription.
    pub subscription_id: i32,
    /// It ends; nothing comes after this.
    pub terminating: bool,
    /// As in batches.
    pub compression: i8,
    /// Packed.
    pub metrics: &'a [u8],
}

/// A client that pushes, for people.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The client's id.
    pub instance: Uuid,
    /// Who it is.
    pub facts: ClientFacts,
    /// What it is asked for.
    pub metrics: Vec<String>,
    /// How often.
    pub interval_ms: i32,
    /// When it pushed last, ms since 1970; none for never.
    pub pushed_at_ms: Option<i64>,
    /// Payloads that were taken.
    pub pushes: u64,
    /// Why the last one was refused; empty when it was not.
    pub refused: String,
    /// The newest values, in the client's order.
    pub points: Vec<Point>,
    /// Points that were more than are kept.
    pub points_left_out: usize,
}

/// All clients that push to this broker.
#[derive(Debug)]
pub struct Telemetry {
    clients: Mutex<Clients>,
    payload_bytes_max: usize,
}

impl Telemetry {
    /// Takes payloads of up to so many bytes, packed and unpacked (`telemetry.max.bytes`).
    pub fn new(payload_bytes_max: usize) -> Self {
        Self {
            clients: Mutex::default(),
            payload_bytes_max,
        }
    }

    /// The largest payload, bytes.
    pub fn payload_bytes_max(&self) -> usize {
        self.payload_bytes_max
    }

    /// Tells a client what to push. The nil id is that of a client that has none yet.
    pub fn subscribe(
        &self,
        now_ms: i64,
        instance: Uuid,
        facts: &ClientFacts,
        subscriptions: &Subscriptions,
    ) -> Result<Subscribed, TelemetryError> {
        let id = match instance.is_nil() {
            true => Uuid::new_v4(),
            false => instance,
        };
        let mut clients = self.clients.lock();
        let client = clients.instance(now_ms, id, facts, subscriptions);
        let waited_ms = now_ms - client.last_get_ms.max(client.last_push_ms);
        let in_time = waited_ms >= i64::from(client.subscribed.interval_ms);
        if !in_time && !client.may_ask_again {
            return Err(TelemetryError::Throttled(id));
        }
        if in_time {
            client.last_get_ms = now_ms;
        }
        client.may_ask_again = false;
        Ok(client.subscribed.clone())
    }

    /// Takes what a client pushes.
    pub fn push(
        &self,
        now_ms: i64,
        instance: Uuid,
        facts: &ClientFacts,
        push: &Push<'_>,
        subscriptions: &Subscriptions,
    ) -> Result<(), TelemetryError> {
        if is_reserved(instance) {
            return Err(TelemetryError::InvalidInstance(instance));
        }
        let mut clients = self.clients.lock();
        let client = clients.instance(now_ms, instance, facts, subscriptions);
        let checked = self.check(now_ms, instance, client, push);
        client.terminated = push.terminating;
        drop(clients);
        // Unpacked and read without the lock.
        let read = checked.and_then(|codec| self.read(codec, push.metrics));
        let mut clients = self.clients.lock();
        let clients = &mut *clients;
        let Some(client) = clients.instances.get_mut(&instance) else {
            return read.map(drop);
        };
        client.may_ask_again = matches!(
            read,
            Err(TelemetryError::UnknownSubscription(_) | TelemetryError::UnsupportedCompression(_))
        );
        match read {
            Ok(points) => {
                client.refused.clear();
                client.pushes += 1;
                clients.kept_bytes -= client.kept_bytes;
                client.keep(points);
                clients.kept_bytes += client.kept_bytes;
                clients.make_room();
                Ok(())
            }
            Err(error) => {
                client.refused = error.to_string();
                Err(error)
            }
        }
    }

    fn check(
        &self,
        now_ms: i64,
        id: Uuid,
        client: &mut Instance,
        push: &Push<'_>,
    ) -> Result<Compression, TelemetryError> {
        if client.terminated {
            return Err(TelemetryError::Terminated(id));
        }
        // The first one after a subscription comes early, because clients spread themselves.
        let waited_ms = now_ms - client.last_push_ms;
        let in_time = client.last_get_ms > client.last_push_ms
            || waited_ms >= i64::from(client.subscribed.interval_ms);
        if in_time {
            client.last_push_ms = now_ms;
        } else if !push.terminating {
            return Err(TelemetryError::Throttled(id));
        }
        if push.subscription_id != client.subscribed.subscription_id {
            return Err(TelemetryError::UnknownSubscription(id));
        }
        let codec = match push.compression {
            0 => Compression::None,
            1 => Compression::Gzip,
            2 => Compression::Snappy,
            3 => Compression::Lz4,
            4 => Compression::Zstd,
            other => return Err(TelemetryError::UnsupportedCompression(other)),
        };
        match push.metrics.len() > self.payload_bytes_max {
            true => Err(TelemetryError::TooLarge(self.payload_bytes_max)),
            false => Ok(codec),
        }
    }

    fn read(&self, codec: Compression, packed: &[u8]) -> Result<Vec<Point>, TelemetryError> {
        let payload =
            decompress(codec, packed, self.payload_bytes_max).map_err(|error| match error {
                CompressionError::TooLarge(_) => TelemetryError::TooLarge(self.payload_bytes_max),
                other => TelemetryError::Damaged(other.to_string()),
            })?;
        let mut points = Vec::new();
        let mut more = 0;
        otlp::read(&payload, |point| match points.len() < POINTS_MAX {
            true => points.push(point),
            false => more += 1,
        })?;
        // What did not fit is counted by a nameless point at the end, which `keep` takes off again.
        if more > 0 {
            points.push(Point {
                name: String::new(),
                labels: String::new(),
                value: f64::from(more),
            });
        }
        Ok(points)
    }

    /// Clients that are known, in the order of their ids.
    pub fn clients(&self, now_ms: i64) -> Vec<Pushed> {
        let mut clients = self.clients.lock();
        clients.forget(now_ms);
        let sorted: BTreeMap<&Uuid, &Instance> = clients.instances.iter().collect();
        let shown = |(id, client): (&Uuid, &Instance)| Pushed {
            instance: *id,
            facts: client.facts.clone(),
            metrics: client.subscribed.metrics.clone(),
            interval_ms: client.subscribed.interval_ms,
            pushed_at_ms: (client.pushes > 0).then_some(client.last_push_ms),
            pushes: client.pushes,
            refused: client.refused.clone(),
            points: client.points.clone(),
            points_left_out: client.points_left_out,
        };
        sorted.into_iter().map(shown).collect()
    }

    /// How many clients are known.
    pub fn len(&self) -> usize {
        self.clients.lock().instances.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Kafka's `Uuid.RESERVED`.
fn is_reserved(id: Uuid) -> bool {
    id.is_nil() || id.as_u128() == 1
}

#[cfg(test)]
mod tests {
    use super::clients::{INSTANCES_MAX, INTERVAL_MS_DEFAULT};
    use super::*;

    const INTERVAL_MS: i64 = 1_000;

    fn subscriptions() -> Subscriptions {
        let configs = [("metrics", "a."), ("interval.ms", "1000")];
        let configs = configs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Arc::new(vec![
            ClientMetricsSubscription::parse("s", &configs.into()).unwrap(),
        ])
    }

    fn facts() -> ClientFacts {
        ClientFacts::default()
    }

    /// A gauge `a.b` of 1.0, in protobuf.
    const PAYLOAD: &[u8] =
        b"\x0a\x16\x12\x14\x12\x12\x0a\x03a.b\x2a\x0b\x0a\x09\x21\0\0\0\0\0\0\xf0\x3f";

    fn push(subscription_id: i32, metrics: &[u8]) -> Push<'_> {
        Push {
            subscription_id,
            terminating: false,
            compression: 0,
            metrics,
        }
    }

    #[test]
    fn a_client_gets_an_id_and_pushes_in_its_interval() {
        let (telemetry, all) = (Telemetry::new(1 << 20), subscriptions());
        let got = telemetry
            .subscribe(10, Uuid::nil(), &facts(), &all)
            .unwrap();
        assert_eq!(
            (got.metrics.as_slice(), got.interval_ms),
            (&["a.".to_owned()][..], 1_000)
        );
        let id = got.instance;
        let again = telemetry.subscribe(20, id, &facts(), &all);
        assert_eq!(again, Err(TelemetryError::Throttled(id)));
        let sent = push(got.subscription_id, PAYLOAD);
        assert_eq!(telemetry.push(30, id, &facts(), &sent, &all), Ok(()));
        let early = telemetry.push(40, id, &facts(), &sent, &all);
        assert_eq!(early, Err(TelemetryError::Throttled(id)));
        assert_eq!(
            telemetry.push(30 + INTERVAL_MS, id, &facts(), &sent, &all),
            Ok(())
        );
        let clients = telemetry.clients(2_000);
        let point = &clients[0].points[0];
        assert_eq!(
            (clients[0].pushes, point.name.as_str(), point.value),
            (2, "a.b", 1.0)
        );
    }

    #[test]
    fn after_a_change_of_subscriptions_the_old_number_is_unknown_and_asking_is_free() {
        let (telemetry, all) = (Telemetry::new(1 << 20), subscriptions());
        let got = telemetry
            .subscribe(10, Uuid::nil(), &facts(), &all)
            .unwrap();
        let id = got.instance;
        let sent = push(got.subscription_id, PAYLOAD);
        let none = Subscriptions::default();
        let refused = telemetry.push(20, id, &facts(), &sent, &none);
        assert_eq!(refused, Err(TelemetryError::UnknownSubscription(id)));
        let renewed = telemetry.subscribe(30, id, &facts(), &none).unwrap();
        assert_eq!(
            (renewed.metrics.len(), renewed.interval_ms),
            (0, INTERVAL_MS_DEFAULT)
        );
    }

    #[test]
    fn nothing_comes_after_the_last_push() {
        let (telemetry, all) = (Telemetry::new(1 << 20), subscriptions());
        let got = telemetry
            .subscribe(10, Uuid::nil(), &facts(), &all)
            .unwrap();
        let last = Push {
            terminating: true,
            ..push(got.subscription_id, PAYLOAD)
        };
        assert_eq!(
            telemetry.push(20, got.instance, &facts(), &last, &all),
            Ok(())
        );
        let more = telemetry.push(5_000, got.instance, &facts(), &last, &all);
        assert_eq!(more, Err(TelemetryError::Terminated(got.instance)));
    }

    #[test]
    fn what_is_too_large_or_damaged_is_refused() {
        let (telemetry, all) = (Telemetry::new(64), subscriptions());
        let refused = |now_ms, compression, metrics: &[u8]| {
            let got = telemetry
                .subscribe(now_ms, Uuid::nil(), &facts(), &all)
                .unwrap();
            let push = Push {
                compression,
                ..push(got.subscription_id, metrics)
            };
            telemetry
                .push(now_ms, got.instance, &facts(), &push, &all)
                .unwrap_err()
        };
        assert_eq!(refused(1, 0, &[0; 65]), TelemetryError::TooLarge(64));
        let bomb = metaq_protocol::compression::compress(Compression::Zstd, &[0; 65]).unwrap();
        assert_eq!(refused(2, 4, &bomb), TelemetryError::TooLarge(64));
        assert!(matches!(
            refused(3, 4, b"no zstd"),
            TelemetryError::Damaged(_)
        ));
        assert!(matches!(
            refused(4, 0, b"\x0a\x05"),
            TelemetryError::Malformed(_)
        ));
        assert_eq!(
            refused(5, 9, b""),
            TelemetryError::UnsupportedCompression(9)
        );
        let nobody = telemetry.push(6, Uuid::nil(), &facts(), &push(0, b""), &all);
        assert_eq!(nobody, Err(TelemetryError::InvalidInstance(Uuid::nil())));
    }

    #[test]
    fn clients_and_what_is_kept_of_them_have_limits() {
        let (telemetry, all) = (Telemetry::new(1 << 20), subscriptions());
        for n in 0..INSTANCES_MAX as u128 + 10 {
            let id = Uuid::from_u128(n + 2);
            telemetry.subscribe(n as i64, id, &facts(), &all).unwrap();
        }
        assert_eq!(telemetry.len(), INSTANCES_MAX);
        assert_eq!(telemetry.clients(10_000_000).len(), 0);
        let got = telemetry
            .subscribe(10_000_000, Uuid::nil(), &facts(), &all)
            .unwrap();
        let many = PAYLOAD.repeat(POINTS_MAX + 5);
        let sent = push(got.subscription_id, &many);
        telemetry
            .push(10_000_001, got.instance, &facts(), &sent, &all)
            .unwrap();
        let client = &telemetry.clients(10_000_002)[0];
        assert_eq!(
            (client.points.len(), client.points_left_out),
            (POINTS_MAX, 5)
        );
    }
}

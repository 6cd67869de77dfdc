//! A small blocking client for the operator commands. It asks whichever broker it reaches first, and for what only one
//! broker knows, that one.
//!
//! Tests: tests/cli.rs, tests/token_endpoint.rs.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use metaq_protocol::ResponseError;
use metaq_protocol::frame;
use metaq_protocol::messages::metadata_request::MetadataRequestTopic;
use metaq_protocol::messages::{
    FindCoordinatorRequest, MetadataRequest, MetadataResponse, SaslAuthenticateRequest,
    SaslHandshakeRequest, TopicName,
};
use metaq_protocol::protocol::{Request, StrBytes};

use super::Failure;
use super::client_security::{ClientSecurity, Stream, command_config};
use super::refused::{check, check_right, needed};
use super::words::in_words;
use super::wrong_listener::{closed, has_no_sasl, has_tls, is_alert, is_end, of_tls, tls_in_words};
use crate::api::CLI_CLIENT_ID;
use crate::security::{Operation, SaslClient, SaslIdentity};

/// An answer that takes longer is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 256 << 20;
const METADATA_VERSION: i16 = 12;
/// How long a coordinator or a leader may be on its way to another broker.
pub(super) const MOVE_WAIT: Duration = Duration::from_secs(10);
pub(super) const MOVE_PAUSE: Duration = Duration::from_millis(100);

/// The broker that is asked where nothing says which.
const BOOTSTRAP: &str = "127.0.0.1:9092";

/// Which broker to ask.
#[derive(Debug, Args)]
pub(super) struct Address {
    /// Address of a broker, or several, separated by commas: the first that answers is asked. Without it bootstrap.servers of
    /// --command-config, or 127.0.0.1:9092.
    #[arg(
        short,
        long,
        visible_alias = "bootstrap-server",
        value_name = "HOST:PORT"
    )]
    bootstrap: Option<String>,
    /// File of Kafka's client properties (security.protocol, sasl.…, ssl.…) where the listener asks for them; METAQ_COMMAND_CONFIG names
    /// one for all commands.
    #[arg(long, value_name = "FILE")]
    command_config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl Address {
    fn security(&self) -> Result<ClientSecurity, Failure> {
        ClientSecurity::load(command_config(self.command_config.clone()).as_deref())
    }
}

/// A connection to one broker.
struct Connection {
    stream: Box<dyn Stream>,
    address: String,
    has_tls: bool,
    has_sasl: bool,
    /// Whether the broker has said anything yet.
    is_answered: bool,
    next_correlation_id: i32,
}

impl Connection {
    fn open(address: &str, security: &ClientSecurity) -> Result<Self, Failure> {
        let identity = security.identity()?;
        let stream = TcpStream::connect(address)
            .map_err(|error| format!("cannot reach a broker at {address}: {error}"))?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            stream: security.protect(address, stream)?,
            address: address.to_owned(),
            has_tls: security.has_tls(),
            has_sasl: security.has_sasl(),
            is_answered: false,
            next_correlation_id: 0,
        };
        if let Some(identity) = &identity {
            connection.authenticate(identity, security)?;
        }
        Ok(connection)
    }

    fn authenticate(
        &mut self,
        identity: &SaslIdentity,
        security: &ClientSecurity,
    ) -> Result<(), Failure> {
        let mechanism = StrBytes::from_static_str(identity.mechanism.name());
        let handshake = SaslHandshakeRequest::default().with_mechanism(mechanism);
        let answer = self.ask(1, &handshake)?;
        match ResponseError::try_from_code(answer.error_code) {
            Some(ResponseError::IllegalSaslState) => {
                return Err(has_no_sasl(&self.address, self.has_tls).into());
            }
            Some(ResponseError::UnsupportedSaslMechanism) => {
                let has: Vec<&str> = answer.mechanisms.iter().map(|name| &**name).collect();
                let (name, has) = (identity.mechanism.name(), has.join(", "));
                let address = &self.address;
                return Err(
                    format!("the listener at {address} has no {name}: it has {has}").into(),
                );
            }
            _ => check("SASL", answer.error_code, None)?,
        }
        let (mut client, first) = SaslClient::begin(identity);
        let mut next = Some(first);
        while let Some(message) = next {
            let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
            let answer = self.ask(1, &request)?;
            if answer.error_code == ResponseError::SaslAuthenticationFailed.code() {
                security.was_refused(identity);
            }
            let why = answer.error_message.as_deref();
            check(&identity.user, answer.error_code, why)?;
            next = client.on(&answer.auth_bytes)?;
        }
        Ok(())
    }

    fn tell<R: Request>(&mut self, version: i16, request: &R) -> Result<(), Failure> {
        self.next_correlation_id += 1;
        let sent =
            frame::encode_request(version, self.next_correlation_id, CLI_CLIENT_ID, request)?;
        self.send(&sent).map_err(|error| self.failure(&error))
    }

    /// Sends; where the other side has gone, the last that it said tells more than that nothing can be sent.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = self.stream.write_all(bytes);
        let sent = sent.and_then(|()| self.stream.flush());
        sent.map_err(|error| match self.stream.read(&mut [0]) {
            Err(last) if of_tls(&last).is_some() => last,
            _ => error,
        })
    }

    fn receive(&mut self, bytes: &mut [u8]) -> Result<(), Failure> {
        let received = self.stream.read_exact(bytes);
        received.map_err(|error| self.failure(&error))
    }

    /// Why nothing can be sent or received.
    fn failure(&self, error: &io::Error) -> Failure {
        let address = &self.address;
        match error.kind() {
            _ if of_tls(error).is_some() => format!("{address}: {}", tls_in_words(error)),
            io::ErrorKind::WouldBlock => {
                format!("{address} does not answer within {ANSWER_TIMEOUT:?}")
            }
            _ if !is_end(error) => format!("{address}: {error}"),
            _ if self.is_answered => format!("{address} closed the connection"),
            _ => closed(address, self.has_tls, self.has_sasl),
        }
        .into()
    }

    fn ask<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, Failure> {
        self.tell(version, request)?;
        let mut length = [0; 4];
        self.receive(&mut length)?;
        if is_alert(length) && !self.has_tls {
            return Err(has_tls(&self.address).into());
        }
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > ANSWER_BYTES_MAX {
            return Err(format!("the answer claims {length} bytes; is this a Kafka port?").into());
        }
        let mut answer = vec![0; length];
        self.receive(&mut answer)?;
        self.is_answered = true;
        let (correlation_id, response) = frame::decode_response::<R>(version, Bytes::from(answer))?;
        if correlation_id != self.next_correlation_id {
            return Err("the answer belongs to another request".into());
        }
        Ok(response)
    }
}

/// Connections to a cluster.
pub(super) struct Client {
    bootstrap: String,
    security: ClientSecurity,
    first: Connection,
    /// By broker id, as far as they were needed.
    brokers: BTreeMap<i32, Connection>,
}

impl Client {
    pub(super) fn connect(address: &Address) -> Result<Self, Failure> {
        let security = address.security()?;
        let bootstrap = address.bootstrap.clone();
        let bootstrap = bootstrap
            .or_else(|| security.servers.clone())
            .unwrap_or_else(|| BOOTSTRAP.to_owned());
        Ok(Self {
            first: open_any(&bootstrap, &security)?,
            security,
            bootstrap,
            brokers: BTreeMap::new(),
        })
    }

    /// Connects anew, after an error.
    pub(super) fn reconnect(&mut self) -> Result<(), Failure> {
        self.brokers.clear();
        self.first = open_any(&self.bootstrap, &self.security)?;
        Ok(())
    }

    /// Asks the first broker: sends a request in a version and waits for its answer.
    pub(super) fn ask<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, Failure> {
        self.first.ask(version, request)
    }

    /// What is known of topics, or of all of them, and of the brokers.
    pub(super) fn metadata(
        &mut self,
        topics: Option<&[&str]>,
    ) -> Result<MetadataResponse, Failure> {
        self.ask(METADATA_VERSION, &metadata_request(topics))
    }

    /// As [`Self::metadata`], as the controller has it: it knows of a change first. The first broker is asked where there is
    /// no controller, or where it cannot be reached.
    pub(super) fn metadata_of_controller(
        &mut self,
        topics: Option<&[&str]>,
    ) -> Result<MetadataResponse, Failure> {
        let known = self.metadata(Some(&[]))?;
        let controller = known.controller_id.0;
        let request = metadata_request(topics);
        match self.ask_broker(controller, METADATA_VERSION, &request) {
            Ok(metadata) => Ok(metadata),
            Err(_) => self.ask(METADATA_VERSION, &request),
        }
    }

    /// Whether a broker says of a topic that an operation on it is allowed (KIP-430).
    fn may(&mut self, topic: &str, operation: Operation) -> bool {
        let request =
            metadata_request(Some(&[topic])).with_include_topic_authorized_operations(true);
        let answer = self.ask(METADATA_VERSION, &request);
        let described = answer
            .ok()
            .and_then(|answer| answer.topics.into_iter().next());
        described.is_some_and(|topic| {
            topic.error_code == 0 && topic.topic_authorized_operations & 1 << operation.code() != 0
        })
    }

    /// As [`check`], of messages that are taken for a topic or given out: a broker that does so for nobody refuses them by the
    /// code of a right that is missing.
    pub(super) fn check_messages(
        &mut self,
        (what, topic): (&str, &str),
        (code, message): (i16, Option<&str>),
        operation: Operation,
    ) -> Result<(), Failure> {
        let is_of_topic = code == ResponseError::TopicAuthorizationFailed.code();
        if !is_of_topic || self.may(topic, operation) {
            return check(what, code, message);
        }
        Err(needed(operation, &format!("topic {topic}")))
    }

    /// Asks for a topic, so that a broker with auto.create.topics.enable creates it where it is missing; the error's code.
    pub(super) fn create_by_asking(&mut self, topic: &str) -> Result<i16, Failure> {
        let asked = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![asked]))
            .with_allow_auto_topic_creation(true);
        let answer = self.ask(METADATA_VERSION, &request)?;
        Ok(answer.topics.first().map_or(0, |topic| topic.error_code))
    }

    /// Asks a broker by its id.
    pub(super) fn ask_broker<R: Request>(
        &mut self,
        id: i32,
        version: i16,
        request: &R,
    ) -> Result<R::Response, Failure> {
        self.broker(id)?.ask(version, request)
    }

    /// Sends a broker a request that is not answered.
    pub(super) fn tell_broker<R: Request>(
        &mut self,
        id: i32,
        version: i16,
        request: &R,
    ) -> Result<(), Failure> {
        self.broker(id)?.tell(version, request)
    }

    fn broker(&mut self, id: i32) -> Result<&mut Connection, Failure> {
        if id < 0 {
            return Err(in_words(ResponseError::LeaderNotAvailable).into());
        }
        if !self.brokers.contains_key(&id) {
            let metadata = self.metadata(Some(&[]))?;
            let broker = metadata
                .brokers
                .iter()
                .find(|broker| broker.node_id.0 == id);
            let broker = broker.ok_or_else(|| format!("broker {id} is away"))?;
            let address = format!("{}:{}", &*broker.host, broker.port);
            let connection = Connection::open(&address, &self.security)?;
            self.brokers.insert(id, connection);
        }
        match self.brokers.get_mut(&id) {
            Some(connection) => Ok(connection),
            None => Err(format!("broker {id} is away").into()),
        }
    }

    /// Asks the broker that coordinates a group. `moved` tells from an answer that another one does by now.
    pub(super) fn ask_coordinator<R: Request>(
        &mut self,
        group: &str,
        version: i16,
        request: &R,
        error_of: impl Fn(&R::Response) -> i16,
    ) -> Result<R::Response, Failure> {
        let until = Instant::now() + MOVE_WAIT;
        loop {
            let find = FindCoordinatorRequest::default()
                .with_coordinator_keys(vec![StrBytes::from_string(group.to_owned())]);
            let found = self.ask(4, &find)?;
            let found = found
                .coordinators
                .first()
                .ok_or("the broker did not answer")?;
            let mut code = found.error_code;
            if code == 0 {
                let response = self.ask_broker(found.node_id.0, version, request)?;
                code = error_of(&response);
                if !is_moving(code) {
                    return Ok(response);
                }
            }
            if !is_moving(code) || Instant::now() > until {
                let refused = (code, found.error_message.as_deref());
                let right = (Operation::Describe, &*format!("group {group}"));
                check_right(group, refused, right)?;
            }
            std::thread::sleep(MOVE_PAUSE);
        }
    }
}

fn metadata_request(topics: Option<&[&str]>) -> MetadataRequest {
    let asked = |name: &&str| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    MetadataRequest::default()
        .with_topics(topics.map(|names| names.iter().map(asked).collect()))
        .with_allow_auto_topic_creation(false)
}

/// A topic's name, as a request has it.
pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// The first of several addresses that answers.
fn open_any(addresses: &str, security: &ClientSecurity) -> Result<Connection, Failure> {
    let mut reached = Err("no broker is named".into());
    for one in addresses.split(',') {
        reached = Connection::open(one.trim(), security);
        if reached.is_ok() {
            break;
        }
    }
    reached
}

/// Whether a coordinator's error says to ask again.
fn is_moving(code: i16) -> bool {
    matches!(
        ResponseError::try_from_code(code),
        Some(
            ResponseError::NotCoordinator
                | ResponseError::CoordinatorLoadInProgress
                | ResponseError::CoordinatorNotAvailable
        )
    )
}

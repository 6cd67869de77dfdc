//! What goes to the audit log: every request that changes something, as it came, by the broker that its client is connected to; and
//! what was refused: because a right is missing, because somebody could not say who it is, or of a request that changes
//! something.
//!
//! Tests: tests/authentication.rs, tests/advice.rs.

use metaq_protocol::ResponseError;
use metaq_protocol::frame::{self, RequestFrame, api_name};
use metaq_protocol::messages::*;
use metaq_protocol::protocol::Request;

use crate::audit::{AuditLog, Audited};
use crate::config::{broker_key, topic_key};
use crate::observe;
use crate::security::{Operation, PatternKind, Permission, ResourceKind, ScramMechanism};
use crate::session::Session;
use crate::tokens::LiveTokens;

/// Longer texts of clients are cut, letters.
const TEXT_LETTERS_MAX: usize = 256;
/// Of a configuration's value, and of the name of what it is of.
const VALUE_LETTERS_MAX: usize = 64;
const NAME_LETTERS_MAX: usize = 128;
/// So many things of one request are named.
const SUBJECTS_MAX: usize = 16;

/// Who asked.
pub(super) struct Asker<'a> {
    pub(super) session: &'a Session,
    pub(super) client_id: Option<&'a str>,
    /// API key of the request.
    pub(super) key: i16,
}

/// Notes a request that changes something.
pub(super) fn asked(log: &AuditLog, who: &Asker<'_>, frame: &RequestFrame, tokens: &LiveTokens) {
    if log.is_on()
        && let Some(subjects) = subjects(frame, tokens)
    {
        log.tell(line(who, subjects, None));
    }
}

/// Notes a refusal.
pub(super) fn refused(
    log: &AuditLog,
    who: &Asker<'_>,
    subject: &str,
    (error, why): (ResponseError, &str),
) {
    let is_wanted = is_unknown(error) || changes(who.key) && !is_of_rights(error);
    if log.is_on() && is_wanted {
        let subjects = vec![subject.to_owned()];
        let line = line(who, subjects, Some(why.to_owned()));
        log.tell_refusal(line, who.session.is_authenticated());
    }
}

/// Notes that a right is missing.
pub(super) fn denied(log: &AuditLog, who: &Asker<'_>, subject: String, why: String) {
    if log.is_on() {
        let line = line(who, vec![subject], Some(why));
        log.tell_refusal(line, who.session.is_authenticated());
    }
}

/// What clients say is kept as far as it is of a length that means well.
fn cut(text: &str) -> String {
    observe::cut(text, TEXT_LETTERS_MAX)
}

fn line(who: &Asker<'_>, subjects: Vec<String>, why: Option<String>) -> Audited {
    let session = who.session;
    Audited {
        time: jiff::Timestamp::now().to_string(),
        principal: cut(&session.principal().to_string()),
        host: session.peer_ip().to_string(),
        listener: session.listener().name.clone(),
        client_id: cut(who.client_id.unwrap_or_default()),
        api: api_name(who.key).to_string(),
        subjects: subjects.iter().map(|subject| cut(subject)).collect(),
        outcome: if why.is_none() { "asked" } else { "refused" },
        why: why.as_deref().map(cut),
        missing: 0,
    }
}

/// Whoever cannot say who it is.
fn is_unknown(error: ResponseError) -> bool {
    matches!(
        error,
        ResponseError::SaslAuthenticationFailed | ResponseError::UnsupportedSaslMechanism
    )
}

/// What [`denied`] has noted already.
fn is_of_rights(error: ResponseError) -> bool {
    matches!(
        error,
        ResponseError::TopicAuthorizationFailed
            | ResponseError::GroupAuthorizationFailed
            | ResponseError::ClusterAuthorizationFailed
            | ResponseError::TransactionalIdAuthorizationFailed
            | ResponseError::DelegationTokenAuthorizationFailed
    )
}

fn changes(key: i16) -> bool {
    TABLE.iter().any(|(known, _)| *known as i16 == key)
}

fn subjects(frame: &RequestFrame, tokens: &LiveTokens) -> Option<Vec<String>> {
    let (_, read) = TABLE.iter().find(|(key, _)| *key as i16 == frame.api_key)?;
    read(frame, tokens)
}

type Read = fn(&RequestFrame, &LiveTokens) -> Option<Vec<String>>;

/// The requests that change something and what they name; of values those of configurations that are no secrets.
const TABLE: &[(ApiKey, Read)] = &[
    (ApiKey::CreateTopics, |frame, _| {
        named::<CreateTopicsRequest, _>(frame, |asked| {
            each(&asked.topics, |topic| topic.name.to_string())
        })
    }),
    (ApiKey::DeleteTopics, |frame, _| {
        named::<DeleteTopicsRequest, _>(frame, |asked| {
            let of_old = each(&asked.topic_names, |name| name.to_string());
            let of_new = each(&asked.topics, |topic| match &topic.name {
                Some(name) => name.to_string(),
                None => topic.topic_id.to_string(),
            });
            of_old.into_iter().chain(of_new).collect()
        })
    }),
    (ApiKey::DeleteRecords, |frame, _| {
        named::<DeleteRecordsRequest, _>(frame, |asked| {
            each(&asked.topics, |topic| topic.name.to_string())
        })
    }),
    (ApiKey::CreatePartitions, |frame, _| {
        named::<CreatePartitionsRequest, _>(frame, |asked| {
            each(&asked.topics, |topic| {
                format!("{} to {}", *topic.name, topic.count)
            })
        })
    }),
    (ApiKey::AlterConfigs, |frame, _| {
        named::<AlterConfigsRequest, _>(frame, |asked| {
            let resources = asked.resources.iter().flat_map(|one| {
                let sets = each(&one.configs, |config| {
                    let value = config.value.as_deref().unwrap_or_default();
                    set(one.resource_type, &config.name, "=", value)
                });
                configured(one.resource_type, &one.resource_name, &sets)
            });
            resources.collect()
        })
    }),
    (ApiKey::IncrementalAlterConfigs, |frame, _| {
        named::<IncrementalAlterConfigsRequest, _>(frame, |asked| {
            let resources = asked.resources.iter().flat_map(|one| {
                let changes = each(&one.configs, |config| {
                    let value = config.value.as_deref().unwrap_or_default();
                    match config.config_operation {
                        DELETE => format!("delete {}", &*config.name),
                        APPEND => set(one.resource_type, &config.name, "+=", value),
                        SUBTRACT => set(one.resource_type, &config.name, "-=", value),
                        _ => set(one.resource_type, &config.name, "=", value),
                    }
                });
                configured(one.resource_type, &one.resource_name, &changes)
            });
            resources.collect()
        })
    }),
    (ApiKey::AlterReplicaLogDirs, |frame, _| {
        named::<AlterReplicaLogDirsRequest, _>(frame, |asked| {
            each(&asked.dirs, |dir| dir.path.to_string())
        })
    }),
    (ApiKey::AlterPartitionReassignments, |frame, _| {
        named::<AlterPartitionReassignmentsRequest, _>(frame, |asked| {
            each(&asked.topics, |topic| topic.name.to_string())
        })
    }),
    (ApiKey::ElectLeaders, |frame, _| {
        named::<ElectLeadersRequest, _>(frame, |asked| match &asked.topic_partitions {
            Some(topics) => each(topics, |topic| topic.topic.to_string()),
            None => vec!["all partitions".to_owned()],
        })
    }),
    (ApiKey::DeleteGroups, |frame, _| {
        named::<DeleteGroupsRequest, _>(frame, |asked| {
            each(&asked.groups_names, |group| group.to_string())
        })
    }),
    (ApiKey::OffsetDelete, |frame, _| {
        named::<OffsetDeleteRequest, _>(frame, |asked| vec![asked.group_id.to_string()])
    }),
    (ApiKey::AlterShareGroupOffsets, |frame, _| {
        named::<AlterShareGroupOffsetsRequest, _>(frame, |asked| vec![asked.group_id.to_string()])
    }),
    (ApiKey::DeleteShareGroupOffsets, |frame, _| {
        named::<DeleteShareGroupOffsetsRequest, _>(frame, |asked| vec![asked.group_id.to_string()])
    }),
    (ApiKey::CreateAcls, |frame, _| {
        named::<CreateAclsRequest, _>(frame, |asked| {
            each(&asked.creations, |one| {
                let what = on(
                    one.resource_type,
                    &one.resource_name,
                    one.resource_pattern_type,
                );
                let may = word(Permission::from_code(one.permission_type), Permission::word);
                let done = word(Operation::from_code(one.operation), Operation::word);
                format!(
                    "{may} {} from {}: {done} on {what}",
                    one.principal, one.host
                )
            })
        })
    }),
    (ApiKey::DeleteAcls, |frame, _| {
        named::<DeleteAclsRequest, _>(frame, |asked| {
            each(&asked.filters, |one| {
                let any = |text: &Option<metaq_protocol::protocol::StrBytes>| {
                    text.as_ref().map_or("any".to_owned(), ToString::to_string)
                };
                let (who, from) = (any(&one.principal_filter), any(&one.host_filter));
                let name = any(&one.resource_name_filter);
                let what = on(one.resource_type_filter, &name, one.pattern_type_filter);
                let may = word(Permission::from_code(one.permission_type), Permission::word);
                let done = word(Operation::from_code(one.operation), Operation::word);
                format!("{may} {who} from {from}: {done} on {what}")
            })
        })
    }),
    (ApiKey::AlterClientQuotas, |frame, _| {
        named::<AlterClientQuotasRequest, _>(frame, |asked| {
            each(&asked.entries, |entry| {
                let of = each(&entry.entity, |part| {
                    let name = part.entity_name.as_ref();
                    let name = name.map_or("<default>".to_owned(), ToString::to_string);
                    format!("{} {name}", part.entity_type)
                });
                let keys = each(&entry.ops, |op| op.key.to_string());
                format!("{}: {}", of.join(", "), keys.join(", "))
            })
        })
    }),
    (ApiKey::AlterUserScramCredentials, |frame, _| {
        named::<AlterUserScramCredentialsRequest, _>(frame, |asked| {
            let by = |code| word(ScramMechanism::by_code(code), |known| known.name());
            let deleted = each(&asked.deletions, |one| {
                format!("delete {} {}", &*one.name, by(one.mechanism))
            });
            let set = each(&asked.upsertions, |one| {
                format!("set {} {}", &*one.name, by(one.mechanism))
            });
            deleted.into_iter().chain(set).collect()
        })
    }),
    (ApiKey::CreateDelegationToken, |frame, _| {
        named::<CreateDelegationTokenRequest, _>(frame, |asked| {
            let owner = asked.owner_principal_name.as_deref().unwrap_or_default();
            let kind = asked.owner_principal_type.as_deref().unwrap_or_default();
            vec![match owner {
                "" => "for itself".to_owned(),
                owner => format!("for {kind}:{owner}"),
            }]
        })
    }),
    (ApiKey::RenewDelegationToken, |frame, tokens| {
        named::<RenewDelegationTokenRequest, _>(frame, |asked| vec![token(tokens, &asked.hmac)])
    }),
    (ApiKey::ExpireDelegationToken, |frame, tokens| {
        named::<ExpireDelegationTokenRequest, _>(frame, |asked| vec![token(tokens, &asked.hmac)])
    }),
    (ApiKey::UpdateFeatures, |frame, _| {
        named::<UpdateFeaturesRequest, _>(frame, |asked| {
            each(&asked.feature_updates, |one| one.feature.to_string())
        })
    }),
    (ApiKey::UnregisterBroker, |frame, _| {
        named::<UnregisterBrokerRequest, _>(frame, |asked| vec![asked.broker_id.to_string()])
    }),
    (ApiKey::WriteTxnMarkers, |frame, _| {
        named::<WriteTxnMarkersRequest, _>(frame, |asked| {
            each(&asked.markers, |marker| {
                format!("producer {}", *marker.producer_id)
            })
        })
    }),
];

fn named<R: Request, F: FnOnce(&R) -> Vec<String>>(
    frame: &RequestFrame,
    name: F,
) -> Option<Vec<String>> {
    let request = frame::decode::<R>(frame).ok()?;
    let mut subjects = name(&request);
    if subjects.len() > SUBJECTS_MAX {
        let more = subjects.len() - SUBJECTS_MAX;
        subjects.truncate(SUBJECTS_MAX);
        subjects.push(format!("and {more} more"));
    }
    Some(subjects)
}

fn each<T>(all: &[T], name: impl Fn(&T) -> String) -> Vec<String> {
    all.iter().map(name).collect()
}

/// A delegation token by its id: its HMAC is what logs in.
fn token(tokens: &LiveTokens, hmac: &[u8]) -> String {
    match tokens.of_hmac(hmac) {
        Some(token) => format!("token {}", token.id),
        None => "a token that is not known".to_owned(),
    }
}

/// What a code stands for; in filters some stand for all.
fn word<T>(known: Option<T>, name: impl FnOnce(T) -> &'static str) -> &'static str {
    known.map_or("any", name)
}

/// What an access control list is about.
fn on(kind: i8, name: &str, pattern: i8) -> String {
    let kind = word(ResourceKind::from_code(kind), ResourceKind::word);
    match PatternKind::from_code(pattern) {
        Some(PatternKind::Prefixed) => format!("{kind} {name} and what begins so"),
        _ => format!("{kind} {name}"),
    }
}

/// KIP-339's operations on a configuration, beside that which sets it.
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// A configuration with what it is set to, where that is known to be no secret: a password may be given to the wrong kind of
/// resource, or to a key that nobody knows.
fn set(kind: i8, key: &str, how: &str, value: &str) -> String {
    let is_known = match kind {
        TOPIC => topic_key(key).is_some(),
        BROKER => broker_key(key).is_some(),
        BROKER_LOGGER => true,
        _ => false,
    };
    let is_secret = broker_key(key).is_some_and(|known| known.is_secret());
    match is_known && !is_secret {
        true => format!("{key}{how}{:?}", observe::cut(value, VALUE_LETTERS_MAX)),
        false => key.to_owned(),
    }
}

/// What is done to a resource's configurations, one by one: a long one hides no other.
fn configured(kind: i8, name: &str, changes: &[String]) -> Vec<String> {
    let name = if name.is_empty() { "default" } else { name };
    let of = format!(
        "{} {}",
        resource(kind),
        observe::cut(name, NAME_LETTERS_MAX)
    );
    match changes.is_empty() {
        true => vec![format!("{of}: nothing")],
        false => each(changes, |change| format!("{of}: {change}")),
    }
}

/// As Kafka's ConfigResource numbers them.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;

/// As Kafka's ConfigResource names it.
fn resource(kind: i8) -> &'static str {
    match kind {
        TOPIC => "topic",
        BROKER => "broker",
        BROKER_LOGGER => "broker logger",
        16 => "client metrics",
        32 => "group",
        _ => "resource",
    }
}

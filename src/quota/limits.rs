//! Which limits an entity may have, and which values (Kafka's QuotaConfig and ClientQuotaControlManager).

use super::rules::{CONNECTION_RATE, QuotaKind};
use crate::cluster::Entity;
use crate::config::Overrides;

/// What a limit's value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    Int,
    Long,
    Double,
}

/// Part of a whole number that is none (Kafka's ClientQuotaControlManager).
const FRACTION: f64 = 1e-6;

fn range_of(entity: &Entity, key: &str) -> Option<Range> {
    if let Entity::Ip(_) = entity {
        return (key == CONNECTION_RATE).then_some(Range::Int);
    }
    let kind = QuotaKind::ALL.into_iter().find(|kind| kind.key() == key)?;
    Some(match kind {
        QuotaKind::Produce | QuotaKind::Fetch => Range::Long,
        QuotaKind::Request | QuotaKind::ControllerMutation => Range::Double,
    })
}

/// Whether an entity may have a limit of this name: what else it has is no quota, such as a user's credentials.
pub fn is_limit(entity: &Entity, key: &str) -> bool {
    range_of(entity, key).is_some()
}

/// Whether an entity may have a limit; otherwise why not, as Kafka says it.
pub fn check_limit(entity: &Entity, key: &str, value: f64) -> Result<(), String> {
    let range = range_of(entity, key).ok_or_else(|| format!("Invalid configuration key {key}"))?;
    if value.is_nan() || value <= 0.0 {
        return Err(format!("Quota {key} must be greater than 0"));
    }
    let (most, what) = match range {
        Range::Double => return Ok(()),
        Range::Int => (f64::from(i32::MAX), "an INT"),
        Range::Long => (i64::MAX as f64, "a LONG"),
    };
    if value > most {
        return Err(format!("Proposed value for {key} is too large for {what}."));
    }
    match (value % 1.0).abs() > FRACTION {
        true => Err(format!("{key} cannot be a fractional value.")),
        false => Ok(()),
    }
}

/// The limits among what is set for an entity: credentials are left out.
pub fn limits_of<'a>(
    entity: &'a Entity,
    set: &'a Overrides,
) -> impl Iterator<Item = (&'a str, f64)> {
    let known = set
        .iter()
        .filter(|(key, _)| range_of(entity, key).is_some());
    known.filter_map(|(key, value)| Some((key.as_str(), value.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::EntityName;

    #[test]
    fn a_limit_is_more_than_nothing_within_its_type_and_one_that_the_entity_may_have() {
        let user = Entity::user("u");
        let ip = Entity::Ip(EntityName::Default);
        let refused = |entity, key, value| check_limit(entity, key, value).unwrap_err();
        assert_eq!(check_limit(&user, "producer_byte_rate", 1.0), Ok(()));
        assert_eq!(check_limit(&user, "request_percentage", 0.5), Ok(()));
        assert_eq!(check_limit(&ip, CONNECTION_RATE, 1.0), Ok(()));
        assert_eq!(
            refused(&user, CONNECTION_RATE, 1.0),
            "Invalid configuration key connection_creation_rate"
        );
        assert_eq!(
            refused(&ip, "producer_byte_rate", 1.0),
            "Invalid configuration key producer_byte_rate"
        );
        for nothing in [0.0, -1.0, f64::NAN] {
            let why = "Quota request_percentage must be greater than 0";
            assert_eq!(refused(&user, "request_percentage", nothing), why);
        }
        assert_eq!(
            refused(&user, "consumer_byte_rate", 1.5),
            "consumer_byte_rate cannot be a fractional value."
        );
        assert_eq!(
            refused(&user, "consumer_byte_rate", 1e19),
            "Proposed value for consumer_byte_rate is too large for a LONG."
        );
        assert_eq!(
            refused(&ip, CONNECTION_RATE, 2147483648.0),
            "Proposed value for connection_creation_rate is too large for an INT."
        );
    }

    #[test]
    fn credentials_are_no_limits() {
        let set = [("SCRAM-SHA-256", "salt=x"), ("producer_byte_rate", "1024")];
        let set = set.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let set = Overrides::from(set);
        let user = Entity::user("u");
        let limits: Vec<(&str, f64)> = limits_of(&user, &set).collect();
        assert_eq!(limits, [("producer_byte_rate", 1024.0)]);
    }
}

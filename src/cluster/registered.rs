//! What a broker says of itself in `/brokers/ids/<id>/master`, written and read.

use super::image::{Broker, BrokerEndpoint};
use crate::meta::records::{BrokerMasterRecord, EndpointRecord, RECORD_VERSION};

/// What a broker registers.
pub(super) fn master_record(member: &Broker, directory_id: &str, epoch: i64) -> BrokerMasterRecord {
    BrokerMasterRecord {
        version: RECORD_VERSION,
        epoch,
        endpoints: member.endpoints.iter().map(endpoint_record).collect(),
        rack: member.rack.clone(),
        directory_id: directory_id.to_owned(),
        accept_publish: member.accept_publish,
        follows_only: member.follows_only,
        shutting_down: member.shutting_down,
        lost: member.lost,
        metaq: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn endpoint_record(endpoint: &BrokerEndpoint) -> EndpointRecord {
    EndpointRecord {
        listener: endpoint.listener.clone(),
        security: endpoint.security.clone(),
        host: match endpoint.host.as_str() {
            "" => system_host_name(),
            host => host.to_owned(),
        },
        port: endpoint.port,
    }
}

fn system_host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// A broker as it registered.
pub(super) fn from_record(id: i32, record: BrokerMasterRecord) -> Broker {
    let endpoint = |record: EndpointRecord| BrokerEndpoint {
        listener: match record.listener.is_empty() {
            true => record.security.clone(),
            false => record.listener,
        },
        security: record.security,
        host: record.host,
        port: record.port,
    };
    Broker {
        id,
        endpoints: record.endpoints.into_iter().map(endpoint).collect(),
        rack: record.rack,
        accept_publish: record.accept_publish,
        follows_only: record.follows_only,
        shutting_down: record.shutting_down,
        lost: record.lost,
        epoch: record.epoch,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{DIRECTORY, member};
    use super::*;
    use crate::meta::records::{decode, encode};

    #[test]
    fn a_registration_without_names_of_listeners_is_read_as_that_of_their_protocols() {
        let mut record = master_record(&member(), DIRECTORY, 4);
        record.endpoints[0].listener = "CLIENTS".to_owned();
        let text = String::from_utf8(encode(&record).to_vec()).unwrap();
        let older = text.replace(r#""listener":"CLIENTS","#, "");
        let broker = |text: &str| from_record(0, decode("/x", text.as_bytes()).unwrap());
        let at = |text: &str, listener| broker(text).endpoint(listener).map(|at| at.port);
        assert_eq!(at(&text, "CLIENTS"), Some(9092));
        assert_eq!(at(&text, "PLAINTEXT"), None);
        assert_eq!(at(&older, "PLAINTEXT"), Some(9092));
    }
}

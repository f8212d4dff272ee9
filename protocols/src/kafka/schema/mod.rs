//! What Kafka's messages look like: every API of Apache Kafka 4.2 that clients use, in all versions.
//!
//! These are the definitions of the protocol (`clients/src/main/resources/common/message` in Apache
//! Kafka) as tables: fields in the order of the wire, with the versions that have them. [`Mark`]s
//! say which fields the gate looks for. Everything that reads or writes a message is driven by them,
//! so that no API has code of its own for that.

mod access;
mod cluster;
mod connection;
mod field;
mod groups;
mod mark;
mod offsets;
mod records;
mod share;
mod streams;
mod topics;
mod transactions;

pub(super) use self::field::{Field, Kind};
pub(super) use self::mark::Mark;

/// Both messages of one API.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) key: i16,
    pub(super) name: &'static str,
    /// The first and the last version that are known.
    pub(super) versions: (i16, i16),
    /// The first version with compact lengths and tagged fields (KIP-482).
    flexible: i16,
    pub(super) request: &'static [Field],
    pub(super) response: &'static [Field],
}

impl Schema {
    /// For [`Schema::flexible`]: no version is.
    const NEVER: i16 = i16::MAX;

    /// Whether this version has compact lengths and tagged fields.
    pub(super) fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible
    }

    /// Whether the header of a response has tagged fields. `ApiVersions` is read before the client
    /// knows which versions the broker has, so its answer's header never has them (KIP-511).
    pub(super) fn has_response_tags(&self, version: i16) -> bool {
        self.is_flexible(version) && self.key != API_VERSIONS
    }

    /// Whether the version is known.
    pub(super) fn knows(&self, version: i16) -> bool {
        (self.versions.0..=self.versions.1).contains(&version)
    }
}

/// APIs that the gate treats in a way of their own.
pub(super) const PRODUCE: i16 = 0;
pub(super) const FETCH: i16 = 1;
pub(super) const METADATA: i16 = 3;
pub(super) const OFFSET_FETCH: i16 = 9;
pub(super) const LIST_GROUPS: i16 = 16;
pub(super) const SASL_HANDSHAKE: i16 = 17;
pub(super) const API_VERSIONS: i16 = 18;
pub(super) const ADD_PARTITIONS_TO_TXN: i16 = 24;
pub(super) const CONSUMER_GROUP_HEARTBEAT: i16 = 68;
pub(super) const DESCRIBE_TOPIC_PARTITIONS: i16 = 75;
pub(super) const SHARE_GROUP_HEARTBEAT: i16 = 76;
pub(super) const SHARE_FETCH: i16 = 78;
pub(super) const SHARE_ACKNOWLEDGE: i16 = 79;

/// Every API, by its number.
pub(super) static ALL: &[&Schema] = &[
    &records::PRODUCE,
    &records::FETCH,
    &records::LIST_OFFSETS,
    &records::METADATA,
    &offsets::OFFSET_COMMIT,
    &offsets::OFFSET_FETCH,
    &groups::FIND_COORDINATOR,
    &groups::JOIN_GROUP,
    &groups::HEARTBEAT,
    &groups::LEAVE_GROUP,
    &groups::SYNC_GROUP,
    &groups::DESCRIBE_GROUPS,
    &groups::LIST_GROUPS,
    &connection::SASL_HANDSHAKE,
    &connection::API_VERSIONS,
    &topics::CREATE_TOPICS,
    &topics::DELETE_TOPICS,
    &records::DELETE_RECORDS,
    &transactions::INIT_PRODUCER_ID,
    &records::OFFSET_FOR_LEADER_EPOCH,
    &transactions::ADD_PARTITIONS_TO_TXN,
    &transactions::ADD_OFFSETS_TO_TXN,
    &transactions::END_TXN,
    &transactions::TXN_OFFSET_COMMIT,
    &access::DESCRIBE_ACLS,
    &access::CREATE_ACLS,
    &access::DELETE_ACLS,
    &access::DESCRIBE_CONFIGS,
    &access::ALTER_CONFIGS,
    &topics::ALTER_REPLICA_LOG_DIRS,
    &topics::DESCRIBE_LOG_DIRS,
    &connection::SASL_AUTHENTICATE,
    &topics::CREATE_PARTITIONS,
    &access::CREATE_DELEGATION_TOKEN,
    &access::RENEW_DELEGATION_TOKEN,
    &access::EXPIRE_DELEGATION_TOKEN,
    &access::DESCRIBE_DELEGATION_TOKEN,
    &groups::DELETE_GROUPS,
    &topics::ELECT_LEADERS,
    &access::INCREMENTAL_ALTER_CONFIGS,
    &topics::ALTER_PARTITION_REASSIGNMENTS,
    &topics::LIST_PARTITION_REASSIGNMENTS,
    &offsets::OFFSET_DELETE,
    &cluster::DESCRIBE_CLIENT_QUOTAS,
    &cluster::ALTER_CLIENT_QUOTAS,
    &cluster::DESCRIBE_USER_SCRAM_CREDENTIALS,
    &cluster::ALTER_USER_SCRAM_CREDENTIALS,
    &cluster::DESCRIBE_QUORUM,
    &cluster::UPDATE_FEATURES,
    &records::DESCRIBE_CLUSTER,
    &transactions::DESCRIBE_PRODUCERS,
    &cluster::UNREGISTER_BROKER,
    &transactions::DESCRIBE_TRANSACTIONS,
    &transactions::LIST_TRANSACTIONS,
    &groups::CONSUMER_GROUP_HEARTBEAT,
    &groups::CONSUMER_GROUP_DESCRIBE,
    &cluster::LIST_CONFIG_RESOURCES,
    &records::DESCRIBE_TOPIC_PARTITIONS,
    &share::SHARE_GROUP_HEARTBEAT,
    &share::SHARE_GROUP_DESCRIBE,
    &share::SHARE_FETCH,
    &share::SHARE_ACKNOWLEDGE,
    &cluster::ADD_RAFT_VOTER,
    &cluster::REMOVE_RAFT_VOTER,
    &streams::STREAMS_GROUP_HEARTBEAT,
    &streams::STREAMS_GROUP_DESCRIBE,
    &share::DESCRIBE_SHARE_GROUP_OFFSETS,
    &share::ALTER_SHARE_GROUP_OFFSETS,
    &share::DELETE_SHARE_GROUP_OFFSETS,
];

/// The API of this number, if clients use it.
pub(super) fn find(key: i16) -> Option<usize> {
    ALL.binary_search_by_key(&key, |schema| schema.key).ok()
}

//! What an observer is told: the records that the access log is written from.

use std::net::SocketAddr;
use std::time::SystemTime;

use portreeve_policy::Outcome;

use super::record::{
    ConnectionRecord, HttpRecord, KafkaRecord, LimitRecord, Party, RefusedRecord, Verdict,
};
use crate::observer::{self, Answer, Asked, Flow, Topics};

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Allow => Self::Allow,
            Verdict::Deny => Self::Deny,
            Verdict::Audit => Self::Audit,
        }
    }
}

impl<'a> From<Party<'a>> for observer::Party<'a> {
    fn from(party: Party<'a>) -> Self {
        Self { address: party.address, identity: party.identity, labels: party.labels }
    }
}

impl<'a> From<&ConnectionRecord<'a>> for Flow<'a> {
    fn from(record: &ConnectionRecord<'a>) -> Self {
        Self {
            time: record.time,
            direction: record.direction,
            verdict: record.verdict.into(),
            source: record.source.into(),
            destination: record.destination.into(),
            asked: Asked::Connection,
            rule: record.rule,
            policy: record.policy,
            reason: record.reason,
            endpoint: "",
            revision: record.revision,
            by_kernel: record.by_kernel.is_some(),
        }
    }
}

impl<'a> From<&HttpRecord<'a>> for Flow<'a> {
    fn from(record: &HttpRecord<'a>) -> Self {
        Self {
            time: record.time,
            direction: record.direction,
            verdict: record.verdict.into(),
            source: record.source.into(),
            destination: record.destination.into(),
            asked: Asked::Http {
                method: record.method,
                host: record.host,
                path: record.path,
                answer: Some(Answer {
                    status: record.status,
                    local: record.local,
                    grpc_status: record.grpc.and_then(|call| call.status),
                    duration: record.duration,
                }),
            },
            rule: record.rule,
            policy: record.policy,
            reason: record.reason,
            endpoint: "",
            revision: record.revision,
            by_kernel: false,
        }
    }
}

impl<'a> From<&KafkaRecord<'a>> for Flow<'a> {
    fn from(record: &KafkaRecord<'a>) -> Self {
        Self {
            time: record.time,
            direction: record.direction,
            verdict: record.verdict.into(),
            source: record.source.into(),
            destination: record.destination.into(),
            asked: Asked::Kafka {
                api: record.api,
                client_id: record.client_id,
                group: record.group,
                topics: Topics(record.topics),
                error: record.error,
                duration: record.duration,
            },
            rule: record.rule,
            policy: record.policy,
            reason: record.reason,
            endpoint: "",
            revision: record.revision,
            by_kernel: false,
        }
    }
}

impl<'a> From<&RefusedRecord<'a>> for Flow<'a> {
    fn from(record: &RefusedRecord<'a>) -> Self {
        Self {
            time: record.time,
            direction: record.direction,
            verdict: Outcome::Deny,
            source: record.source.into(),
            destination: record.destination.into(),
            asked: Asked::Refused { protocol: record.refused.protocol() },
            rule: "",
            policy: "",
            reason: record.refused.name(),
            endpoint: "",
            revision: 0,
            by_kernel: false,
        }
    }
}

impl From<&LimitRecord> for Flow<'_> {
    fn from(record: &LimitRecord) -> Self {
        let party = |address: Option<SocketAddr>| observer::Party {
            address: address.map(|at| SocketAddr::new(at.ip().to_canonical(), at.port())),
            identity: 0,
            labels: "",
        };
        Self {
            time: SystemTime::now(),
            direction: record.direction,
            verdict: Outcome::Deny,
            source: party(Some(record.client)),
            destination: party(record.upstream),
            asked: Asked::Limit,
            rule: "",
            policy: "",
            reason: record.limit.name(),
            endpoint: "",
            revision: 0,
            by_kernel: false,
        }
    }
}

//! Which APIs and versions the gate takes, and what they are for.

use super::request::{Request, Role};
use super::schema::{self, Schema};

/// An API that the gate knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Api(usize);

impl Api {
    /// The API of this number. APIs that brokers use among themselves are not known, nor are the
    /// telemetry of clients (71, 72), which is nobody's but the operator's to ask for.
    pub(super) fn find(key: i16) -> Option<Self> {
        schema::find(key).map(Self)
    }

    /// The API that the gate itself uses, to resolve topic ids.
    pub(super) fn metadata() -> Self {
        Self(schema::find(schema::METADATA).unwrap_or_default())
    }

    /// Its place in [`schema::ALL`].
    pub(super) fn place(self) -> usize {
        self.0
    }

    pub(super) fn schema(self) -> &'static Schema {
        schema::ALL[self.0]
    }

    pub(super) fn key(self) -> i16 {
        self.schema().key
    }

    /// The versions that clients may use: what is known, less what can't be judged.
    ///
    /// With `rewrites_brokers` the addresses of brokers are changed in responses, which is not
    /// possible where they come after the records (KIP-951, share groups).
    pub(super) fn offered(self, rewrites_brokers: bool) -> Option<(i16, i16)> {
        let (first, last) = self.schema().versions;
        let offered = match self.key() {
            schema::PRODUCE if rewrites_brokers => (first, 9),
            schema::FETCH if rewrites_brokers => (first, 15),
            schema::SHARE_FETCH | schema::SHARE_ACKNOWLEDGE if rewrites_brokers => return None,
            // By ids of topics that a response may name first.
            schema::OFFSET_FETCH => (first, 9),
            // What follows version 0 are tokens without frames (KIP-152).
            schema::SASL_HANDSHAKE => (1, last),
            // Later ones are for brokers (KIP-890).
            schema::ADD_PARTITIONS_TO_TXN => (first, 3),
            _ => (first, last),
        };
        Some(offered)
    }

    /// The error of a request that is refused as a whole, and not for its topics.
    pub(super) fn refused(self) -> i16 {
        match self.key() {
            8..=16 | 42 | 47 | 68 | 69 | 76..=79 | 88..=92 => error::GROUP,
            22 | 24..=26 | 28 | 65 | 66 => error::TRANSACTIONAL_ID,
            38..=41 => error::DELEGATION_TOKEN,
            0..=3 | 19..=21 | 23 | 37 | 61 | 75 => error::TOPIC,
            _ => error::CLUSTER,
        }
    }

    /// A request of this API, as the driver is shown it.
    pub(super) fn request(
        self,
        version: i16,
        correlation_id: i32,
        client_id: &[u8],
    ) -> Request<'_> {
        let Schema { key: api_key, name: api, .. } = *self.schema();
        Request { api_key, api, version, client_id, correlation_id, role: self.role() }
    }

    /// Who uses it.
    pub(super) fn role(self) -> Role {
        match self.key() {
            0 | 22 | 24..=26 => Role::Produce,
            1 | 2 | 8 | 9 | 11..=14 | 23 | 28 | 68 | 76 | 78 | 79 | 88 => Role::Consume,
            3 | 10 | 17 | 18 | 36 | 60 => Role::Connection,
            _ => Role::Admin,
        }
    }
}

/// Error codes (Kafka protocol guide, "Error Codes").
pub(super) mod error {
    pub(in crate::kafka) const NONE: i16 = 0;
    pub(in crate::kafka) const TOPIC: i16 = 29;
    pub(in crate::kafka) const GROUP: i16 = 30;
    pub(in crate::kafka) const CLUSTER: i16 = 31;
    pub(in crate::kafka) const UNSUPPORTED_VERSION: i16 = 35;
    pub(in crate::kafka) const TRANSACTIONAL_ID: i16 = 53;
    pub(in crate::kafka) const OPERATION_NOT_ATTEMPTED: i16 = 55;
    pub(in crate::kafka) const DELEGATION_TOKEN: i16 = 65;
    pub(in crate::kafka) const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
    pub(in crate::kafka) const UNKNOWN_TOPIC_ID: i16 = 100;
    pub(in crate::kafka) const SHARE_SESSION_NOT_FOUND: i16 = 122;
}

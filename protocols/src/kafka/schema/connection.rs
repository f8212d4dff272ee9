//! What a connection begins with.

use super::Schema;
use super::field::{array, boolean, bytes, int16, int32, int64, list, string};
use super::mark::Mark::Error;

/// SaslHandshake (17).
pub(in crate::kafka) static SASL_HANDSHAKE: Schema = Schema {
    key: 17,
    name: "SaslHandshake",
    versions: (0, 1),
    flexible: Schema::NEVER,
    request: &[string("mechanism")],
    response: &[int16("error_code").is(Error), list("mechanisms", &[string("item")])],
};

/// ApiVersions (18).
pub(in crate::kafka) static API_VERSIONS: Schema = Schema {
    key: 18,
    name: "ApiVersions",
    versions: (0, 4),
    flexible: 3,
    request: &[string("client_software_name").since(3), string("client_software_version").since(3)],
    response: &[
        int16("error_code").is(Error),
        array("api_keys", &[int16("api_key"), int16("min_version"), int16("max_version")]),
        int32("throttle_time_ms").since(1),
        array("supported_features", &[string("name"), int16("min_version"), int16("max_version")])
            .since(3)
            .tag(0),
        int64("finalized_features_epoch").since(3).tag(1).or(-1),
        array(
            "finalized_features",
            &[string("name"), int16("max_version_level"), int16("min_version_level")],
        )
        .since(3)
        .tag(2),
        boolean("zk_migration_ready").since(3).tag(3),
    ],
};

/// SaslAuthenticate (36).
pub(in crate::kafka) static SASL_AUTHENTICATE: Schema = Schema {
    key: 36,
    name: "SaslAuthenticate",
    versions: (0, 2),
    flexible: 2,
    request: &[bytes("auth_bytes")],
    response: &[
        int16("error_code").is(Error),
        string("error_message").nullable(0),
        bytes("auth_bytes"),
        int64("session_lifetime_ms").since(1),
    ],
};

//! Administration of the cluster.

use super::Schema;
use super::field::{
    array, boolean, bytes, float64, int8, int16, int32, int64, list, string, uint16, uuid,
};
use super::mark::Mark::{Error, Partition, Partitions, Topic, Topics};

/// DescribeClientQuotas (48).
pub(in crate::kafka) static DESCRIBE_CLIENT_QUOTAS: Schema = Schema {
    key: 48,
    name: "DescribeClientQuotas",
    versions: (0, 1),
    flexible: 1,
    request: &[
        array(
            "components",
            &[string("entity_type"), int8("match_type"), string("match").nullable(0)],
        ),
        boolean("strict"),
    ],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").is(Error),
        string("error_message").nullable(0),
        array(
            "entries",
            &[
                array("entity", &[string("entity_type"), string("entity_name").nullable(0)]),
                array("values", &[string("key"), float64("value")]),
            ],
        )
        .nullable(0),
    ],
};

/// AlterClientQuotas (49).
pub(in crate::kafka) static ALTER_CLIENT_QUOTAS: Schema = Schema {
    key: 49,
    name: "AlterClientQuotas",
    versions: (0, 1),
    flexible: 1,
    request: &[
        array(
            "entries",
            &[
                array("entity", &[string("entity_type"), string("entity_name").nullable(0)]),
                array("ops", &[string("key"), float64("value"), boolean("remove")]),
            ],
        ),
        boolean("validate_only"),
    ],
    response: &[
        int32("throttle_time_ms"),
        array(
            "entries",
            &[
                int16("error_code").is(Error),
                string("error_message").nullable(0),
                array("entity", &[string("entity_type"), string("entity_name").nullable(0)]),
            ],
        ),
    ],
};

/// DescribeUserScramCredentials (50).
pub(in crate::kafka) static DESCRIBE_USER_SCRAM_CREDENTIALS: Schema = Schema {
    key: 50,
    name: "DescribeUserScramCredentials",
    versions: (0, 0),
    flexible: 0,
    request: &[array("users", &[string("name")]).nullable(0)],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").is(Error),
        string("error_message").nullable(0),
        array(
            "results",
            &[
                string("user"),
                int16("error_code").is(Error),
                string("error_message").nullable(0),
                array("credential_infos", &[int8("mechanism"), int32("iterations")]),
            ],
        ),
    ],
};

/// AlterUserScramCredentials (51).
pub(in crate::kafka) static ALTER_USER_SCRAM_CREDENTIALS: Schema = Schema {
    key: 51,
    name: "AlterUserScramCredentials",
    versions: (0, 0),
    flexible: 0,
    request: &[
        array("deletions", &[string("name"), int8("mechanism")]),
        array(
            "upsertions",
            &[
                string("name"),
                int8("mechanism"),
                int32("iterations"),
                bytes("salt"),
                bytes("salted_password"),
            ],
        ),
    ],
    response: &[
        int32("throttle_time_ms"),
        array(
            "results",
            &[string("user"), int16("error_code").is(Error), string("error_message").nullable(0)],
        ),
    ],
};

/// DescribeQuorum (55).
pub(in crate::kafka) static DESCRIBE_QUORUM: Schema = Schema {
    key: 55,
    name: "DescribeQuorum",
    versions: (0, 2),
    flexible: 0,
    request: &[array(
        "topics",
        &[
            string("topic_name").is(Topic),
            array("partitions", &[int32("partition_index").is(Partition)]).is(Partitions),
        ],
    )
    .is(Topics)],
    response: &[
        int16("error_code").is(Error),
        string("error_message").since(2).nullable(2),
        array(
            "topics",
            &[
                string("topic_name").is(Topic),
                array(
                    "partitions",
                    &[
                        int32("partition_index").is(Partition),
                        int16("error_code").is(Error),
                        string("error_message").since(2).nullable(2),
                        int32("leader_id"),
                        int32("leader_epoch"),
                        int64("high_watermark"),
                        array(
                            "current_voters",
                            &[
                                int32("replica_id"),
                                uuid("replica_directory_id").since(2),
                                int64("log_end_offset"),
                                int64("last_fetch_timestamp").since(1).or(-1),
                                int64("last_caught_up_timestamp").since(1).or(-1),
                            ],
                        ),
                        array(
                            "observers",
                            &[
                                int32("replica_id"),
                                uuid("replica_directory_id").since(2),
                                int64("log_end_offset"),
                                int64("last_fetch_timestamp").since(1).or(-1),
                                int64("last_caught_up_timestamp").since(1).or(-1),
                            ],
                        ),
                    ],
                )
                .is(Partitions),
            ],
        )
        .is(Topics),
        array(
            "nodes",
            &[
                int32("node_id"),
                array("listeners", &[string("name"), string("host"), uint16("port")]),
            ],
        )
        .since(2),
    ],
};

/// UpdateFeatures (57).
pub(in crate::kafka) static UPDATE_FEATURES: Schema = Schema {
    key: 57,
    name: "UpdateFeatures",
    versions: (0, 2),
    flexible: 0,
    request: &[
        int32("timeout_ms"),
        array(
            "feature_updates",
            &[
                string("feature"),
                int16("max_version_level"),
                int8("upgrade_type").since(1),
                boolean("allow_downgrade").until(0),
            ],
        ),
        boolean("validate_only").since(1),
    ],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").is(Error),
        string("error_message").nullable(0),
        array(
            "results",
            &[
                string("feature"),
                int16("error_code").is(Error),
                string("error_message").nullable(0),
            ],
        )
        .until(1),
    ],
};

/// UnregisterBroker (64).
pub(in crate::kafka) static UNREGISTER_BROKER: Schema = Schema {
    key: 64,
    name: "UnregisterBroker",
    versions: (0, 0),
    flexible: 0,
    request: &[int32("broker_id")],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").is(Error),
        string("error_message").nullable(0),
    ],
};

/// ListConfigResources (74).
pub(in crate::kafka) static LIST_CONFIG_RESOURCES: Schema = Schema {
    key: 74,
    name: "ListConfigResources",
    versions: (0, 1),
    flexible: 0,
    request: &[list("resource_types", &[int8("item")]).since(1)],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").is(Error),
        array(
            "config_resources",
            &[string("resource_name"), int8("resource_type").since(1).or(16)],
        ),
    ],
};

/// AddRaftVoter (80).
pub(in crate::kafka) static ADD_RAFT_VOTER: Schema = Schema {
    key: 80,
    name: "AddRaftVoter",
    versions: (0, 1),
    flexible: 0,
    request: &[
        string("cluster_id").nullable(0),
        int32("timeout_ms"),
        int32("voter_id"),
        uuid("voter_directory_id"),
        array("listeners", &[string("name"), string("host"), uint16("port")]),
        boolean("ack_when_committed").since(1),
    ],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").is(Error),
        string("error_message").nullable(0),
    ],
};

/// RemoveRaftVoter (81).
pub(in crate::kafka) static REMOVE_RAFT_VOTER: Schema = Schema {
    key: 81,
    name: "RemoveRaftVoter",
    versions: (0, 0),
    flexible: 0,
    request: &[string("cluster_id").nullable(0), int32("voter_id"), uuid("voter_directory_id")],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").is(Error),
        string("error_message").nullable(0),
    ],
};

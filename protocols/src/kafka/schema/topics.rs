//! Administration of topics and partitions.

use super::Schema;
use super::field::{array, boolean, int8, int16, int32, int64, list, string, uuid};
use super::mark::Mark::{Error, Partition, Partitions, Topic, TopicId, Topics};

/// CreateTopics (19).
pub(in crate::kafka) static CREATE_TOPICS: Schema = Schema {
    key: 19,
    name: "CreateTopics",
    versions: (2, 7),
    flexible: 5,
    request: &[
        array(
            "topics",
            &[
                string("name").is(Topic),
                int32("num_partitions"),
                int16("replication_factor"),
                array(
                    "assignments",
                    &[int32("partition_index"), list("broker_ids", &[int32("item")])],
                ),
                array("configs", &[string("name"), string("value").nullable(2)]),
            ],
        )
        .is(Topics),
        int32("timeout_ms"),
        boolean("validate_only"),
    ],
    response: &[
        int32("throttle_time_ms"),
        array(
            "topics",
            &[
                string("name").is(Topic),
                uuid("topic_id").since(7).is(TopicId),
                int16("error_code").is(Error),
                string("error_message").nullable(2),
                int32("num_partitions").since(5).or(-1),
                int16("replication_factor").since(5).or(-1),
                array(
                    "configs",
                    &[
                        string("name"),
                        string("value").nullable(5),
                        boolean("read_only"),
                        int8("config_source").or(-1),
                        boolean("is_sensitive"),
                    ],
                )
                .since(5)
                .nullable(5),
                int16("topic_config_error_code").since(5).tag(0),
            ],
        )
        .is(Topics),
    ],
};

/// DeleteTopics (20).
pub(in crate::kafka) static DELETE_TOPICS: Schema = Schema {
    key: 20,
    name: "DeleteTopics",
    versions: (1, 6),
    flexible: 4,
    request: &[
        array("topics", &[string("name").nullable(6).is(Topic), uuid("topic_id").is(TopicId)])
            .since(6)
            .is(Topics),
        list("topic_names", &[string("item").is(Topic)]).until(5).is(Topics),
        int32("timeout_ms"),
    ],
    response: &[
        int32("throttle_time_ms"),
        array(
            "responses",
            &[
                string("name").nullable(6).is(Topic),
                uuid("topic_id").since(6).is(TopicId),
                int16("error_code").is(Error),
                string("error_message").since(5).nullable(5),
            ],
        )
        .is(Topics),
    ],
};

/// AlterReplicaLogDirs (34).
pub(in crate::kafka) static ALTER_REPLICA_LOG_DIRS: Schema = Schema {
    key: 34,
    name: "AlterReplicaLogDirs",
    versions: (1, 2),
    flexible: 2,
    request: &[array(
        "dirs",
        &[
            string("path"),
            array(
                "topics",
                &[
                    string("name").is(Topic),
                    list("partitions", &[int32("item").is(Partition)]).is(Partitions),
                ],
            )
            .is(Topics),
        ],
    )],
    response: &[
        int32("throttle_time_ms"),
        array(
            "results",
            &[
                string("topic_name").is(Topic),
                array(
                    "partitions",
                    &[int32("partition_index").is(Partition), int16("error_code").is(Error)],
                )
                .is(Partitions),
            ],
        )
        .is(Topics),
    ],
};

/// DescribeLogDirs (35).
pub(in crate::kafka) static DESCRIBE_LOG_DIRS: Schema = Schema {
    key: 35,
    name: "DescribeLogDirs",
    versions: (1, 4),
    flexible: 2,
    request: &[array(
        "topics",
        &[
            string("topic").is(Topic),
            list("partitions", &[int32("item").is(Partition)]).is(Partitions),
        ],
    )
    .nullable(1)
    .is(Topics)],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").since(3).is(Error),
        array(
            "results",
            &[
                int16("error_code").is(Error),
                string("log_dir"),
                array(
                    "topics",
                    &[
                        string("name"),
                        array(
                            "partitions",
                            &[
                                int32("partition_index"),
                                int64("partition_size"),
                                int64("offset_lag"),
                                boolean("is_future_key"),
                            ],
                        ),
                    ],
                ),
                int64("total_bytes").since(4).or(-1),
                int64("usable_bytes").since(4).or(-1),
            ],
        ),
    ],
};

/// CreatePartitions (37).
pub(in crate::kafka) static CREATE_PARTITIONS: Schema = Schema {
    key: 37,
    name: "CreatePartitions",
    versions: (0, 3),
    flexible: 2,
    request: &[
        array(
            "topics",
            &[
                string("name").is(Topic),
                int32("count"),
                array("assignments", &[list("broker_ids", &[int32("item")])]).nullable(0),
            ],
        )
        .is(Topics),
        int32("timeout_ms"),
        boolean("validate_only"),
    ],
    response: &[
        int32("throttle_time_ms"),
        array(
            "results",
            &[
                string("name").is(Topic),
                int16("error_code").is(Error),
                string("error_message").nullable(0),
            ],
        )
        .is(Topics),
    ],
};

/// ElectLeaders (43).
pub(in crate::kafka) static ELECT_LEADERS: Schema = Schema {
    key: 43,
    name: "ElectLeaders",
    versions: (0, 2),
    flexible: 2,
    request: &[
        int8("election_type").since(1),
        array(
            "topic_partitions",
            &[
                string("topic").is(Topic),
                list("partitions", &[int32("item").is(Partition)]).is(Partitions),
            ],
        )
        .nullable(0)
        .is(Topics),
        int32("timeout_ms"),
    ],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").since(1).is(Error),
        array(
            "replica_election_results",
            &[
                string("topic").is(Topic),
                array(
                    "partition_result",
                    &[
                        int32("partition_id").is(Partition),
                        int16("error_code").is(Error),
                        string("error_message").nullable(0),
                    ],
                )
                .is(Partitions),
            ],
        )
        .is(Topics),
    ],
};

/// AlterPartitionReassignments (45).
pub(in crate::kafka) static ALTER_PARTITION_REASSIGNMENTS: Schema = Schema {
    key: 45,
    name: "AlterPartitionReassignments",
    versions: (0, 1),
    flexible: 0,
    request: &[
        int32("timeout_ms"),
        boolean("allow_replication_factor_change").since(1),
        array(
            "topics",
            &[
                string("name").is(Topic),
                array(
                    "partitions",
                    &[
                        int32("partition_index").is(Partition),
                        list("replicas", &[int32("item")]).nullable(0),
                    ],
                )
                .is(Partitions),
            ],
        )
        .is(Topics),
    ],
    response: &[
        int32("throttle_time_ms"),
        boolean("allow_replication_factor_change").since(1),
        int16("error_code").is(Error),
        string("error_message").nullable(0),
        array(
            "responses",
            &[
                string("name").is(Topic),
                array(
                    "partitions",
                    &[
                        int32("partition_index").is(Partition),
                        int16("error_code").is(Error),
                        string("error_message").nullable(0),
                    ],
                )
                .is(Partitions),
            ],
        )
        .is(Topics),
    ],
};

/// ListPartitionReassignments (46).
pub(in crate::kafka) static LIST_PARTITION_REASSIGNMENTS: Schema = Schema {
    key: 46,
    name: "ListPartitionReassignments",
    versions: (0, 0),
    flexible: 0,
    request: &[
        int32("timeout_ms"),
        array(
            "topics",
            &[
                string("name").is(Topic),
                list("partition_indexes", &[int32("item").is(Partition)]).is(Partitions),
            ],
        )
        .nullable(0)
        .is(Topics),
    ],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").is(Error),
        string("error_message").nullable(0),
        array(
            "topics",
            &[
                string("name").is(Topic),
                array(
                    "partitions",
                    &[
                        int32("partition_index").is(Partition),
                        list("replicas", &[int32("item")]),
                        list("adding_replicas", &[int32("item")]),
                        list("removing_replicas", &[int32("item")]),
                    ],
                )
                .is(Partitions),
            ],
        )
        .is(Topics),
    ],
};

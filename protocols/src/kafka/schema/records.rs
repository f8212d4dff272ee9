//! Producing and fetching records, and finding where they are.

use super::Schema;
use super::field::{
    array, boolean, int8, int16, int32, int64, list, records, string, structure, uuid,
};
use super::mark::Mark::{
    Acks, Epoch, Error, Host, Partition, Partitions, Port, Replica, Session, Topic, TopicId,
    Topics, Transaction,
};

/// Produce (0).
pub(in crate::kafka) static PRODUCE: Schema = Schema {
    key: 0,
    name: "Produce",
    versions: (3, 13),
    flexible: 9,
    request: &[
        string("transactional_id").nullable(3).is(Transaction),
        int16("acks").is(Acks),
        int32("timeout_ms"),
        array(
            "topic_data",
            &[
                uuid("topic_id").since(13).is(TopicId),
                string("name").until(12).is(Topic),
                array(
                    "partition_data",
                    &[int32("index").is(Partition), records("records").nullable(3)],
                )
                .is(Partitions),
            ],
        )
        .is(Topics),
    ],
    response: &[
        array(
            "responses",
            &[
                uuid("topic_id").since(13).is(TopicId),
                string("name").until(12).is(Topic),
                array(
                    "partition_responses",
                    &[
                        int32("index").is(Partition),
                        int16("error_code").is(Error),
                        int64("base_offset"),
                        int64("log_append_time_ms").or(-1),
                        int64("log_start_offset").since(5).or(-1),
                        array(
                            "record_errors",
                            &[
                                int32("batch_index"),
                                string("batch_index_error_message").nullable(8),
                            ],
                        )
                        .since(8),
                        string("error_message").since(8).nullable(8),
                        structure(
                            "current_leader",
                            &[int32("leader_id").or(-1), int32("leader_epoch").or(-1)],
                        )
                        .since(10)
                        .tag(0),
                    ],
                )
                .is(Partitions),
            ],
        )
        .is(Topics),
        int32("throttle_time_ms"),
        array(
            "node_endpoints",
            &[
                int32("node_id"),
                string("host").is(Host),
                int32("port").is(Port),
                string("rack").nullable(10),
            ],
        )
        .since(10)
        .tag(0),
    ],
};

/// Fetch (1).
pub(in crate::kafka) static FETCH: Schema = Schema {
    key: 1,
    name: "Fetch",
    versions: (4, 18),
    flexible: 12,
    request: &[
        int32("replica_id").until(14).is(Replica),
        int32("max_wait_ms"),
        int32("min_bytes"),
        int32("max_bytes"),
        int8("isolation_level"),
        int32("session_id").since(7).is(Session),
        int32("session_epoch").since(7).is(Epoch),
        array(
            "topics",
            &[
                uuid("topic_id").since(13).is(TopicId),
                string("topic").until(12).is(Topic),
                array(
                    "partitions",
                    &[
                        int32("partition").is(Partition),
                        int32("current_leader_epoch").since(9),
                        int64("fetch_offset"),
                        int32("last_fetched_epoch").since(12),
                        int64("log_start_offset").since(5),
                        int32("partition_max_bytes"),
                        uuid("replica_directory_id").since(17).tag(0),
                        int64("high_watermark").since(18).tag(1),
                    ],
                )
                .is(Partitions),
            ],
        )
        .is(Topics),
        array(
            "forgotten_topics_data",
            &[
                uuid("topic_id").since(13),
                string("topic").until(12),
                list("partitions", &[int32("item")]),
            ],
        )
        .since(7),
        string("rack_id").since(11),
        string("cluster_id").since(12).nullable(12).tag(0),
        structure("replica_state", &[int32("replica_id").is(Replica), int64("replica_epoch")])
            .since(15)
            .tag(1),
    ],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").since(7).is(Error),
        int32("session_id").since(7),
        array(
            "responses",
            &[
                uuid("topic_id").since(13).is(TopicId),
                string("topic").until(12).is(Topic),
                array(
                    "partitions",
                    &[
                        int32("partition_index").is(Partition),
                        int16("error_code").is(Error),
                        int64("high_watermark"),
                        int64("last_stable_offset").or(-1),
                        int64("log_start_offset").since(5).or(-1),
                        array(
                            "aborted_transactions",
                            &[int64("producer_id"), int64("first_offset")],
                        )
                        .nullable(4),
                        int32("preferred_read_replica").since(11).or(-1),
                        records("records").nullable(4),
                        structure(
                            "diverging_epoch",
                            &[int32("epoch").or(-1), int64("end_offset").or(-1)],
                        )
                        .since(12)
                        .tag(0),
                        structure(
                            "current_leader",
                            &[int32("leader_id").or(-1), int32("leader_epoch").or(-1)],
                        )
                        .since(12)
                        .tag(1),
                        structure(
                            "snapshot_id",
                            &[int64("end_offset").or(-1), int32("epoch").or(-1)],
                        )
                        .since(12)
                        .tag(2),
                    ],
                )
                .is(Partitions),
            ],
        )
        .is(Topics),
        array(
            "node_endpoints",
            &[
                int32("node_id"),
                string("host").is(Host),
                int32("port").is(Port),
                string("rack").nullable(16),
            ],
        )
        .since(16)
        .tag(0),
    ],
};

/// ListOffsets (2).
pub(in crate::kafka) static LIST_OFFSETS: Schema = Schema {
    key: 2,
    name: "ListOffsets",
    versions: (1, 11),
    flexible: 6,
    request: &[
        int32("replica_id").is(Replica),
        int8("isolation_level").since(2),
        array(
            "topics",
            &[
                string("name").is(Topic),
                array(
                    "partitions",
                    &[
                        int32("partition_index").is(Partition),
                        int32("current_leader_epoch").since(4),
                        int64("timestamp"),
                    ],
                )
                .is(Partitions),
            ],
        )
        .is(Topics),
        int32("timeout_ms").since(10),
    ],
    response: &[
        int32("throttle_time_ms").since(2),
        array(
            "topics",
            &[
                string("name").is(Topic),
                array(
                    "partitions",
                    &[
                        int32("partition_index").is(Partition),
                        int16("error_code").is(Error),
                        int64("timestamp").or(-1),
                        int64("offset").or(-1),
                        int32("leader_epoch").since(4).or(-1),
                    ],
                )
                .is(Partitions),
            ],
        )
        .is(Topics),
    ],
};

/// Metadata (3).
pub(in crate::kafka) static METADATA: Schema = Schema {
    key: 3,
    name: "Metadata",
    versions: (0, 13),
    flexible: 9,
    request: &[
        array(
            "topics",
            &[uuid("topic_id").since(10).is(TopicId), string("name").nullable(10).is(Topic)],
        )
        .nullable(1)
        .is(Topics),
        boolean("allow_auto_topic_creation").since(4),
        boolean("include_cluster_authorized_operations").since(8).until(10),
        boolean("include_topic_authorized_operations").since(8),
    ],
    response: &[
        int32("throttle_time_ms").since(3),
        array(
            "brokers",
            &[
                int32("node_id"),
                string("host").is(Host),
                int32("port").is(Port),
                string("rack").since(1).nullable(1),
            ],
        ),
        string("cluster_id").since(2).nullable(2),
        int32("controller_id").since(1).or(-1),
        array(
            "topics",
            &[
                int16("error_code").is(Error),
                string("name").nullable(12).is(Topic),
                uuid("topic_id").since(10).is(TopicId),
                boolean("is_internal").since(1),
                array(
                    "partitions",
                    &[
                        int16("error_code").is(Error),
                        int32("partition_index").is(Partition),
                        int32("leader_id"),
                        int32("leader_epoch").since(7).or(-1),
                        list("replica_nodes", &[int32("item")]),
                        list("isr_nodes", &[int32("item")]),
                        list("offline_replicas", &[int32("item")]).since(5),
                    ],
                )
                .is(Partitions),
                int32("topic_authorized_operations").since(8),
            ],
        )
        .is(Topics),
        int16("error_code").since(13).is(Error),
        int32("cluster_authorized_operations").since(8).until(10),
    ],
};

/// DeleteRecords (21).
pub(in crate::kafka) static DELETE_RECORDS: Schema = Schema {
    key: 21,
    name: "DeleteRecords",
    versions: (0, 2),
    flexible: 2,
    request: &[
        array(
            "topics",
            &[
                string("name").is(Topic),
                array("partitions", &[int32("partition_index").is(Partition), int64("offset")])
                    .is(Partitions),
            ],
        )
        .is(Topics),
        int32("timeout_ms"),
    ],
    response: &[
        int32("throttle_time_ms"),
        array(
            "topics",
            &[
                string("name").is(Topic),
                array(
                    "partitions",
                    &[
                        int32("partition_index").is(Partition),
                        int64("low_watermark"),
                        int16("error_code").is(Error),
                    ],
                )
                .is(Partitions),
            ],
        )
        .is(Topics),
    ],
};

/// OffsetForLeaderEpoch (23).
pub(in crate::kafka) static OFFSET_FOR_LEADER_EPOCH: Schema = Schema {
    key: 23,
    name: "OffsetForLeaderEpoch",
    versions: (2, 4),
    flexible: 4,
    request: &[
        int32("replica_id").since(3),
        array(
            "topics",
            &[
                string("topic").is(Topic),
                array(
                    "partitions",
                    &[
                        int32("partition").is(Partition),
                        int32("current_leader_epoch"),
                        int32("leader_epoch"),
                    ],
                )
                .is(Partitions),
            ],
        )
        .is(Topics),
    ],
    response: &[
        int32("throttle_time_ms"),
        array(
            "topics",
            &[
                string("topic").is(Topic),
                array(
                    "partitions",
                    &[
                        int16("error_code").is(Error),
                        int32("partition").is(Partition),
                        int32("leader_epoch").or(-1),
                        int64("end_offset").or(-1),
                    ],
                )
                .is(Partitions),
            ],
        )
        .is(Topics),
    ],
};

/// DescribeCluster (60).
pub(in crate::kafka) static DESCRIBE_CLUSTER: Schema = Schema {
    key: 60,
    name: "DescribeCluster",
    versions: (0, 2),
    flexible: 0,
    request: &[
        boolean("include_cluster_authorized_operations"),
        int8("endpoint_type").since(1),
        boolean("include_fenced_brokers").since(2),
    ],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").is(Error),
        string("error_message").nullable(0),
        int8("endpoint_type").since(1).or(1),
        string("cluster_id"),
        int32("controller_id").or(-1),
        array(
            "brokers",
            &[
                int32("broker_id"),
                string("host").is(Host),
                int32("port").is(Port),
                string("rack").nullable(0),
                boolean("is_fenced").since(2),
            ],
        ),
        int32("cluster_authorized_operations"),
    ],
};

/// DescribeTopicPartitions (75).
pub(in crate::kafka) static DESCRIBE_TOPIC_PARTITIONS: Schema = Schema {
    key: 75,
    name: "DescribeTopicPartitions",
    versions: (0, 0),
    flexible: 0,
    request: &[
        array("topics", &[string("name").is(Topic)]).is(Topics),
        int32("response_partition_limit"),
        structure("cursor", &[string("topic_name"), int32("partition_index")]).nullable(0),
    ],
    response: &[
        int32("throttle_time_ms"),
        array(
            "topics",
            &[
                int16("error_code").is(Error),
                string("name").nullable(0).is(Topic),
                uuid("topic_id").is(TopicId),
                boolean("is_internal"),
                array(
                    "partitions",
                    &[
                        int16("error_code").is(Error),
                        int32("partition_index").is(Partition),
                        int32("leader_id"),
                        int32("leader_epoch").or(-1),
                        list("replica_nodes", &[int32("item")]),
                        list("isr_nodes", &[int32("item")]),
                        list("eligible_leader_replicas", &[int32("item")]).nullable(0),
                        list("last_known_elr", &[int32("item")]).nullable(0),
                        list("offline_replicas", &[int32("item")]),
                    ],
                )
                .is(Partitions),
                int32("topic_authorized_operations"),
            ],
        )
        .is(Topics),
        structure("next_cursor", &[string("topic_name"), int32("partition_index")]).nullable(0),
    ],
};

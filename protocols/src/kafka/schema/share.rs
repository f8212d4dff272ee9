//! Share groups (KIP-932) and their offsets.

use super::Schema;
use super::field::{
    array, boolean, int8, int16, int32, int64, list, records, string, structure, uuid,
};
use super::mark::Mark::{
    Epoch, Error, Group, Groups, Host, Member, Partition, Partitions, Port, Topic, TopicId, Topics,
};

/// ShareGroupHeartbeat (76).
pub(in crate::kafka) static SHARE_GROUP_HEARTBEAT: Schema = Schema {
    key: 76,
    name: "ShareGroupHeartbeat",
    versions: (1, 1),
    flexible: 1,
    request: &[
        string("group_id").is(Group),
        string("member_id").is(Member),
        int32("member_epoch"),
        string("rack_id").nullable(1),
        list("subscribed_topic_names", &[string("item").is(Topic)]).nullable(1).is(Topics),
    ],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").is(Error),
        string("error_message").nullable(1),
        string("member_id").nullable(1).is(Member),
        int32("member_epoch"),
        int32("heartbeat_interval_ms"),
        structure(
            "assignment",
            &[array("topic_partitions", &[uuid("topic_id"), list("partitions", &[int32("item")])])],
        )
        .nullable(1),
    ],
};

/// ShareGroupDescribe (77).
pub(in crate::kafka) static SHARE_GROUP_DESCRIBE: Schema = Schema {
    key: 77,
    name: "ShareGroupDescribe",
    versions: (1, 1),
    flexible: 1,
    request: &[
        list("group_ids", &[string("item").is(Group)]).is(Groups),
        boolean("include_authorized_operations"),
    ],
    response: &[
        int32("throttle_time_ms"),
        array(
            "groups",
            &[
                int16("error_code").is(Error),
                string("error_message").nullable(1),
                string("group_id").is(Group),
                string("group_state"),
                int32("group_epoch"),
                int32("assignment_epoch"),
                string("assignor_name"),
                array(
                    "members",
                    &[
                        string("member_id"),
                        string("rack_id").nullable(1),
                        int32("member_epoch"),
                        string("client_id"),
                        string("client_host"),
                        list("subscribed_topic_names", &[string("item")]),
                        structure(
                            "assignment",
                            &[array(
                                "topic_partitions",
                                &[
                                    uuid("topic_id"),
                                    string("topic_name"),
                                    list("partitions", &[int32("item")]),
                                ],
                            )],
                        ),
                    ],
                ),
                int32("authorized_operations"),
            ],
        )
        .is(Groups),
    ],
};

/// ShareFetch (78).
pub(in crate::kafka) static SHARE_FETCH: Schema = Schema {
    key: 78,
    name: "ShareFetch",
    versions: (1, 2),
    flexible: 1,
    request: &[
        string("group_id").nullable(1).is(Group),
        string("member_id").nullable(1).is(Member),
        int32("share_session_epoch").is(Epoch),
        int32("max_wait_ms"),
        int32("min_bytes"),
        int32("max_bytes"),
        int32("max_records"),
        int32("batch_size"),
        int8("share_acquire_mode").since(2),
        boolean("is_renew_ack").since(2),
        array(
            "topics",
            &[
                uuid("topic_id").is(TopicId),
                array(
                    "partitions",
                    &[
                        int32("partition_index").is(Partition),
                        array(
                            "acknowledgement_batches",
                            &[
                                int64("first_offset"),
                                int64("last_offset"),
                                list("acknowledge_types", &[int8("item")]),
                            ],
                        ),
                    ],
                )
                .is(Partitions),
            ],
        )
        .is(Topics),
        array("forgotten_topics_data", &[uuid("topic_id"), list("partitions", &[int32("item")])]),
    ],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").is(Error),
        string("error_message").nullable(1),
        int32("acquisition_lock_timeout_ms"),
        array(
            "responses",
            &[
                uuid("topic_id").is(TopicId),
                array(
                    "partitions",
                    &[
                        int32("partition_index").is(Partition),
                        int16("error_code").is(Error),
                        string("error_message").nullable(1),
                        int16("acknowledge_error_code"),
                        string("acknowledge_error_message").nullable(1),
                        structure("current_leader", &[int32("leader_id"), int32("leader_epoch")]),
                        records("records").nullable(1),
                        array(
                            "acquired_records",
                            &[int64("first_offset"), int64("last_offset"), int16("delivery_count")],
                        ),
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
                string("rack").nullable(1),
            ],
        ),
    ],
};

/// ShareAcknowledge (79).
pub(in crate::kafka) static SHARE_ACKNOWLEDGE: Schema = Schema {
    key: 79,
    name: "ShareAcknowledge",
    versions: (1, 2),
    flexible: 1,
    request: &[
        string("group_id").nullable(1).is(Group),
        string("member_id").nullable(1).is(Member),
        int32("share_session_epoch").is(Epoch),
        boolean("is_renew_ack").since(2),
        array(
            "topics",
            &[
                uuid("topic_id").is(TopicId),
                array(
                    "partitions",
                    &[
                        int32("partition_index").is(Partition),
                        array(
                            "acknowledgement_batches",
                            &[
                                int64("first_offset"),
                                int64("last_offset"),
                                list("acknowledge_types", &[int8("item")]),
                            ],
                        ),
                    ],
                )
                .is(Partitions),
            ],
        )
        .is(Topics),
    ],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").is(Error),
        string("error_message").nullable(1),
        int32("acquisition_lock_timeout_ms").since(2),
        array(
            "responses",
            &[
                uuid("topic_id").is(TopicId),
                array(
                    "partitions",
                    &[
                        int32("partition_index").is(Partition),
                        int16("error_code").is(Error),
                        string("error_message").nullable(1),
                        structure("current_leader", &[int32("leader_id"), int32("leader_epoch")]),
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
                string("rack").nullable(1),
            ],
        ),
    ],
};

/// DescribeShareGroupOffsets (90).
pub(in crate::kafka) static DESCRIBE_SHARE_GROUP_OFFSETS: Schema = Schema {
    key: 90,
    name: "DescribeShareGroupOffsets",
    versions: (0, 1),
    flexible: 0,
    request: &[array(
        "groups",
        &[
            string("group_id").is(Group),
            array(
                "topics",
                &[
                    string("topic_name").is(Topic),
                    list("partitions", &[int32("item").is(Partition)]).is(Partitions),
                ],
            )
            .nullable(0)
            .is(Topics),
        ],
    )
    .is(Groups)],
    response: &[
        int32("throttle_time_ms"),
        array(
            "groups",
            &[
                string("group_id").is(Group),
                array(
                    "topics",
                    &[
                        string("topic_name").is(Topic),
                        uuid("topic_id").is(TopicId),
                        array(
                            "partitions",
                            &[
                                int32("partition_index").is(Partition),
                                int64("start_offset"),
                                int32("leader_epoch"),
                                int64("lag").since(1).or(-1),
                                int16("error_code").is(Error),
                                string("error_message").nullable(0),
                            ],
                        )
                        .is(Partitions),
                    ],
                )
                .is(Topics),
                int16("error_code").is(Error),
                string("error_message").nullable(0),
            ],
        )
        .is(Groups),
    ],
};

/// AlterShareGroupOffsets (91).
pub(in crate::kafka) static ALTER_SHARE_GROUP_OFFSETS: Schema = Schema {
    key: 91,
    name: "AlterShareGroupOffsets",
    versions: (0, 0),
    flexible: 0,
    request: &[
        string("group_id").is(Group),
        array(
            "topics",
            &[
                string("topic_name").is(Topic),
                array(
                    "partitions",
                    &[int32("partition_index").is(Partition), int64("start_offset")],
                )
                .is(Partitions),
            ],
        )
        .is(Topics),
    ],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").is(Error),
        string("error_message").nullable(0),
        array(
            "responses",
            &[
                string("topic_name").is(Topic),
                uuid("topic_id").is(TopicId),
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

/// DeleteShareGroupOffsets (92).
pub(in crate::kafka) static DELETE_SHARE_GROUP_OFFSETS: Schema = Schema {
    key: 92,
    name: "DeleteShareGroupOffsets",
    versions: (0, 0),
    flexible: 0,
    request: &[
        string("group_id").is(Group),
        array("topics", &[string("topic_name").is(Topic)]).is(Topics),
    ],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").is(Error),
        string("error_message").nullable(0),
        array(
            "responses",
            &[
                string("topic_name").is(Topic),
                uuid("topic_id").is(TopicId),
                int16("error_code").is(Error),
                string("error_message").nullable(0),
            ],
        )
        .is(Topics),
    ],
};

//! Streams groups (KIP-1071).

use super::Schema;
use super::field::{array, boolean, int8, int16, int32, int64, list, string, structure, uint16};
use super::mark::Mark::{Error, Group, Groups, Host, Member, Port, Topic, Topics};

/// StreamsGroupHeartbeat (88).
pub(in crate::kafka) static STREAMS_GROUP_HEARTBEAT: Schema = Schema {
    key: 88,
    name: "StreamsGroupHeartbeat",
    versions: (0, 0),
    flexible: 0,
    request: &[
        string("group_id").is(Group),
        string("member_id").is(Member),
        int32("member_epoch"),
        int32("endpoint_information_epoch"),
        string("instance_id").nullable(0),
        string("rack_id").nullable(0),
        int32("rebalance_timeout_ms"),
        structure(
            "topology",
            &[
                int32("epoch"),
                array(
                    "subtopologies",
                    &[
                        string("subtopology_id"),
                        list("source_topics", &[string("item").is(Topic)]).is(Topics),
                        list("source_topic_regex", &[string("item")]),
                        array(
                            "state_changelog_topics",
                            &[
                                string("name"),
                                int32("partitions"),
                                int16("replication_factor"),
                                array("topic_configs", &[string("key"), string("value")]),
                            ],
                        ),
                        list("repartition_sink_topics", &[string("item").is(Topic)]).is(Topics),
                        array(
                            "repartition_source_topics",
                            &[
                                string("name"),
                                int32("partitions"),
                                int16("replication_factor"),
                                array("topic_configs", &[string("key"), string("value")]),
                            ],
                        ),
                        array(
                            "copartition_groups",
                            &[
                                list("source_topics", &[int16("item").is(Topic)]).is(Topics),
                                list("source_topic_regex", &[int16("item")]),
                                list("repartition_source_topics", &[int16("item")]),
                            ],
                        ),
                    ],
                ),
            ],
        )
        .nullable(0),
        array("active_tasks", &[string("subtopology_id"), list("partitions", &[int32("item")])])
            .nullable(0),
        array("standby_tasks", &[string("subtopology_id"), list("partitions", &[int32("item")])])
            .nullable(0),
        array("warmup_tasks", &[string("subtopology_id"), list("partitions", &[int32("item")])])
            .nullable(0),
        string("process_id").nullable(0),
        structure("user_endpoint", &[string("host"), uint16("port")]).nullable(0),
        array("client_tags", &[string("key"), string("value")]).nullable(0),
        array("task_offsets", &[string("subtopology_id"), int32("partition"), int64("offset")])
            .nullable(0),
        array("task_end_offsets", &[string("subtopology_id"), int32("partition"), int64("offset")])
            .nullable(0),
        boolean("shutdown_application"),
    ],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").is(Error),
        string("error_message").nullable(0),
        string("member_id").is(Member),
        int32("member_epoch"),
        int32("heartbeat_interval_ms"),
        int32("acceptable_recovery_lag"),
        int32("task_offset_interval_ms"),
        array("status", &[int8("status_code"), string("status_detail")]).nullable(0),
        array("active_tasks", &[string("subtopology_id"), list("partitions", &[int32("item")])])
            .nullable(0),
        array("standby_tasks", &[string("subtopology_id"), list("partitions", &[int32("item")])])
            .nullable(0),
        array("warmup_tasks", &[string("subtopology_id"), list("partitions", &[int32("item")])])
            .nullable(0),
        int32("endpoint_information_epoch"),
        array(
            "partitions_by_user_endpoint",
            &[
                structure("user_endpoint", &[string("host").is(Host), uint16("port").is(Port)]),
                array(
                    "active_partitions",
                    &[string("topic"), list("partitions", &[int32("item")])],
                ),
                array(
                    "standby_partitions",
                    &[string("topic"), list("partitions", &[int32("item")])],
                ),
            ],
        )
        .nullable(0),
    ],
};

/// StreamsGroupDescribe (89).
pub(in crate::kafka) static STREAMS_GROUP_DESCRIBE: Schema = Schema {
    key: 89,
    name: "StreamsGroupDescribe",
    versions: (0, 0),
    flexible: 0,
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
                string("error_message").nullable(0),
                string("group_id").is(Group),
                string("group_state"),
                int32("group_epoch"),
                int32("assignment_epoch"),
                structure(
                    "topology",
                    &[
                        int32("epoch"),
                        array(
                            "subtopologies",
                            &[
                                string("subtopology_id"),
                                list("source_topics", &[string("item")]),
                                list("repartition_sink_topics", &[string("item")]),
                                array(
                                    "state_changelog_topics",
                                    &[
                                        string("name"),
                                        int32("partitions"),
                                        int16("replication_factor"),
                                        array("topic_configs", &[string("key"), string("value")]),
                                    ],
                                ),
                                array(
                                    "repartition_source_topics",
                                    &[
                                        string("name"),
                                        int32("partitions"),
                                        int16("replication_factor"),
                                        array("topic_configs", &[string("key"), string("value")]),
                                    ],
                                ),
                            ],
                        )
                        .nullable(0),
                    ],
                )
                .nullable(0),
                array(
                    "members",
                    &[
                        string("member_id"),
                        int32("member_epoch"),
                        string("instance_id").nullable(0),
                        string("rack_id").nullable(0),
                        string("client_id"),
                        string("client_host"),
                        int32("topology_epoch"),
                        string("process_id"),
                        structure(
                            "user_endpoint",
                            &[string("host").is(Host), uint16("port").is(Port)],
                        )
                        .nullable(0),
                        array("client_tags", &[string("key"), string("value")]),
                        array(
                            "task_offsets",
                            &[string("subtopology_id"), int32("partition"), int64("offset")],
                        ),
                        array(
                            "task_end_offsets",
                            &[string("subtopology_id"), int32("partition"), int64("offset")],
                        ),
                        structure(
                            "assignment",
                            &[
                                array(
                                    "active_tasks",
                                    &[
                                        string("subtopology_id"),
                                        list("partitions", &[int32("item")]),
                                    ],
                                ),
                                array(
                                    "standby_tasks",
                                    &[
                                        string("subtopology_id"),
                                        list("partitions", &[int32("item")]),
                                    ],
                                ),
                                array(
                                    "warmup_tasks",
                                    &[
                                        string("subtopology_id"),
                                        list("partitions", &[int32("item")]),
                                    ],
                                ),
                            ],
                        ),
                        structure(
                            "target_assignment",
                            &[
                                array(
                                    "active_tasks",
                                    &[
                                        string("subtopology_id"),
                                        list("partitions", &[int32("item")]),
                                    ],
                                ),
                                array(
                                    "standby_tasks",
                                    &[
                                        string("subtopology_id"),
                                        list("partitions", &[int32("item")]),
                                    ],
                                ),
                                array(
                                    "warmup_tasks",
                                    &[
                                        string("subtopology_id"),
                                        list("partitions", &[int32("item")]),
                                    ],
                                ),
                            ],
                        ),
                        boolean("is_classic"),
                    ],
                ),
                int32("authorized_operations"),
            ],
        )
        .is(Groups),
    ],
};

//! Consumer groups: classic ones, and those of KIP-848.

use super::Schema;
use super::field::{array, boolean, bytes, int8, int16, int32, list, string, structure, uuid};
use super::mark::Mark::{
    Error, Group, Groups, Host, Key, KeyType, Keys, Member, Port, Regex, Topic, Topics,
};

/// FindCoordinator (10).
pub(in crate::kafka) static FIND_COORDINATOR: Schema = Schema {
    key: 10,
    name: "FindCoordinator",
    versions: (0, 6),
    flexible: 3,
    request: &[
        string("key").until(3).is(Key),
        int8("key_type").since(1).is(KeyType),
        list("coordinator_keys", &[string("item").is(Key)]).since(4).is(Keys),
    ],
    response: &[
        int32("throttle_time_ms").since(1),
        array(
            "coordinators",
            &[
                string("key").is(Key),
                int32("node_id"),
                string("host").is(Host),
                int32("port").is(Port),
                int16("error_code").is(Error),
                string("error_message").nullable(4),
            ],
        )
        .since(4)
        .is(Keys),
        int16("error_code").until(3).is(Error),
        string("error_message").since(1).until(3).nullable(1),
        int32("node_id").until(3),
        string("host").until(3).is(Host),
        int32("port").until(3).is(Port),
    ],
};

/// JoinGroup (11).
pub(in crate::kafka) static JOIN_GROUP: Schema = Schema {
    key: 11,
    name: "JoinGroup",
    versions: (0, 9),
    flexible: 6,
    request: &[
        string("group_id").is(Group),
        int32("session_timeout_ms"),
        int32("rebalance_timeout_ms").since(1),
        string("member_id").is(Member),
        string("group_instance_id").since(5).nullable(5),
        string("protocol_type"),
        array("protocols", &[string("name"), bytes("metadata")]),
        string("reason").since(8).nullable(8),
    ],
    response: &[
        int32("throttle_time_ms").since(2),
        int16("error_code").is(Error),
        int32("generation_id").or(-1),
        string("protocol_type").since(7).nullable(7),
        string("protocol_name").nullable(7),
        string("leader"),
        boolean("skip_assignment").since(9),
        string("member_id").is(Member),
        array(
            "members",
            &[
                string("member_id"),
                string("group_instance_id").since(5).nullable(5),
                bytes("metadata"),
            ],
        ),
    ],
};

/// Heartbeat (12).
pub(in crate::kafka) static HEARTBEAT: Schema = Schema {
    key: 12,
    name: "Heartbeat",
    versions: (0, 4),
    flexible: 4,
    request: &[
        string("group_id").is(Group),
        int32("generation_id"),
        string("member_id").is(Member),
        string("group_instance_id").since(3).nullable(3),
    ],
    response: &[int32("throttle_time_ms").since(1), int16("error_code").is(Error)],
};

/// LeaveGroup (13).
pub(in crate::kafka) static LEAVE_GROUP: Schema = Schema {
    key: 13,
    name: "LeaveGroup",
    versions: (0, 5),
    flexible: 4,
    request: &[
        string("group_id").is(Group),
        array(
            "members",
            &[
                string("member_id"),
                string("group_instance_id").nullable(3),
                string("reason").since(5).nullable(5),
            ],
        )
        .since(3),
        string("member_id").until(2).is(Member),
    ],
    response: &[
        int32("throttle_time_ms").since(1),
        int16("error_code").is(Error),
        array(
            "members",
            &[
                string("member_id"),
                string("group_instance_id").nullable(3),
                int16("error_code").is(Error),
            ],
        )
        .since(3),
    ],
};

/// SyncGroup (14).
pub(in crate::kafka) static SYNC_GROUP: Schema = Schema {
    key: 14,
    name: "SyncGroup",
    versions: (0, 5),
    flexible: 4,
    request: &[
        string("group_id").is(Group),
        int32("generation_id"),
        string("member_id").is(Member),
        string("group_instance_id").since(3).nullable(3),
        string("protocol_type").since(5).nullable(5),
        string("protocol_name").since(5).nullable(5),
        array("assignments", &[string("member_id"), bytes("assignment")]),
    ],
    response: &[
        int32("throttle_time_ms").since(1),
        int16("error_code").is(Error),
        string("protocol_type").since(5).nullable(5),
        string("protocol_name").since(5).nullable(5),
        bytes("assignment"),
    ],
};

/// DescribeGroups (15).
pub(in crate::kafka) static DESCRIBE_GROUPS: Schema = Schema {
    key: 15,
    name: "DescribeGroups",
    versions: (0, 6),
    flexible: 5,
    request: &[
        list("groups", &[string("item").is(Group)]).is(Groups),
        boolean("include_authorized_operations").since(3),
    ],
    response: &[
        int32("throttle_time_ms").since(1),
        array(
            "groups",
            &[
                int16("error_code").is(Error),
                string("error_message").since(6).nullable(6),
                string("group_id").is(Group),
                string("group_state"),
                string("protocol_type"),
                string("protocol_data"),
                array(
                    "members",
                    &[
                        string("member_id"),
                        string("group_instance_id").since(4).nullable(4),
                        string("client_id"),
                        string("client_host"),
                        bytes("member_metadata"),
                        bytes("member_assignment"),
                    ],
                ),
                int32("authorized_operations").since(3),
            ],
        )
        .is(Groups),
    ],
};

/// ListGroups (16).
pub(in crate::kafka) static LIST_GROUPS: Schema = Schema {
    key: 16,
    name: "ListGroups",
    versions: (0, 5),
    flexible: 3,
    request: &[
        list("states_filter", &[string("item")]).since(4),
        list("types_filter", &[string("item")]).since(5),
    ],
    response: &[
        int32("throttle_time_ms").since(1),
        int16("error_code").is(Error),
        array(
            "groups",
            &[
                string("group_id").is(Group),
                string("protocol_type"),
                string("group_state").since(4),
                string("group_type").since(5),
            ],
        )
        .is(Groups),
    ],
};

/// DeleteGroups (42).
pub(in crate::kafka) static DELETE_GROUPS: Schema = Schema {
    key: 42,
    name: "DeleteGroups",
    versions: (0, 2),
    flexible: 2,
    request: &[list("groups_names", &[string("item").is(Group)]).is(Groups)],
    response: &[
        int32("throttle_time_ms"),
        array("results", &[string("group_id").is(Group), int16("error_code").is(Error)]).is(Groups),
    ],
};

/// ConsumerGroupHeartbeat (68).
pub(in crate::kafka) static CONSUMER_GROUP_HEARTBEAT: Schema = Schema {
    key: 68,
    name: "ConsumerGroupHeartbeat",
    versions: (0, 1),
    flexible: 0,
    request: &[
        string("group_id").is(Group),
        string("member_id").is(Member),
        int32("member_epoch"),
        string("instance_id").nullable(0),
        string("rack_id").nullable(0),
        int32("rebalance_timeout_ms"),
        list("subscribed_topic_names", &[string("item").is(Topic)]).nullable(0).is(Topics),
        string("subscribed_topic_regex").since(1).nullable(1).is(Regex),
        string("server_assignor").nullable(0),
        array("topic_partitions", &[uuid("topic_id"), list("partitions", &[int32("item")])])
            .nullable(0),
    ],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").is(Error),
        string("error_message").nullable(0),
        string("member_id").nullable(0).is(Member),
        int32("member_epoch"),
        int32("heartbeat_interval_ms"),
        structure(
            "assignment",
            &[array("topic_partitions", &[uuid("topic_id"), list("partitions", &[int32("item")])])],
        )
        .nullable(0),
    ],
};

/// ConsumerGroupDescribe (69).
pub(in crate::kafka) static CONSUMER_GROUP_DESCRIBE: Schema = Schema {
    key: 69,
    name: "ConsumerGroupDescribe",
    versions: (0, 1),
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
                string("assignor_name"),
                array(
                    "members",
                    &[
                        string("member_id"),
                        string("instance_id").nullable(0),
                        string("rack_id").nullable(0),
                        int32("member_epoch"),
                        string("client_id"),
                        string("client_host"),
                        list("subscribed_topic_names", &[string("item")]),
                        string("subscribed_topic_regex").nullable(0),
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
                        structure(
                            "target_assignment",
                            &[array(
                                "topic_partitions",
                                &[
                                    uuid("topic_id"),
                                    string("topic_name"),
                                    list("partitions", &[int32("item")]),
                                ],
                            )],
                        ),
                        int8("member_type").since(1).or(-1),
                    ],
                ),
                int32("authorized_operations"),
            ],
        )
        .is(Groups),
    ],
};

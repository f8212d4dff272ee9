//! The offsets that consumer groups keep.

use super::Schema;
use super::field::{array, boolean, int16, int32, int64, list, string, uuid};
use super::mark::Mark::{
    Error, Group, Groups, Member, Partition, Partitions, Topic, TopicId, Topics,
};

/// OffsetCommit (8).
pub(in crate::kafka) static OFFSET_COMMIT: Schema = Schema {
    key: 8,
    name: "OffsetCommit",
    versions: (2, 10),
    flexible: 8,
    request: &[
        string("group_id").is(Group),
        int32("generation_id_or_member_epoch"),
        string("member_id").is(Member),
        string("group_instance_id").since(7).nullable(7),
        int64("retention_time_ms").until(4),
        array(
            "topics",
            &[
                uuid("topic_id").since(10).is(TopicId),
                string("name").until(9).is(Topic),
                array(
                    "partitions",
                    &[
                        int32("partition_index").is(Partition),
                        int64("committed_offset"),
                        int32("committed_leader_epoch").since(6),
                        string("committed_metadata").nullable(2),
                    ],
                )
                .is(Partitions),
            ],
        )
        .is(Topics),
    ],
    response: &[
        int32("throttle_time_ms").since(3),
        array(
            "topics",
            &[
                uuid("topic_id").since(10).is(TopicId),
                string("name").until(9).is(Topic),
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

/// OffsetFetch (9).
pub(in crate::kafka) static OFFSET_FETCH: Schema = Schema {
    key: 9,
    name: "OffsetFetch",
    versions: (1, 10),
    flexible: 6,
    request: &[
        array(
            "groups",
            &[
                string("group_id").is(Group),
                string("member_id").since(9).nullable(9),
                int32("member_epoch").since(9),
                array(
                    "topics",
                    &[
                        uuid("topic_id").since(10).is(TopicId),
                        string("name").until(9).is(Topic),
                        list("partition_indexes", &[int32("item").is(Partition)]).is(Partitions),
                    ],
                )
                .nullable(8)
                .is(Topics),
            ],
        )
        .since(8)
        .is(Groups),
        string("group_id").until(7).is(Group),
        array(
            "topics",
            &[
                string("name").is(Topic),
                list("partition_indexes", &[int32("item").is(Partition)]).is(Partitions),
            ],
        )
        .until(7)
        .nullable(2)
        .is(Topics),
        boolean("require_stable").since(7),
    ],
    response: &[
        int32("throttle_time_ms").since(3),
        array(
            "groups",
            &[
                string("group_id").is(Group),
                array(
                    "topics",
                    &[
                        uuid("topic_id").since(10).is(TopicId),
                        string("name").until(9).is(Topic),
                        array(
                            "partitions",
                            &[
                                int32("partition_index").is(Partition),
                                int64("committed_offset"),
                                int32("committed_leader_epoch").or(-1),
                                string("metadata").nullable(8),
                                int16("error_code").is(Error),
                            ],
                        )
                        .is(Partitions),
                    ],
                )
                .is(Topics),
                int16("error_code").is(Error),
            ],
        )
        .since(8)
        .is(Groups),
        array(
            "topics",
            &[
                string("name").is(Topic),
                array(
                    "partitions",
                    &[
                        int32("partition_index").is(Partition),
                        int64("committed_offset"),
                        int32("committed_leader_epoch").since(5).or(-1),
                        string("metadata").nullable(1),
                        int16("error_code").is(Error),
                    ],
                )
                .is(Partitions),
            ],
        )
        .until(7)
        .is(Topics),
        int16("error_code").since(2).until(7).is(Error),
    ],
};

/// OffsetDelete (47).
pub(in crate::kafka) static OFFSET_DELETE: Schema = Schema {
    key: 47,
    name: "OffsetDelete",
    versions: (0, 0),
    flexible: Schema::NEVER,
    request: &[
        string("group_id").is(Group),
        array(
            "topics",
            &[
                string("name").is(Topic),
                array("partitions", &[int32("partition_index").is(Partition)]).is(Partitions),
            ],
        )
        .is(Topics),
    ],
    response: &[
        int16("error_code").is(Error),
        int32("throttle_time_ms"),
        array(
            "topics",
            &[
                string("name").is(Topic),
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

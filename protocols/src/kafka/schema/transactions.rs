//! Idempotent and transactional producers.

use super::Schema;
use super::field::{array, boolean, int16, int32, int64, list, string};
use super::mark::Mark::{
    Error, Group, Member, Partition, Partitions, Topic, Topics, Transaction, Transactions,
};

/// InitProducerId (22).
pub(in crate::kafka) static INIT_PRODUCER_ID: Schema = Schema {
    key: 22,
    name: "InitProducerId",
    versions: (0, 5),
    flexible: 2,
    request: &[
        string("transactional_id").nullable(0).is(Transaction),
        int32("transaction_timeout_ms"),
        int64("producer_id").since(3),
        int16("producer_epoch").since(3),
    ],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").is(Error),
        int64("producer_id").or(-1),
        int16("producer_epoch"),
    ],
};

/// AddPartitionsToTxn (24).
pub(in crate::kafka) static ADD_PARTITIONS_TO_TXN: Schema = Schema {
    key: 24,
    name: "AddPartitionsToTxn",
    versions: (0, 5),
    flexible: 3,
    request: &[
        array(
            "transactions",
            &[
                string("transactional_id").is(Transaction),
                int64("producer_id"),
                int16("producer_epoch"),
                boolean("verify_only"),
                array(
                    "topics",
                    &[
                        string("name").is(Topic),
                        list("partitions", &[int32("item").is(Partition)]).is(Partitions),
                    ],
                )
                .is(Topics),
            ],
        )
        .since(4)
        .is(Transactions),
        string("v3_and_below_transactional_id").until(3).is(Transaction),
        int64("v3_and_below_producer_id").until(3),
        int16("v3_and_below_producer_epoch").until(3),
        array(
            "v3_and_below_topics",
            &[
                string("name").is(Topic),
                list("partitions", &[int32("item").is(Partition)]).is(Partitions),
            ],
        )
        .until(3)
        .is(Topics),
    ],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").since(4).is(Error),
        array(
            "results_by_transaction",
            &[
                string("transactional_id").is(Transaction),
                array(
                    "topic_results",
                    &[
                        string("name").is(Topic),
                        array(
                            "results_by_partition",
                            &[
                                int32("partition_index").is(Partition),
                                int16("partition_error_code").is(Error),
                            ],
                        )
                        .is(Partitions),
                    ],
                )
                .is(Topics),
            ],
        )
        .since(4)
        .is(Transactions),
        array(
            "results_by_topic_v3_and_below",
            &[
                string("name").is(Topic),
                array(
                    "results_by_partition",
                    &[
                        int32("partition_index").is(Partition),
                        int16("partition_error_code").is(Error),
                    ],
                )
                .is(Partitions),
            ],
        )
        .until(3)
        .is(Topics),
    ],
};

/// AddOffsetsToTxn (25).
pub(in crate::kafka) static ADD_OFFSETS_TO_TXN: Schema = Schema {
    key: 25,
    name: "AddOffsetsToTxn",
    versions: (0, 4),
    flexible: 3,
    request: &[
        string("transactional_id").is(Transaction),
        int64("producer_id"),
        int16("producer_epoch"),
        string("group_id").is(Group),
    ],
    response: &[int32("throttle_time_ms"), int16("error_code").is(Error)],
};

/// EndTxn (26).
pub(in crate::kafka) static END_TXN: Schema = Schema {
    key: 26,
    name: "EndTxn",
    versions: (0, 5),
    flexible: 3,
    request: &[
        string("transactional_id").is(Transaction),
        int64("producer_id"),
        int16("producer_epoch"),
        boolean("committed"),
    ],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").is(Error),
        int64("producer_id").since(5).or(-1),
        int16("producer_epoch").since(5).or(-1),
    ],
};

/// TxnOffsetCommit (28).
pub(in crate::kafka) static TXN_OFFSET_COMMIT: Schema = Schema {
    key: 28,
    name: "TxnOffsetCommit",
    versions: (0, 5),
    flexible: 3,
    request: &[
        string("transactional_id").is(Transaction),
        string("group_id").is(Group),
        int64("producer_id"),
        int16("producer_epoch"),
        int32("generation_id").since(3),
        string("member_id").since(3).is(Member),
        string("group_instance_id").since(3).nullable(3),
        array(
            "topics",
            &[
                string("name").is(Topic),
                array(
                    "partitions",
                    &[
                        int32("partition_index").is(Partition),
                        int64("committed_offset"),
                        int32("committed_leader_epoch").since(2),
                        string("committed_metadata").nullable(0),
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

/// DescribeProducers (61).
pub(in crate::kafka) static DESCRIBE_PRODUCERS: Schema = Schema {
    key: 61,
    name: "DescribeProducers",
    versions: (0, 0),
    flexible: 0,
    request: &[array(
        "topics",
        &[
            string("name").is(Topic),
            list("partition_indexes", &[int32("item").is(Partition)]).is(Partitions),
        ],
    )
    .is(Topics)],
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
                        int16("error_code").is(Error),
                        string("error_message").nullable(0),
                        array(
                            "active_producers",
                            &[
                                int64("producer_id"),
                                int32("producer_epoch"),
                                int32("last_sequence").or(-1),
                                int64("last_timestamp").or(-1),
                                int32("coordinator_epoch"),
                                int64("current_txn_start_offset").or(-1),
                            ],
                        ),
                    ],
                )
                .is(Partitions),
            ],
        )
        .is(Topics),
    ],
};

/// DescribeTransactions (65).
pub(in crate::kafka) static DESCRIBE_TRANSACTIONS: Schema = Schema {
    key: 65,
    name: "DescribeTransactions",
    versions: (0, 0),
    flexible: 0,
    request: &[list("transactional_ids", &[string("item").is(Transaction)]).is(Transactions)],
    response: &[
        int32("throttle_time_ms"),
        array(
            "transaction_states",
            &[
                int16("error_code").is(Error),
                string("transactional_id").is(Transaction),
                string("transaction_state"),
                int32("transaction_timeout_ms"),
                int64("transaction_start_time_ms"),
                int64("producer_id"),
                int16("producer_epoch"),
                array("topics", &[string("topic"), list("partitions", &[int32("item")])]),
            ],
        )
        .is(Transactions),
    ],
};

/// ListTransactions (66).
pub(in crate::kafka) static LIST_TRANSACTIONS: Schema = Schema {
    key: 66,
    name: "ListTransactions",
    versions: (0, 2),
    flexible: 0,
    request: &[
        list("state_filters", &[string("item")]),
        list("producer_id_filters", &[int64("item")]),
        int64("duration_filter").since(1),
        string("transactional_id_pattern").since(2).nullable(2),
    ],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").is(Error),
        list("unknown_state_filters", &[string("item")]),
        array(
            "transaction_states",
            &[string("transactional_id"), int64("producer_id"), string("transaction_state")],
        ),
    ],
};

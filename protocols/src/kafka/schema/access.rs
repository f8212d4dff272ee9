//! Access control lists, configurations and delegation tokens.

use super::Schema;
use super::field::{array, boolean, bytes, int8, int16, int32, int64, list, string};
use super::mark::Mark::{Error, Host, Items, Resource, ResourceType, Resources};

/// DescribeAcls (29).
pub(in crate::kafka) static DESCRIBE_ACLS: Schema = Schema {
    key: 29,
    name: "DescribeAcls",
    versions: (1, 3),
    flexible: 2,
    request: &[
        int8("resource_type_filter"),
        string("resource_name_filter").nullable(1),
        int8("pattern_type_filter"),
        string("principal_filter").nullable(1),
        string("host_filter").nullable(1),
        int8("operation"),
        int8("permission_type"),
    ],
    response: &[
        int32("throttle_time_ms"),
        int16("error_code").is(Error),
        string("error_message").nullable(1),
        array(
            "resources",
            &[
                int8("resource_type"),
                string("resource_name"),
                int8("pattern_type").or(3),
                array(
                    "acls",
                    &[
                        string("principal"),
                        string("host").is(Host),
                        int8("operation"),
                        int8("permission_type"),
                    ],
                ),
            ],
        ),
    ],
};

/// CreateAcls (30).
pub(in crate::kafka) static CREATE_ACLS: Schema = Schema {
    key: 30,
    name: "CreateAcls",
    versions: (1, 3),
    flexible: 2,
    request: &[array(
        "creations",
        &[
            int8("resource_type"),
            string("resource_name"),
            int8("resource_pattern_type"),
            string("principal"),
            string("host"),
            int8("operation"),
            int8("permission_type"),
        ],
    )
    .is(Items)],
    response: &[
        int32("throttle_time_ms"),
        array("results", &[int16("error_code").is(Error), string("error_message").nullable(1)])
            .is(Items),
    ],
};

/// DeleteAcls (31).
pub(in crate::kafka) static DELETE_ACLS: Schema = Schema {
    key: 31,
    name: "DeleteAcls",
    versions: (1, 3),
    flexible: 2,
    request: &[array(
        "filters",
        &[
            int8("resource_type_filter"),
            string("resource_name_filter").nullable(1),
            int8("pattern_type_filter"),
            string("principal_filter").nullable(1),
            string("host_filter").nullable(1),
            int8("operation"),
            int8("permission_type"),
        ],
    )
    .is(Items)],
    response: &[
        int32("throttle_time_ms"),
        array(
            "filter_results",
            &[
                int16("error_code").is(Error),
                string("error_message").nullable(1),
                array(
                    "matching_acls",
                    &[
                        int16("error_code").is(Error),
                        string("error_message").nullable(1),
                        int8("resource_type"),
                        string("resource_name"),
                        int8("pattern_type").or(3),
                        string("principal"),
                        string("host").is(Host),
                        int8("operation"),
                        int8("permission_type"),
                    ],
                ),
            ],
        )
        .is(Items),
    ],
};

/// DescribeConfigs (32).
pub(in crate::kafka) static DESCRIBE_CONFIGS: Schema = Schema {
    key: 32,
    name: "DescribeConfigs",
    versions: (1, 4),
    flexible: 4,
    request: &[
        array(
            "resources",
            &[
                int8("resource_type").is(ResourceType),
                string("resource_name").is(Resource),
                list("configuration_keys", &[string("item")]).nullable(1),
            ],
        )
        .is(Resources),
        boolean("include_synonyms"),
        boolean("include_documentation").since(3),
    ],
    response: &[
        int32("throttle_time_ms"),
        array(
            "results",
            &[
                int16("error_code").is(Error),
                string("error_message").nullable(1),
                int8("resource_type").is(ResourceType),
                string("resource_name").is(Resource),
                array(
                    "configs",
                    &[
                        string("name"),
                        string("value").nullable(1),
                        boolean("read_only"),
                        int8("config_source").or(-1),
                        boolean("is_sensitive"),
                        array(
                            "synonyms",
                            &[string("name"), string("value").nullable(1), int8("source")],
                        ),
                        int8("config_type").since(3),
                        string("documentation").since(3).nullable(3),
                    ],
                ),
            ],
        )
        .is(Resources),
    ],
};

/// AlterConfigs (33).
pub(in crate::kafka) static ALTER_CONFIGS: Schema = Schema {
    key: 33,
    name: "AlterConfigs",
    versions: (0, 2),
    flexible: 2,
    request: &[
        array(
            "resources",
            &[
                int8("resource_type").is(ResourceType),
                string("resource_name").is(Resource),
                array("configs", &[string("name"), string("value").nullable(0)]),
            ],
        )
        .is(Resources),
        boolean("validate_only"),
    ],
    response: &[
        int32("throttle_time_ms"),
        array(
            "responses",
            &[
                int16("error_code").is(Error),
                string("error_message").nullable(0),
                int8("resource_type").is(ResourceType),
                string("resource_name").is(Resource),
            ],
        )
        .is(Resources),
    ],
};

/// CreateDelegationToken (38).
pub(in crate::kafka) static CREATE_DELEGATION_TOKEN: Schema = Schema {
    key: 38,
    name: "CreateDelegationToken",
    versions: (1, 3),
    flexible: 2,
    request: &[
        string("owner_principal_type").since(3).nullable(3),
        string("owner_principal_name").since(3).nullable(3),
        array("renewers", &[string("principal_type"), string("principal_name")]),
        int64("max_lifetime_ms"),
    ],
    response: &[
        int16("error_code").is(Error),
        string("principal_type"),
        string("principal_name"),
        string("token_requester_principal_type").since(3),
        string("token_requester_principal_name").since(3),
        int64("issue_timestamp_ms"),
        int64("expiry_timestamp_ms"),
        int64("max_timestamp_ms"),
        string("token_id"),
        bytes("hmac"),
        int32("throttle_time_ms"),
    ],
};

/// RenewDelegationToken (39).
pub(in crate::kafka) static RENEW_DELEGATION_TOKEN: Schema = Schema {
    key: 39,
    name: "RenewDelegationToken",
    versions: (1, 2),
    flexible: 2,
    request: &[bytes("hmac"), int64("renew_period_ms")],
    response: &[
        int16("error_code").is(Error),
        int64("expiry_timestamp_ms"),
        int32("throttle_time_ms"),
    ],
};

/// ExpireDelegationToken (40).
pub(in crate::kafka) static EXPIRE_DELEGATION_TOKEN: Schema = Schema {
    key: 40,
    name: "ExpireDelegationToken",
    versions: (1, 2),
    flexible: 2,
    request: &[bytes("hmac"), int64("expiry_time_period_ms")],
    response: &[
        int16("error_code").is(Error),
        int64("expiry_timestamp_ms"),
        int32("throttle_time_ms"),
    ],
};

/// DescribeDelegationToken (41).
pub(in crate::kafka) static DESCRIBE_DELEGATION_TOKEN: Schema = Schema {
    key: 41,
    name: "DescribeDelegationToken",
    versions: (1, 3),
    flexible: 2,
    request: &[array("owners", &[string("principal_type"), string("principal_name")]).nullable(1)],
    response: &[
        int16("error_code").is(Error),
        array(
            "tokens",
            &[
                string("principal_type"),
                string("principal_name"),
                string("token_requester_principal_type").since(3),
                string("token_requester_principal_name").since(3),
                int64("issue_timestamp"),
                int64("expiry_timestamp"),
                int64("max_timestamp"),
                string("token_id"),
                bytes("hmac"),
                array("renewers", &[string("principal_type"), string("principal_name")]),
            ],
        ),
        int32("throttle_time_ms"),
    ],
};

/// IncrementalAlterConfigs (44).
pub(in crate::kafka) static INCREMENTAL_ALTER_CONFIGS: Schema = Schema {
    key: 44,
    name: "IncrementalAlterConfigs",
    versions: (0, 1),
    flexible: 1,
    request: &[
        array(
            "resources",
            &[
                int8("resource_type").is(ResourceType),
                string("resource_name").is(Resource),
                array(
                    "configs",
                    &[string("name"), int8("config_operation"), string("value").nullable(0)],
                ),
            ],
        )
        .is(Resources),
        boolean("validate_only"),
    ],
    response: &[
        int32("throttle_time_ms"),
        array(
            "responses",
            &[
                int16("error_code").is(Error),
                string("error_message").nullable(0),
                int8("resource_type").is(ResourceType),
                string("resource_name").is(Resource),
            ],
        )
        .is(Resources),
    ],
};

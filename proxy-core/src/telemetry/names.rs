//! Names of metrics and of log fields. They are an interface: `docs/observability.md` lists them,
//! and a test compares.

/// Metrics: name without its `_total`, `_seconds` or `_bytes` suffix where OpenMetrics adds it, and
/// what it says.
pub mod metric {
    macro_rules! metrics {
        ($($constant:ident = $name:literal, $help:literal;)+) => {
            $(#[doc = $help] pub const $constant: (&str, &str) = ($name, $help);)+
            /// Every metric, as it is exposed.
            pub const ALL: &[(&str, &str)] = &[$($constant,)+];
        };
    }

    metrics! {
        BUILD_INFO = "portreeve_build_info", "Version of the running binary";
        START_TIME = "portreeve_start_time_seconds", "When the proxy was started, in seconds since 1970";
        READY = "portreeve_ready", "1 while connections are accepted";
        HTTP_REQUESTS = "portreeve_http_requests_total", "HTTP requests whose answer has passed";
        HTTP_DECISIONS = "portreeve_http_decisions_total", "HTTP requests judged";
        HTTP_DURATION = "portreeve_http_request_duration_seconds", "Time from a request's head to the end of its answer";
        GRPC_REQUESTS = "portreeve_grpc_requests_total", "gRPC calls that are over, by service and method";
        GRPC_MESSAGES = "portreeve_grpc_messages_total", "Messages of gRPC calls that are over";
        GRPC_DURATION = "portreeve_grpc_request_duration_seconds", "Time from a gRPC call's head to its end";
        KAFKA_REQUESTS = "portreeve_kafka_requests_total", "Kafka requests judged";
        KAFKA_RESPONSES = "portreeve_kafka_responses_total", "Kafka responses, by the first error in them";
        KAFKA_DURATION = "portreeve_kafka_request_duration_seconds", "Time from a Kafka request to the end of its response";
        KAFKA_TOPICS = "portreeve_kafka_topic_decisions_total", "Decisions about each topic";
        KERNEL_DECISIONS = "portreeve_kernel_decisions_total", "Connections and datagrams judged inside of the kernel, since its programs were loaded";
        KERNEL_DENIALS = "portreeve_kernel_denials_total", "Denials that the kernel told of, by reason";
        KERNEL_PACKETS = "portreeve_kernel_packets_total", "Packets of a node's workloads by what became of them, since the programs were loaded";
        KERNEL_ACTIONS = "portreeve_kernel_packet_actions_total", "What was done with packets of a node's workloads besides, since the programs were loaded";
        KERNEL_EVENTS_LOST = "portreeve_kernel_events_lost_total", "Decisions of the kernel that found no room on their way to the access log";
        KERNEL_MAPS_FULL = "portreeve_kernel_maps_full_total", "Connections and datagrams refused because a map of the kernel's was full";
        KERNEL_SERVICES = "portreeve_kernel_services_translated_total", "Connections and datagrams sent to a backend of a service";
        KERNEL_SOCKETS_REFUSED = "portreeve_kernel_sockets_refused_total", "Sockets of other kinds than TCP and UDP that were refused";
        KERNEL_MESSAGES_JOINED = "portreeve_kernel_messages_joined_total", "Messages that went from socket to socket without TCP";
        PARSE_ERRORS = "portreeve_parse_errors_total", "Messages that were not accepted";
        CONNECTIONS_OPENED = "portreeve_connections_opened_total", "Client connections accepted";
        CONNECTIONS_ACTIVE = "portreeve_connections_active", "Client connections open";
        CONNECTIONS_DENIED = "portreeve_connections_denied_total", "Connections refused by policy";
        CONNECTIONS_AUDITED = "portreeve_connections_audited_total", "Connections that a policy in audit mode would refuse";
        CONNECTION_DURATION = "portreeve_connection_duration_seconds", "Life of client connections";
        BYTES_RECEIVED = "portreeve_received_bytes_total", "Bytes forwarded from clients, of connections that have ended";
        BYTES_SENT = "portreeve_sent_bytes_total", "Bytes sent to clients, of connections that have ended";
        UPSTREAM_CONNECTS = "portreeve_upstream_connects_total", "Attempts to open an upstream connection";
        TIMEOUTS = "portreeve_timeouts_total", "Connections ended because a time-out ran out";
        LIMITS_HIT = "portreeve_limits_hit_total", "Connections refused before they were judged";
        POLICY_REVISION = "portreeve_policy_revision", "Revision of the policy in force";
        POLICY_SINCE = "portreeve_policy_in_force_since_seconds", "When it came into force, in seconds since 1970";
        POLICY_RELOADS = "portreeve_policy_reloads_total", "Policies that came into force after the first";
        POLICY_ERRORS = "portreeve_policy_reload_errors_total", "Policies that did not load and changed nothing";
        RULE_HITS = "portreeve_policy_rule_hits_total", "Decisions of each rule";
        ENDPOINT_BUFFERED = "portreeve_endpoint_buffered_bytes", "Bytes that the proxy of a node holds for an endpoint's connections";
        LOG_LOST = "portreeve_access_log_lost_total", "Buffers of access log lines lost because the sink was too slow";
    }
}

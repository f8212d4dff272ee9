//! Why a connection was ended: everything that is not Kafka, and what goes over a limit.

use super::wire::Malformed;

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $text:literal;)+) => {
        /// Why a message was not accepted. The connection ends, since nothing after it can be read.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
        #[non_exhaustive]
        pub enum Refusal {
            $($(#[$doc])* #[error($text)] $variant,)+
        }

        impl Refusal {
            /// Every reason there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// A stable short name for metrics and logs: `kafka_frame_length`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

refusals! {
    /// Negative, or too short for a header.
    FrameLength = "kafka_frame_length", "the length of a request is impossible";
    /// Over [`Limits::frame_bytes`](super::Limits::frame_bytes).
    FrameTooLarge = "kafka_frame_too_large", "a request is larger than `frame_bytes`";
    /// Over [`Limits::held_bytes`](super::Limits::held_bytes).
    HeldTooLarge = "kafka_held_too_large",
        "a message that must be seen whole is larger than `held_bytes`";
    /// Over [`Limits::topics`](super::Limits::topics).
    TooManyTopics = "kafka_too_many_topics", "a request names more topics or groups than `topics`";
    /// Not one that clients use.
    ApiUnknown = "kafka_api_unknown", "a request of an API that is not known";
    /// What an answer would look like is not known either.
    VersionUnknown = "kafka_version_unknown", "a request of a version that is not known";
    /// A field goes beyond the end of its frame.
    FieldBeyond = "kafka_field_beyond", "a field goes beyond the end of the request";
    /// An array says that it has more items than its frame has bytes.
    ArrayCount = "kafka_array_count", "an array has more items than the request has bytes";
    /// A length below -1.
    LengthNegative = "kafka_length_negative", "a length is negative";
    /// Null where the protocol has none.
    FieldNull = "kafka_field_null", "a field is null that may not be";
    /// Longer than it needs to be, or over 32 bits: readers differ on these.
    Varint = "kafka_varint", "a varint is not in its shortest form";
    /// Out of order, twice, or of another size than said: readers differ on these (KIP-482).
    TaggedFields = "kafka_tagged_fields", "tagged fields are out of order or lie about their size";
    /// The client ended the stream within a request.
    Incomplete = "kafka_incomplete", "the client ended the stream within a request";
    /// A request began and did not arrive in time.
    Timeout = "kafka_timeout", "a request did not arrive in time";
    /// Nothing that was answered with a code: the broker, too, closes the connection.
    UnansweredDenied = "kafka_unanswered_denied",
        "a denied request that has no answer (acks=0), so that the connection is closed";
    /// The broker's response could not be read where it has to be.
    ResponseMalformed = "kafka_response_malformed", "a response of the broker is malformed";
    /// Responses come in the order of the requests.
    ResponseOrder = "kafka_response_order", "the broker answered another request than it had to";
    /// Bytes that answer no request.
    ResponseUnasked = "kafka_response_unasked", "the broker answered no request";
    /// The broker ended the stream within a response.
    ResponseIncomplete = "kafka_response_incomplete", "the broker ended the stream within a response";
}

impl Refusal {
    /// Whether the broker, not the client, is at fault.
    #[must_use]
    pub fn by_server(self) -> bool {
        matches!(
            self,
            Self::ResponseMalformed
                | Self::ResponseOrder
                | Self::ResponseUnasked
                | Self::ResponseIncomplete
        )
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Beyond => Self::FieldBeyond,
            Malformed::Count => Self::ArrayCount,
            Malformed::Negative => Self::LengthNegative,
            Malformed::Null => Self::FieldNull,
            Malformed::Varint => Self::Varint,
            Malformed::Tags => Self::TaggedFields,
        }
    }
}

//! What the gate knows fields as, whatever each API calls them.

/// A field that the gate looks for. A request and its response share the marks of what the one asks
/// and the other answers, so that an answer can be written from a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::kafka) enum Mark {
    /// Array: what is asked of topics.
    Topics,
    /// A topic's name.
    Topic,
    /// A topic's id (KIP-516).
    TopicId,
    /// A regular expression for topics, which the broker evaluates.
    Regex,
    /// Array: partitions of one topic.
    Partitions,
    /// A partition's number.
    Partition,
    /// Array: groups.
    Groups,
    /// A group's name.
    Group,
    /// Array: transactional ids.
    Transactions,
    /// A transactional id.
    Transaction,
    /// Array: what a coordinator is looked for.
    Keys,
    /// A group or a transactional id, as the key's type says.
    Key,
    /// 0 a group, 1 a transactional id, 2 a share group's partition.
    KeyType,
    /// Array: things that have a configuration.
    Resources,
    /// 2 a topic, 32 a group, and others.
    ResourceType,
    /// A resource's name.
    Resource,
    /// Array: things that are answered one by one, in order.
    Items,
    /// The member of a group that asks.
    Member,
    /// How many brokers are to have it before the answer; 0: no answer.
    Acks,
    /// A fetch session (KIP-227).
    Session,
    /// A fetch session's epoch.
    Epoch,
    /// Who fetches: -1 a consumer.
    Replica,
    /// An error code.
    Error,
    /// A broker's host.
    Host,
    /// A broker's port.
    Port,
}

impl Mark {
    /// How many there are.
    pub(in crate::kafka) const COUNT: usize = Self::Port as usize + 1;
}

//! `rules.kafka`: role, API key, version, client, topic (Cilium `api/kafka.PortRule`), and our own
//! topic patterns and groups.

use std::sync::Arc;

use super::Dialect;
use super::node::Node;
use super::reader::{Fields, Reader};
use crate::pattern::Pattern;
use crate::rule::{KafkaRule, TextMatch};

/// The names of API keys, by their numbers (Cilium `pkg/policy/api/kafka`). Numbers are not taken.
const API_KEYS: [&str; 34] = [
    "produce",
    "fetch",
    "offsets",
    "metadata",
    "leaderandisr",
    "stopreplica",
    "updatemetadata",
    "controlledshutdown",
    "offsetcommit",
    "offsetfetch",
    "findcoordinator",
    "joingroup",
    "heartbeat",
    "leavegroup",
    "syncgroup",
    "describegroups",
    "listgroups",
    "saslhandshake",
    "apiversions",
    "createtopics",
    "deletetopics",
    "deleterecords",
    "initproducerid",
    "offsetforleaderepoch",
    "addpartitionstotxn",
    "addoffsetstotxn",
    "endtxn",
    "writetxnmarkers",
    "txnoffsetcommit",
    "describeacls",
    "createacls",
    "deleteacls",
    "describeconfigs",
    "alterconfigs",
];

/// Every number that has a name.
const NUMBERS: [i16; 34] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
    26, 27, 28, 29, 30, 31, 32, 33,
];

/// APIs that came after the reference's, by their names in Kafka. A TrafficPolicy may name them.
const LATER_API_KEYS: [(&str, &[i16]); 40] = [
    ("alterreplicalogdirs", &[34]),
    ("describelogdirs", &[35]),
    ("saslauthenticate", &[36]),
    ("createpartitions", &[37]),
    ("createdelegationtoken", &[38]),
    ("renewdelegationtoken", &[39]),
    ("expiredelegationtoken", &[40]),
    ("describedelegationtoken", &[41]),
    ("deletegroups", &[42]),
    ("electleaders", &[43]),
    ("incrementalalterconfigs", &[44]),
    ("alterpartitionreassignments", &[45]),
    ("listpartitionreassignments", &[46]),
    ("offsetdelete", &[47]),
    ("describeclientquotas", &[48]),
    ("alterclientquotas", &[49]),
    ("describeuserscramcredentials", &[50]),
    ("alteruserscramcredentials", &[51]),
    ("describequorum", &[55]),
    ("updatefeatures", &[57]),
    ("describecluster", &[60]),
    ("describeproducers", &[61]),
    ("unregisterbroker", &[64]),
    ("describetransactions", &[65]),
    ("listtransactions", &[66]),
    ("consumergroupheartbeat", &[68]),
    ("consumergroupdescribe", &[69]),
    ("listconfigresources", &[74]),
    ("describetopicpartitions", &[75]),
    ("sharegroupheartbeat", &[76]),
    ("sharegroupdescribe", &[77]),
    ("sharefetch", &[78]),
    ("shareacknowledge", &[79]),
    ("addraftvoter", &[80]),
    ("removeraftvoter", &[81]),
    ("streamsgroupheartbeat", &[88]),
    ("streamsgroupdescribe", &[89]),
    ("describesharegroupoffsets", &[90]),
    ("altersharegroupoffsets", &[91]),
    ("deletesharegroupoffsets", &[92]),
];

/// What a role may ask: the reference's list (Cilium `kafka.MapRole`), and what clients have needed
/// since. Both: FindCoordinator (10), SASL (17, 36), descriptions of the cluster (60)
/// and of topics (75).
///
/// - `produce`: InitProducerId (22) and transactions (24, 25, 26, and 28 for the offsets in them).
/// - `consume`: OffsetForLeaderEpoch (23), offsets in a transaction (28), the groups of KIP-848 (68)
///   and share groups (76, 78, 79).
const ROLES: [(&str, &[i16]); 2] = [
    ("produce", &[0, 3, 10, 17, 18, 22, 24, 25, 26, 28, 36, 60, 75]),
    ("consume", &[1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 17, 18, 23, 28, 36, 60, 68, 75, 76, 78, 79]),
];

/// What a rule calls these APIs: a role, or one of them.
pub(crate) fn apis(keys: &'static [i16]) -> String {
    let role = ROLES.iter().find(|(_, own)| *own == keys);
    let later = || LATER_API_KEYS.iter().find(|(_, own)| *own == keys).map(|(name, _)| *name);
    let name = || match keys {
        [key] => usize::try_from(*key).ok().and_then(|key| API_KEYS.get(key).copied()),
        _ => None,
    };
    match (role, name().or_else(later)) {
        (Some((role, _)), _) => format!("role {role}"),
        (None, Some(name)) => format!("apiKey {name}"),
        (None, None) => format!("apiKeys {keys:?}"),
    }
}

/// Longest topic (Kafka itself has 249).
const LONGEST_TOPIC: usize = 255;

/// Reads one Kafka rule.
pub(super) fn read(
    reader: &mut Reader<'_>,
    node: &Node,
    dialect: Dialect,
) -> Option<Arc<KafkaRule>> {
    let mut fields = reader.fields(node)?;
    let section = reader.path().to_owned();
    let errors = reader.errors();
    let role = word(reader, &mut fields, "role", |reader, node, word| {
        let names = ROLES.map(|(name, _)| name);
        let role = reader.one_of(node.at, &word.to_ascii_lowercase(), "a role", &names)?;
        ROLES.iter().find(|(name, _)| *name == role).map(|(_, keys)| *keys)
    });
    let api_key = word(reader, &mut fields, "apiKey", |reader, node, word| {
        let word = word.to_ascii_lowercase();
        let later = LATER_API_KEYS.iter().find(|(name, _)| *name == word);
        if let Some((_, key)) = later.filter(|_| dialect.extended) {
            return Some(*key);
        }
        let name = reader.one_of(node.at, &word, "the name of a Kafka API", &API_KEYS)?;
        let number = API_KEYS.iter().position(|known| *known == name)?;
        NUMBERS.get(number..=number)
    });
    if role.is_some() && api_key.is_some() {
        reader.error_hint(
            fields.at,
            "`role` and `apiKey` can't stand together",
            "a role stands for several APIs; keep one of them, or write two rules",
        );
    }
    let api_version = word(reader, &mut fields, "apiVersion", |reader, node, word| {
        let version = word.parse::<i16>().ok().filter(|version| *version >= 0);
        let plain = word.bytes().all(|b| b.is_ascii_digit());
        if version.is_none() || !plain {
            reader.error_hint(
                node.at,
                format_args!("`{word}` is not an API version"),
                "write a number from 0 to 32767",
            );
            return None;
        }
        version
    });
    let client_id = word(reader, &mut fields, "clientID", |_, _, word: &str| Some(word.to_owned()));
    let topic = match word(reader, &mut fields, "topic", topic) {
        None if dialect.extended => pattern(reader, &mut fields, "topicPattern"),
        topic => topic.map(TextMatch::Exact),
    };
    let mut group = None;
    if dialect.extended {
        group = word(reader, &mut fields, "group", |_, _, word| {
            Some(TextMatch::Exact(word.to_owned()))
        });
        if group.is_none() {
            group = pattern(reader, &mut fields, "groupPattern");
        }
    }
    fields.finish(reader);
    let failed = reader.errors() > errors;
    let api_keys = role.or(api_key);
    (!failed)
        .then(|| Arc::new(KafkaRule { section, api_keys, api_version, client_id, topic, group }))
}

/// A text field; an empty one says nothing.
fn word<T>(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    name: &'static str,
    read: impl FnOnce(&mut Reader<'_>, &Node, &str) -> Option<T>,
) -> Option<T> {
    let node = fields.take(name)?;
    reader.field(name, |reader| match reader.text(node)? {
        "" => None,
        text => read(reader, node, text),
    })
}

fn topic(reader: &mut Reader<'_>, node: &Node, text: &str) -> Option<String> {
    // The backslash is in the reference's expression by accident; no topic can have one.
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._-\\".contains(&b);
    if text.len() > LONGEST_TOPIC || !text.bytes().all(good) {
        reader.error_hint(
            node.at,
            format_args!("`{text}` is not a topic"),
            "letters, digits, `.`, `_` and `-`, at most 255; patterns are for `topicPattern` of a \
             TrafficPolicy",
        );
        return None;
    }
    Some(text.to_owned())
}

fn pattern(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    name: &'static str,
) -> Option<TextMatch> {
    word(reader, fields, name, |reader, node, text| match Pattern::new(text) {
        Ok(pattern) => Some(TextMatch::Matches(pattern)),
        Err(error) => {
            reader.error(node.at, format_args!("`{text}` is not a regular expression: {error}"));
            None
        }
    })
}

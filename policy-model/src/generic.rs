//! Protocols that policies name by word (`l7proto`): what their rules mean (Cilium `proxylib`).
//!
//! A protocol that is not known here, or a rule that its parser could not read, denies everything on
//! the port: so does the reference, which accepts the policy and then drops the traffic.

use crate::pattern::Pattern;

/// What one rule matches.
#[derive(Clone, Debug)]
pub(crate) enum GenericMatch {
    /// `cassandra`.
    Cassandra {
        /// The statement, of a fixed list; `None`: any.
        action: Option<String>,
        /// Anywhere in `keyspace.table`.
        table: Option<Pattern>,
    },
    /// `memcache`.
    Memcache {
        /// The commands that the rule names; `None`: any.
        commands: Option<&'static [&'static str]>,
        key: Option<KeyMatch>,
    },
    /// `r2d2`.
    R2d2 {
        command: Option<String>,
        /// Anywhere in the file's name.
        file: Option<Pattern>,
    },
    /// The parser would refuse it; nothing on the port passes. The text says why.
    Unreadable(String),
}

/// What every key of a request must be.
#[derive(Clone, Debug)]
pub(crate) enum KeyMatch {
    Exact(String),
    Prefix(String),
    Matches(Pattern),
}

/// A request of one of these protocols, as policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GenericRequest<'a> {
    /// Cassandra's CQL.
    Cassandra {
        /// `query`, `prepare`, `batch`, `execute`; anything else is always allowed.
        opcode: &'a str,
        /// The statement, lower case, as the parser names it: `select`, `create-table`, ….
        action: &'a str,
        /// `keyspace.table`, lower case; empty if it has none.
        table: &'a str,
    },
    /// memcached, text or binary.
    Memcache {
        /// The command, lower case.
        command: &'a str,
        /// Its keys.
        keys: &'a [&'a [u8]],
    },
    /// The test protocol r2d2.
    R2d2 {
        /// `READ`, `WRITE`, `HALT`, `RESET`.
        command: &'a str,
        /// The file, if the command has one.
        file: &'a str,
    },
}

/// One rule of `l7`, as written.
pub(crate) type Pairs = [(String, String)];

/// Reads a rule in its protocol's words.
pub(crate) fn read(protocol: &str, pairs: &Pairs) -> GenericMatch {
    let read = match protocol {
        "cassandra" => cassandra(pairs),
        "memcache" => memcache(pairs),
        "r2d2" => r2d2(pairs),
        _ => Err(format!("`{protocol}` is not a protocol that can be read here")),
    };
    read.unwrap_or_else(GenericMatch::Unreadable)
}

/// The protocols whose rules can be read.
pub(crate) const PROTOCOLS: [&str; 3] = ["cassandra", "memcache", "r2d2"];

/// Statements that a table, or a keyspace in its place, can be asked of.
const ON_TABLES: [&str; 12] = [
    "select",
    "delete",
    "insert",
    "update",
    "create-table",
    "drop-table",
    "alter-table",
    "truncate-table",
    "use",
    "create-keyspace",
    "alter-keyspace",
    "drop-keyspace",
];

/// Statements that name none.
const ON_OTHERS: [&str; 26] = [
    "create-index",
    "drop-index",
    "create-materialized-view",
    "drop-materialized-view",
    "create-role",
    "alter-role",
    "drop-role",
    "grant-role",
    "revoke-role",
    "list-roles",
    "grant-permission",
    "revoke-permission",
    "list-permissions",
    "create-user",
    "alter-user",
    "drop-user",
    "list-users",
    "create-function",
    "drop-function",
    "create-aggregate",
    "drop-aggregate",
    "create-type",
    "alter-type",
    "drop-type",
    "create-trigger",
    "drop-trigger",
];

fn cassandra(pairs: &Pairs) -> Result<GenericMatch, String> {
    let (mut action, mut table) = (None, None);
    for (key, value) in pairs {
        match key.as_str() {
            "query_action" if value.is_empty() => {}
            "query_action" => {
                if !ON_TABLES.iter().chain(&ON_OTHERS).any(|known| known == value) {
                    return Err(format!("`{value}` is not a `query_action`"));
                }
                action = Some(value.clone());
            }
            "query_table" if value.is_empty() => {}
            "query_table" => table = Some(anywhere(value)?),
            _ => return Err(format!("cassandra knows no `{key}`")),
        }
    }
    if table.is_some() && action.as_deref().is_some_and(|action| !ON_TABLES.contains(&action)) {
        return Err(format!("`{}` has no table", action.unwrap_or_default()));
    }
    Ok(GenericMatch::Cassandra { action, table })
}

/// Commands and groups of commands (Cilium `proxylib/memcached/parser.go`).
const COMMANDS: &[(&str, &[&str])] = &[
    ("get", &["get", "gets"]),
    ("gat", &["gat", "gats"]),
    ("set", &["set"]),
    ("add", &["add"]),
    ("replace", &["replace"]),
    ("append", &["append"]),
    ("prepend", &["prepend"]),
    ("cas", &["cas"]),
    ("storage", &["add", "set", "replace", "append", "prepend", "cas"]),
    ("writeGroup", &["add", "set", "replace", "append", "prepend", "cas", "delete", "touch"]),
    ("delete", &["delete"]),
    ("touch", &["touch"]),
    ("incr", &["incr"]),
    ("decr", &["decr"]),
    ("slabs", &["slabs"]),
    ("lru", &["lru"]),
    ("lru_crawler", &["lru_crawler"]),
    ("watch", &["watch"]),
    ("stats", &["stats"]),
    ("flush_all", &["flush_all"]),
    ("cache_memlimit", &["cache_memlimit"]),
    ("version", &["version"]),
    ("misbehave", &["misbehave"]),
    ("quit", &["quit"]),
    ("noop", &["noop"]),
    ("verbosity", &["verbosity"]),
    ("sasl", &["sasl"]),
    ("range", &["range"]),
];

fn memcache(pairs: &Pairs) -> Result<GenericMatch, String> {
    let mut commands = None;
    let (mut exact, mut prefix, mut regex) = (None, None, None);
    for (key, value) in pairs {
        match key.as_str() {
            "command" => {
                let found = COMMANDS.iter().find(|(name, _)| name == value);
                let (_, own) = found.ok_or_else(|| format!("memcache knows no `{value}`"))?;
                commands = Some(*own);
            }
            "keyExact" => exact = Some(KeyMatch::Exact(value.clone())),
            "keyPrefix" => prefix = Some(KeyMatch::Prefix(value.clone())),
            "keyRegex" => regex = Some(KeyMatch::Matches(anywhere(value)?)),
            _ => return Err(format!("memcache knows no `{key}`")),
        }
    }
    let key = exact.or(prefix).or(regex);
    if key.is_some() && commands.is_none() {
        return Err("a condition on keys needs a `command`".to_owned());
    }
    Ok(GenericMatch::Memcache { commands, key })
}

fn r2d2(pairs: &Pairs) -> Result<GenericMatch, String> {
    let (mut command, mut file) = (None, None);
    for (key, value) in pairs {
        match key.as_str() {
            "cmd" if value.is_empty() => {}
            "cmd" => {
                if !["READ", "WRITE", "HALT", "RESET"].contains(&value.as_str()) {
                    return Err(format!("r2d2 knows no `{value}`"));
                }
                command = Some(value.clone());
            }
            "file" if value.is_empty() => {}
            "file" => file = Some(anywhere(value)?),
            _ => return Err(format!("r2d2 knows no `{key}`")),
        }
    }
    if file.is_some() && command.as_deref().is_some_and(|c| c != "READ" && c != "WRITE") {
        return Err(format!("`{}` has no file", command.unwrap_or_default()));
    }
    Ok(GenericMatch::R2d2 { command, file })
}

/// These parsers look for an expression anywhere in the value, unlike HTTP's.
fn anywhere(expression: &str) -> Result<Pattern, String> {
    Pattern::anywhere(expression)
        .map_err(|error| format!("`{expression}` is not a regular expression: {error}"))
}

impl GenericMatch {
    /// Whether the rule allows this request.
    pub(crate) fn allows(&self, request: &GenericRequest<'_>) -> bool {
        match (self, request) {
            (
                Self::Cassandra { action, table },
                GenericRequest::Cassandra { opcode, action: asked, table: on },
            ) => {
                let judged = ["query", "prepare", "batch", "execute"].contains(opcode);
                !judged
                    || *asked == "use"
                    || (action.as_ref().is_none_or(|action| action == asked)
                        && table
                            .as_ref()
                            .is_none_or(|table| on.is_empty() || table.matches(on.as_bytes())))
            }
            (Self::Memcache { commands, key }, GenericRequest::Memcache { command, keys }) => {
                commands.is_none_or(|commands| commands.contains(command))
                    && key.as_ref().is_none_or(|key| keys.iter().all(|own| key.matches(own)))
            }
            (Self::R2d2 { command, file }, GenericRequest::R2d2 { command: asked, file: on }) => {
                command.as_ref().is_none_or(|command| command == asked)
                    && file.as_ref().is_none_or(|file| file.matches(on.as_bytes()))
            }
            _ => false,
        }
    }
}

impl KeyMatch {
    fn matches(&self, key: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => wanted.as_bytes() == key,
            Self::Prefix(prefix) => key.starts_with(prefix.as_bytes()),
            Self::Matches(pattern) => pattern.matches(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(protocol: &str, pairs: &[(&str, &str)]) -> GenericMatch {
        let pairs: Vec<_> =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        read(protocol, &pairs)
    }

    #[test]
    fn a_rule_that_its_parser_would_refuse_matches_nothing() {
        for (protocol, pairs) in [
            ("cassandra", &[("query_action", "selekt")][..]),
            ("cassandra", &[("query_action", "list-users"), ("query_table", "t")]),
            ("cassandra", &[("table", "t")]),
            ("memcache", &[("command", "gett")]),
            ("memcache", &[("keyExact", "k")]),
            ("r2d2", &[("cmd", "HALT"), ("file", "x")]),
            ("redis", &[]),
        ] {
            assert!(matches!(rule(protocol, pairs), GenericMatch::Unreadable(_)), "{pairs:?}");
        }
    }

    #[test]
    fn every_key_of_a_memcache_request_must_match() {
        let rule = rule("memcache", &[("command", "get"), ("keyPrefix", "a/")]);
        let request = |keys| GenericRequest::Memcache { command: "gets", keys };
        assert!(rule.allows(&request(&[b"a/1", b"a/2"])));
        assert!(!rule.allows(&request(&[b"a/1", b"b/2"])));
    }

    #[test]
    fn expressions_of_these_protocols_are_not_anchored() {
        let rule = rule("r2d2", &[("cmd", "READ"), ("file", "etc")]);
        assert!(rule.allows(&GenericRequest::R2d2 { command: "READ", file: "/etc/x" }));
        assert!(!rule.allows(&GenericRequest::R2d2 { command: "WRITE", file: "/etc/x" }));
    }
}

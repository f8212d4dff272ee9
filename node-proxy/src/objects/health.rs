//! How backends of a service are to be asked whether they are well: annotations of the service.

use std::ops::RangeInclusive;
use std::time::Duration;

use portreeve_policy::Protocol;
use portreeve_policy::yaml::{Key, Node, Reader, Value, nearest};

use super::service::ServicePort;

/// What every annotation that is read here begins with.
const OURS: &str = "portreeve.dev/";

const CHECK: &str = "portreeve.dev/health-check";
const PORT: &str = "portreeve.dev/health-check-port";
const INTERVAL: &str = "portreeve.dev/health-check-interval";
const TIMEOUT: &str = "portreeve.dev/health-check-timeout";
const FALL: &str = "portreeve.dev/health-check-fall";
const RISE: &str = "portreeve.dev/health-check-rise";
const KNOWN: [&str; 6] = [CHECK, PORT, INTERVAL, TIMEOUT, FALL, RISE];

/// A backend that is asked more often has more to do with questions than with clients.
const SHORTEST: Duration = Duration::from_secs(1);
/// What is asked less often tells nothing of now.
const LONGEST: Duration = Duration::from_secs(3600);
/// Who takes longer to answer is not well.
const LONGEST_ANSWER: Duration = Duration::from_secs(30);
/// The most answers that may be asked for before they are believed.
const MOST: u16 = 100;

/// How each backend is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HealthCheck {
    /// What is asked.
    pub question: Question,
    /// The port that is asked; none: the one that clients are sent to.
    pub port: Option<u16>,
    /// From one question to the next.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// So many bad answers one after another make a backend unhealthy.
    pub fall: u16,
    /// So many good ones make it healthy again.
    pub rise: u16,
}

/// What a backend is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// Whether it accepts a TCP connection.
    Connect,
    /// Whether it answers a GET of this path with a status from 200 to 399, as the kubelet asks.
    Get(String),
}

/// The annotations of `metadata`; none: nobody is asked. One of ours that is not known is an error, since it
/// means something to whoever wrote it.
pub(super) fn read(reader: &mut Reader<'_>, metadata: Option<&Node>) -> Option<HealthCheck> {
    let annotations = super::read::field_of(metadata?, "annotations")?;
    let Value::Map(all) = &annotations.value else { return None };
    let ours: Vec<&(Key, Node)> =
        all.iter().filter(|(key, _)| key.name.starts_with(OURS)).collect();
    reader.field("metadata", |reader| {
        reader.field("annotations", |reader| {
            are_known(reader, &ours);
            check(reader, &Annotations(&ours))
        })
    })
}

fn are_known(reader: &mut Reader<'_>, ours: &[&(Key, Node)]) {
    for (key, _) in ours.iter().filter(|(key, _)| !KNOWN.contains(&key.name.as_str())) {
        let hint = match nearest(&key.name, KNOWN) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("of ours there are: {}", KNOWN.join(", ")),
        };
        reader.error_hint(key.at, format_args!("unknown annotation `{}`", key.name), hint);
    }
    let is_known = |(key, _): &&&(Key, Node)| KNOWN.contains(&key.name.as_str());
    let has_question = ours.iter().any(|(key, _)| key.name == CHECK);
    if let (false, Some((key, _))) = (has_question, ours.iter().find(is_known)) {
        let hint = format!("add `{CHECK}: tcp`, or a path to ask for: `GET /healthz`");
        reader.error_hint(key.at, "says how to ask, and nothing says what", hint);
    }
}

/// Those that are ours.
struct Annotations<'n>(&'n [&'n (Key, Node)]);

impl<'n> Annotations<'n> {
    fn get(&self, name: &str) -> Option<&'n Node> {
        self.0.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    /// What is read of one, if it is there.
    fn read<T>(
        &self,
        reader: &mut Reader<'_>,
        name: &str,
        read: impl FnOnce(&mut Reader<'_>, &'n Node) -> Option<T>,
    ) -> Option<T> {
        let node = self.get(name)?;
        reader.field(name, |reader| read(reader, node))
    }
}

fn check(reader: &mut Reader<'_>, all: &Annotations<'_>) -> Option<HealthCheck> {
    let question = all.read(reader, CHECK, question);
    let port = all.read(reader, PORT, |r, node| number(r, node, u16::MAX));
    let interval = all.read(reader, INTERVAL, |r, node| time(r, node, SHORTEST..=LONGEST));
    let least = Duration::from_millis(1);
    let timeout = all.read(reader, TIMEOUT, |r, node| time(r, node, least..=LONGEST_ANSWER));
    let fall = all.read(reader, FALL, |r, node| number(r, node, MOST));
    let rise = all.read(reader, RISE, |r, node| number(r, node, MOST));
    let check = HealthCheck {
        question: question?,
        port,
        interval: interval.unwrap_or(Duration::from_secs(5)),
        timeout: timeout.unwrap_or(Duration::from_secs(1)),
        fall: fall.unwrap_or(3),
        rise: rise.unwrap_or(2),
    };
    let HealthCheck { interval, timeout, .. } = check;
    if timeout > interval
        && let Some(node) = all.get(TIMEOUT).or(all.get(INTERVAL))
    {
        reader.error_hint(
            node.at,
            format_args!("an answer may take {timeout:?}, and is asked for every {interval:?}"),
            format_args!("lower `{TIMEOUT}`, or raise `{INTERVAL}`"),
        );
    }
    Some(check)
}

/// Says so where nobody would ever be asked: what is asked is asked over TCP.
pub(super) fn can_be_asked(
    reader: &mut Reader<'_>,
    node: &Node,
    check: &HealthCheck,
    ports: &[ServicePort],
) {
    let asked = |port: &ServicePort| port.protocol == Protocol::Tcp;
    if check.port.is_none() && !ports.is_empty() && !ports.iter().any(asked) {
        reader.error_hint(
            node.at,
            "none of them is of TCP, so that no backend can be asked whether it is well",
            format_args!("say with `{PORT}` which port of the backends is to be asked"),
        );
    }
}

/// `tcp`, or `GET /path`.
fn question(reader: &mut Reader<'_>, node: &Node) -> Option<Question> {
    let text = reader.text(node)?;
    match text.split_once(' ') {
        None if text == "tcp" => Some(Question::Connect),
        Some(("GET", path)) if is_path(path) => Some(Question::Get(path.to_owned())),
        _ => {
            reader.error_hint(
                node.at,
                format_args!("`{text}` is nothing to ask"),
                "write `tcp`, or `GET /healthz`",
            );
            None
        }
    }
}

/// What may stand in a request line (RFC 9112 §3.2.1).
fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
}

/// A number from 1, as a string, which every annotation is.
fn number(reader: &mut Reader<'_>, node: &Node, most: u16) -> Option<u16> {
    let text = reader.text(node)?;
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    if number.is_none() {
        reader.error(node.at, format_args!("`{text}` is not a number from 1 to {most}"));
    }
    number
}

fn time(reader: &mut Reader<'_>, node: &Node, range: RangeInclusive<Duration>) -> Option<Duration> {
    let text = reader.text(node)?;
    let time = humantime::parse_duration(text).ok();
    let time = time.filter(|time| range.contains(time));
    if time.is_none() {
        reader.error_hint(
            node.at,
            format_args!("`{text}` is not a time from {:?} to {:?}", range.start(), range.end()),
            "write `500ms`, `5s` or `1m`",
        );
    }
    time
}

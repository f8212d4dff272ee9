//! Brokers' addresses as Kafka clients are told them: `broker-1:9092` → `127.0.0.1:19092`.

use portreeve_core::Advertised;

/// In place of a broker: every one that is not named.
const OTHERS: &str = "*";

/// From pairs of a broker's address, or `*`, and the address that clients are told.
pub(super) fn resolve<'p>(
    pairs: impl IntoIterator<Item = (&'p str, &'p str)>,
) -> Result<Option<Advertised>, String> {
    let mut advertised = Advertised::default();
    for (broker, told) in pairs {
        let told = address(told)?;
        if broker == OTHERS {
            advertised.others = Some(told);
        } else {
            advertised.brokers.push((address(broker)?, told));
        }
    }
    Ok((advertised != Advertised::default()).then_some(advertised))
}

/// From a flag: `BROKER=HOST:PORT`, or `HOST:PORT` for all of them.
pub(super) fn flag(text: &str) -> (&str, &str) {
    text.split_once('=').unwrap_or((OTHERS, text))
}

/// A host, by name or address, and a port.
fn address(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("`{text}` is not a host and a port, such as broker-1:9092");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let good = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
    if host.is_empty() || host.len() > 255 || !host.chars().all(good) {
        return Err(wrong());
    }
    match port.parse() {
        Ok(port) if port > 0 => Ok((host.to_owned(), port)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_told_apart_and_mistakes_are_named() {
        let pair = |host: &str, port| (host.to_owned(), port);
        let pairs = [("broker-1:9092", "127.0.0.1:19092"), ("[::1]:9", "h:1"), flag("h:2")];
        let advertised = resolve(pairs).expect("good").expect("some");
        assert_eq!(advertised.brokers[0], (pair("broker-1", 9092), pair("127.0.0.1", 19092)));
        assert_eq!(advertised.brokers[1], (pair("::1", 9), pair("h", 1)));
        assert_eq!(advertised.others, Some(pair("h", 2)));
        assert_eq!(resolve([]), Ok(None));
        for text in ["broker-1", ":9092", "a b:1", "a:0", "a:x", "a:70000"] {
            let error = resolve([(text, "h:1")]).expect_err(text);
            assert!(error.contains(text), "{error}");
        }
    }
}

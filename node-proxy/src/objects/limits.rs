//! What a workload may use of the proxy that it shares with the others of its node. What is not named is
//! as by default.

use portreeve_core::EndpointLimits;
use portreeve_policy::yaml::{Node, Reader, Value};

/// Shares go up to this (as the weights of control groups do): more would only be longer turns, for which
/// the others wait.
const LARGEST_SHARE: u64 = 10_000;

/// `{connections, bufferedBytes, cpuShare}`.
pub(super) fn read(reader: &mut Reader<'_>, node: Option<&Node>) -> EndpointLimits {
    let mut limits = EndpointLimits::default();
    let Some(node) = node else { return limits };
    reader.field("limits", |reader| {
        let mut fields = reader.fields(node)?;
        if let Some(node) = fields.take("connections") {
            let number = reader.field("connections", |reader| count(reader, node));
            limits.connections = number.unwrap_or(limits.connections);
        }
        if let Some(node) = fields.take("bufferedBytes") {
            let number = reader.field("bufferedBytes", |reader| bytes(reader, node));
            limits.buffered_bytes = number.unwrap_or(limits.buffered_bytes);
        }
        if let Some(node) = fields.take("cpuShare") {
            let number = reader.field("cpuShare", |reader| share(reader, node));
            limits.cpu_share = number.unwrap_or(limits.cpu_share);
        }
        fields.finish(reader);
        Some(())
    });
    limits
}

fn count(reader: &mut Reader<'_>, node: &Node) -> Option<usize> {
    let number = match node.value {
        Value::Integer(number) => usize::try_from(number).ok(),
        _ => None,
    };
    if number.is_none() {
        reader.error_hint(
            node.at,
            format_args!("must be a number of connections, not {}", shown(node)),
            "0 lets none through the proxy; what the kernel judges alone is not counted",
        );
    }
    number
}

fn share(reader: &mut Reader<'_>, node: &Node) -> Option<u32> {
    let share = match node.value {
        Value::Integer(number) => u64::try_from(number).ok(),
        _ => None,
    };
    let share = share.filter(|share| (1..=LARGEST_SHARE).contains(share));
    if share.is_none() {
        reader.error_hint(
            node.at,
            format_args!("must be a share of time, not {}", shown(node)),
            format_args!("shares go from 1 to {LARGEST_SHARE}; everybody else has 100"),
        );
    }
    u32::try_from(share?).ok()
}

/// A number of bytes, or one with the suffix that Kubernetes gives it.
fn bytes(reader: &mut Reader<'_>, node: &Node) -> Option<usize> {
    let read = match &node.value {
        Value::Integer(number) => usize::try_from(*number).ok(),
        Value::Text(text) => quantity(text),
        _ => None,
    };
    if read.is_none() {
        reader.error_hint(
            node.at,
            format_args!("must be a number of bytes, not {}", shown(node)),
            "write it as `1048576`, `512Ki`, `16Mi` or `1Gi`",
        );
    }
    read
}

fn quantity(text: &str) -> Option<usize> {
    let suffixes = [("Ki", 10), ("Mi", 20), ("Gi", 30)];
    let (number, shift) = suffixes
        .into_iter()
        .find_map(|(suffix, shift)| Some((text.strip_suffix(suffix)?, shift)))
        .unwrap_or((text, 0));
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
}

fn shown(node: &Node) -> String {
    match &node.value {
        Value::Integer(number) => format!("`{number}`"),
        Value::Text(text) => format!("`{text}`"),
        _ => node.kind().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("1000", Some(1000)),
            ("512Ki", Some(512 << 10)),
            ("16Mi", Some(16 << 20)),
            ("1Gi", Some(1 << 30)),
            ("", None),
            ("Mi", None),
            ("+1Mi", None),
            ("1.5Gi", None),
            ("16MB", None),
            ("99999999999Gi", None),
        ] {
            assert_eq!(quantity(text), bytes, "{text}");
        }
    }
}

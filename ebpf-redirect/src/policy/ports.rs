//! Spans of ports as prefixes: a trie knows no other ranges.

/// The fewest prefixes that are the ports `first..=last`, in order: a port, and how many of its bits
/// matter.
pub(crate) fn prefixes(first: u16, last: u16) -> impl Iterator<Item = (u16, u32)> {
    let mut next = u32::from(first);
    std::iter::from_fn(move || {
        let left = (u32::from(last) + 1).checked_sub(next).filter(|left| *left > 0)?;
        // The largest power of two that `next` is a multiple of, and that is not too much.
        let host_bits = next.trailing_zeros().min(left.ilog2());
        let port = u16::try_from(next).ok()?;
        next += 1 << host_bits;
        Some((port, 16 - host_bits))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(first: u16, last: u16) -> Vec<(u16, u32)> {
        prefixes(first, last).collect()
    }

    #[test]
    fn a_span_is_as_few_prefixes_as_can_be() {
        assert_eq!(all(0, 65535), [(0, 0)]);
        assert_eq!(all(80, 80), [(80, 16)]);
        assert_eq!(all(32768, 65535), [(32768, 1)]);
        assert_eq!(all(1, 6), [(1, 16), (2, 15), (4, 15), (6, 16)]);
        assert_eq!(all(65535, 65535), [(65535, 16)]);
        assert_eq!(all(1, 65534).len(), 30);
    }

    #[test]
    fn prefixes_cover_their_span_and_nothing_else() {
        for (first, last) in [(0, 0), (1, 65535), (1023, 1025), (4095, 40_000), (53, 53), (7, 8)] {
            let mut next = u32::from(first);
            for (port, bits) in prefixes(first, last) {
                let count = 1 << (16 - bits);
                assert_eq!(u32::from(port), next);
                assert_eq!(next % count, 0, "{port}/{bits} has bits beyond its prefix");
                next += count;
            }
            assert_eq!(next, u32::from(last) + 1);
        }
    }
}

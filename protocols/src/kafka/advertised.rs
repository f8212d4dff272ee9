//! Addresses of brokers as clients are to see them.

/// What to say in place of the addresses that brokers give of themselves, so that clients come to the
/// proxy for each of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertised {
    /// Host and port as the broker says them, and as the client is told.
    pub brokers: Vec<((String, u16), (String, u16))>,
    /// What the client is told for every other broker; `None`: what the broker says.
    pub others: Option<(String, u16)>,
}

impl Advertised {
    /// What a client is told in place of this address.
    pub(super) fn of(&self, host: &[u8], port: i32) -> Option<(&str, u16)> {
        let is_it = |(known, number): &(String, u16)| {
            known.as_bytes() == host && i32::from(*number) == port
        };
        let found = self.brokers.iter().find(|(broker, _)| is_it(broker)).map(|(_, told)| told);
        // Where there is no broker, there is no address.
        let others = self.others.as_ref().filter(|_| !host.is_empty());
        found.or(others).map(|(host, port)| (host.as_str(), *port))
    }
}

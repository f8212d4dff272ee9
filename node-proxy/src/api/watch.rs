//! What happens, for one who watches: what was asked for, and nothing else.

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::{Watch, WatchType};
use crate::state::{Dated, News, NewsSender};

impl WatchType {
    /// What is shown unless something else is asked for: connections that go on are many, and as they
    /// should be.
    pub const USUAL: [Self; 2] = [Self::Drop, Self::Change];
}

/// One who watches.
pub(super) struct Watching {
    endpoint: Option<String>,
    /// What that endpoint is called, if it is there: the proxy knows no numbers.
    name: Option<String>,
    changes: Option<Receiver<Dated>>,
    dropped: Option<Receiver<Dated>>,
    opened: Option<Receiver<Dated>>,
    requests: Option<Receiver<Dated>>,
}

impl Watching {
    /// `name`: of the endpoint that is wanted.
    pub(super) fn new(wanted: Watch, name: Option<String>, news: &NewsSender) -> Self {
        let types = match wanted.types.as_slice() {
            [] => &WatchType::USUAL[..],
            types => types,
        };
        let flows = news.flows();
        Self {
            changes: types.contains(&WatchType::Change).then(|| news.listen()),
            dropped: types.contains(&WatchType::Drop).then(|| flows.dropped()),
            opened: types.contains(&WatchType::Open).then(|| flows.opened()),
            requests: types.contains(&WatchType::L7).then(|| flows.requests()),
            endpoint: wanted.endpoint,
            name,
        }
    }

    /// What happens next; `None`: nothing will. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Dated> {
        loop {
            let told = tokio::select! {
                told = receive(&mut self.changes) => told,
                told = receive(&mut self.dropped) => told,
                told = receive(&mut self.opened) => told,
                told = receive(&mut self.requests) => told,
            };
            let news = match told {
                Ok(news) => news,
                Err(RecvError::Lagged(count)) => Dated::now(News::Lost { count }),
                Err(RecvError::Closed) => return None,
            };
            if self.wants(&news.news) {
                return Some(news);
            }
        }
    }

    fn wants(&self, news: &News) -> bool {
        let Some(wanted) = &self.endpoint else { return true };
        let is = |name: &str, id: Option<u32>| {
            name == wanted
                || name.split_once('/').is_some_and(|(_, own)| own == wanted)
                || id.is_some_and(|id| wanted.parse() == Ok(id))
        };
        match news {
            News::Dropped(packet) | News::Opened(packet) => {
                is(packet.endpoint.as_deref().unwrap_or_default(), Some(packet.id))
            }
            News::Judged(request) => {
                let about = request.endpoint.as_deref().unwrap_or_default();
                is(about, None) || self.name.as_deref() == Some(about)
            }
            News::EndpointRealised { endpoint, id, .. }
            | News::EndpointFailed { endpoint, id, .. }
            | News::EndpointRemoved { endpoint, id } => is(endpoint, Some(*id)),
            News::PolicyRefused { endpoint, .. } => is(endpoint, None),
            // What was lost may have been about it.
            News::Lost { .. } | News::EventsLost { .. } => true,
            _ => false,
        }
    }
}

async fn receive(from: &mut Option<Receiver<Dated>>) -> Result<Dated, RecvError> {
    match from {
        Some(from) => from.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(endpoint: &str, id: u32) -> News {
        News::EndpointRemoved { endpoint: endpoint.to_owned(), id }
    }

    #[test]
    fn only_what_is_about_the_endpoint_is_told() {
        for (wanted, is_told) in [
            ("default/shop", true),
            ("shop", true),
            ("7", true),
            ("other/shop", false),
            ("8", false),
        ] {
            let watch = Watch { endpoint: Some(wanted.to_owned()), types: Vec::new() };
            let watching = Watching::new(watch, None, &NewsSender::default());
            assert_eq!(watching.wants(&removed("default/shop", 7)), is_told, "{wanted}");
            assert!(!watching.wants(&News::Synced));
            assert!(watching.wants(&News::EventsLost { count: 1 }));
        }
        assert!(Watching::new(Watch::default(), None, &NewsSender::default()).wants(&News::Synced));
    }

    #[test]
    fn connections_that_go_on_are_told_only_to_who_asks() {
        let news = NewsSender::default();
        let usual = Watching::new(Watch::default(), None, &news);
        assert!(usual.changes.is_some() && usual.dropped.is_some() && usual.opened.is_none());
        let asked = Watch { endpoint: None, types: vec![WatchType::Open] };
        let asked = Watching::new(asked, None, &news);
        assert!(asked.changes.is_none() && asked.dropped.is_none() && asked.opened.is_some());
    }
}

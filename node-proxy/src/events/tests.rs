//! Requests as those who watch hear of them.

use portreeve_core::guard::{Guard, GuardConfig, Peer};
use portreeve_core::observer::Observing;
use portreeve_policy::{Endpoint, Source};
use tokio::sync::broadcast::error::TryRecvError;

use super::*;

const POLICY: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: shop, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - toPorts:
    - ports: [{port: '80', protocol: TCP}]
      rules: {http: [{method: GET, path: /public/.*}]}
";

/// Something that tells `flows` of every request.
fn teller(flows: &Flows) -> Guard {
    let endpoint = Endpoint::new("shop", "default", "app=shop".parse().unwrap());
    let mut config = GuardConfig::new(endpoint, 80, vec![Source::new("shop.yaml", POLICY)]);
    config.observer = Observing::by(flows.clone());
    Guard::new(config).unwrap()
}

fn ask(guard: &Guard, path: &str) {
    let request = http::Request::get(path).header("host", "shop").body(()).unwrap();
    let peer = Peer::Address("10.1.2.3:99".parse().unwrap());
    let _ = guard.check(peer, &mut request.into_parts().0, None);
}

#[test]
fn a_request_is_told_while_somebody_listens_and_without_its_query() {
    let flows = Flows::default();
    let guard = teller(&flows);
    ask(&guard, "/nobody");
    let mut requests = flows.requests();
    flows.look_who_listens();
    ask(&guard, "/private?token=secret");
    let Ok(Dated { news: News::Judged(told), .. }) = requests.try_recv() else {
        panic!("nothing was told")
    };
    assert_eq!((&*told.verdict, &*told.reason), ("deny", "no_rule_allows"));
    assert_eq!(told.source.address, "10.1.2.3:99");
    let AskedNews::Http { method, host, path, .. } = &told.asked else { panic!("{told:?}") };
    assert_eq!([&**method, host, path], ["GET", "shop", "/private"]);
    assert_eq!(requests.try_recv(), Err(TryRecvError::Empty), "nobody listened before");
    assert!(Observer::is_wanted(&flows));
    drop(requests);
    flows.look_who_listens();
    assert!(!Observer::is_wanted(&flows), "requests cost nothing again");
}

#[test]
fn who_is_behind_loses_the_oldest_and_is_told_how_many() {
    let flows = Flows::default();
    let guard = teller(&flows);
    let mut requests = flows.requests();
    flows.look_who_listens();
    for number in 0..BEHIND + 5 {
        ask(&guard, &format!("/public/{number}"));
    }
    assert_eq!(requests.try_recv(), Err(TryRecvError::Lagged(5)));
    let Ok(Dated { news: News::Judged(told), .. }) = requests.try_recv() else {
        panic!("nothing was told")
    };
    let AskedNews::Http { path, .. } = &told.asked else { panic!("{told:?}") };
    assert_eq!(path, "/public/5");
}

#[test]
fn a_text_of_a_client_is_cut() {
    let flows = Flows::default();
    let guard = teller(&flows);
    let mut requests = flows.requests();
    flows.look_who_listens();
    ask(&guard, &format!("/public/{}", "x".repeat(5000)));
    let Ok(Dated { news: News::Judged(told), .. }) = requests.try_recv() else {
        panic!("nothing was told")
    };
    let AskedNews::Http { path, .. } = &told.asked else { panic!("{told:?}") };
    assert!(path.len() < 520 && path.ends_with('…'), "{path}");
}

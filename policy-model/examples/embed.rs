//! The policy engine in a program of one's own: load, ask, change, hear of changes.
//!
//! `cargo run -p portreeve-policy --example embed`

use std::error::Error;

use portreeve_policy::{
    Action, Endpoint, Engine, HttpRequest, Inspection, Options, Outcome, Peer, Protocol, Source,
    TrafficDirection,
};

const POLICY: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: shop, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '80', protocol: TCP}]
      rules: {http: [{method: GET, path: /public/.*}]}
";

/// The program's own idea of a request; the engine sees it borrowed.
struct Request<'a> {
    method: &'a str,
    path: &'a str,
}

impl HttpRequest for Request<'_> {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
    fn host(&self) -> &[u8] {
        b"shop"
    }
    fn header_values<'v>(&'v self, _: &'v str) -> impl Iterator<Item = &'v [u8]> {
        std::iter::empty()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut engine = Engine::new(Options::default());
    engine.subscribe(|change| {
        println!("revision {}: {} computed again", change.revision, change.endpoints.join(", "));
    });
    engine.upsert_endpoint(Endpoint::new("shop-1", "default", "app=shop".parse()?));
    engine.apply([Source::new("shop.yaml", POLICY)])?;

    // Who is not known is the world, and the policy says nothing of the world.
    ask(&engine, "10.0.0.7", &Request { method: "GET", path: "/public/a" })?;
    engine.upsert_peer("client-1", Peer::new(["10.0.0.7/32".parse()?], "app=client".parse()?));
    ask(&engine, "10.0.0.7", &Request { method: "GET", path: "/public/a" })?;
    ask(&engine, "10.0.0.7", &Request { method: "GET", path: "/private" })?;

    // What has errors changes nothing, and says all of them.
    let broken = POLICY.replace("endpointSelector", "endpointSelektor");
    if let Err(errors) = engine.apply([Source::new("broken.yaml", broken)]) {
        println!("{errors}");
    }
    ask(&engine, "10.0.0.7", &Request { method: "GET", path: "/public/a" })
}

fn ask(engine: &Engine, address: &str, request: &Request<'_>) -> Result<(), Box<dyn Error>> {
    let policy = engine.policy("shop-1").ok_or("no such workload")?;
    let who = policy.identify(address.parse()?);
    let verdict = policy.connection(TrafficDirection::Ingress, who, Protocol::Tcp, 80);
    let (allowed, rule) = match &verdict.action {
        Action::Inspect(Inspection::Http(rules)) => {
            let verdict = rules.decide(request, &mut |_| {});
            (verdict.outcome != Outcome::Deny, verdict.rule)
        }
        action => (matches!(action, Action::Allow), verdict.rule),
    };
    let by = rule.map_or("no rule".to_owned(), |rule| policy.rule(rule).section().to_owned());
    let answer = if allowed { "allowed" } else { "denied" };
    println!("{} {} from {}: {answer} by {by}", request.method, request.path, policy.labels(who));
    Ok(())
}

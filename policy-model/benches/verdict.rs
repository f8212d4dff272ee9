//! How long a verdict takes, and a change: at any number of rules.
#![expect(clippy::unwrap_used, reason = "a broken bench may panic")]
#![expect(missing_docs, reason = "criterion's macro writes a public function without any")]

mod requests;
mod rules;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use portreeve_policy::{
    Action, Directory, Endpoint, EndpointPolicy, Engine, HttpRules, Inspection, Options, Peer,
    Protocol, Repository, Source, TrafficDirection,
};

use self::requests::{Request, requests};
use self::rules::{Mix, document};

fn resolve(repository: &Repository) -> EndpointPolicy {
    let shop = Endpoint::new("shop", "default", "app=shop".parse().unwrap());
    let client = Peer::new(["10.0.0.1/32".parse().unwrap()], "app=client".parse().unwrap());
    let directory = Directory::from(vec![client]);
    EndpointPolicy::resolve(repository, &shop, &directory, &Options::default()).unwrap()
}

fn http_rules(mix: Mix, count: usize) -> std::sync::Arc<HttpRules> {
    let source = Source::new("bench.yaml", document(mix, count));
    let policy = resolve(&Repository::parse([source]).unwrap());
    let who = policy.identify([10, 0, 0, 1].into());
    let verdict = policy.connection(TrafficDirection::Ingress, who, Protocol::Tcp, 80);
    match verdict.action {
        Action::Inspect(Inspection::Http(rules)) => rules,
        _ => panic!("not inspected"),
    }
}

fn http_verdict(c: &mut Criterion) {
    for mix in Mix::ALL {
        let mut group = c.benchmark_group(format!("http_verdict/{}", mix.name()));
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        for count in [10, 1_000, 10_000] {
            let rules = http_rules(mix, count);
            let decide = |request: &Request| rules.decide(request, &mut |_| {});
            let fresh = requests(mix, count);
            let last = fresh.last().unwrap();
            group.bench_with_input(BenchmarkId::new("last_rule", count), last, |b, request| {
                b.iter(|| decide(black_box(request)));
            });
            let miss = Request::miss(mix);
            group.bench_with_input(BenchmarkId::new("miss", count), &miss, |b, request| {
                b.iter(|| decide(black_box(request)));
            });
            group.bench_with_input(BenchmarkId::new("fresh_paths", count), &fresh, |b, fresh| {
                let mut next = 0;
                b.iter(|| {
                    next = (next + 1) % fresh.len();
                    decide(black_box(&fresh[next]))
                });
            });
        }
        group.finish();
    }
}

fn l4_verdict(c: &mut Criterion) {
    let mut engine = engine_of(1_000, 10_000);
    engine.apply([policy(0, "80")]).unwrap();
    let policy = engine.policy("shop-0").unwrap();
    let peers: Vec<_> = (0..10_000_u32).map(|i| policy.identify(address(i))).collect();
    c.bench_function("l4_verdict", |b| {
        let mut next = 0;
        b.iter(|| {
            next = (next + 7) % peers.len();
            policy.connection(TrafficDirection::Ingress, black_box(peers[next]), Protocol::Tcp, 80)
        });
    });
    c.bench_function("identify", |b| {
        let mut next = 0;
        b.iter(|| {
            next = (next + 7) % 10_000;
            policy.identify(black_box(address(next)))
        });
    });
}

fn compile(c: &mut Criterion) {
    let mut group = c.benchmark_group("compile");
    group.sample_size(10);
    for mix in Mix::ALL {
        let text = document(mix, 10_000);
        group.bench_function(format!("read_10000_{}", mix.name()), |b| {
            b.iter_batched(
                || Source::new("bench.yaml", text.clone()),
                |source| Repository::parse([source]).unwrap(),
                BatchSize::LargeInput,
            );
        });
        let repository = Repository::parse([Source::new("bench.yaml", text)]).unwrap();
        group.bench_function(format!("resolve_10000_{}", mix.name()), |b| {
            b.iter(|| resolve(&repository));
        });
    }
    group.finish();
}

fn address(i: u32) -> std::net::IpAddr {
    std::net::Ipv4Addr::from(0x0a00_0000 + i).into()
}

fn policy(i: usize, port: &str) -> Source {
    Source::new(
        format!("p{i}.yaml"),
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p{i}, namespace: \
             default}}\nspec:\n  endpointSelector: {{matchLabels: {{app: shop}}}}\n  ingress:\n  - \
             fromEndpoints: [{{matchLabels: {{team: t{}}}}}]\n    toPorts: [{{ports: [{{port: '{port}', \
             protocol: TCP}}], rules: {{http: [{{path: /svc-{i}/.*}}]}}}}]\n",
            i % 1_000
        ),
    )
}

/// One workload, under so many policies, with so many identities around it.
fn engine_of(policies: usize, identities: u32) -> Engine {
    let mut engine = Engine::new(Options::default());
    for i in 0..identities {
        let labels = format!("app=a{i},team=t{}", i % 1_000).parse().unwrap();
        engine.upsert_peer(&format!("peer-{i}"), Peer::new([address(i).into()], labels));
    }
    engine.apply((0..policies).map(|i| policy(i, "80"))).unwrap();
    engine.upsert_endpoint(Endpoint::new("shop-0", "default", "app=shop".parse().unwrap()));
    engine
}

fn change(c: &mut Criterion) {
    let mut group = c.benchmark_group("change");
    group.sample_size(20);
    let mut engine = engine_of(1_000, 10_000);
    group.bench_function("one_policy_of_1000_with_10000_identities", |b| {
        let mut port = 8000;
        b.iter(|| {
            port = 8000 + (port + 1) % 1000;
            engine.apply([policy(500, &port.to_string())]).unwrap()
        });
    });
    group.bench_function("one_identity_more_and_less", |b| {
        let peer = Peer::new(["10.9.9.9/32".parse().unwrap()], "app=new,team=t5".parse().unwrap());
        b.iter(|| {
            engine.upsert_peer("new", peer.clone());
            engine.remove_peer("new")
        });
    });
    group.finish();
}

criterion_group!(benches, http_verdict, l4_verdict, change, compile);
criterion_main!(benches);

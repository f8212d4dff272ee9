//! Kafka through the sidecar: a real broker, and clients as they are: Java's, librdkafka, aiokafka,
//! kafka-python, kafkajs, franz-go. What each of them prints stands in `kafka/expected/`.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use portreeve_tests::kafka::{self, Broker};
use portreeve_tests::sidecar::{Setup, Sidecar};
use portreeve_tests::{Need, eventually, free_address, needed, peers, trial};

/// One broker behind one sidecar, for every test that does not break them.
struct World {
    sidecar: Sidecar,
    broker: Broker,
}

static WORLD: Mutex<Option<World>> = Mutex::new(None);

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let broker = [Need::Program("java"), Need::Fetched("kafka", "broker")];
    let with = |more: &[Need]| [&broker[..], more].concat();
    let python = with(&[Need::Program("python3"), Need::Fetched("kafka", "python")]);
    let node = with(&[Need::Program("node"), Need::Fetched("kafka", "node")]);
    let go = with(&[Need::Fetched("kafka", "go")]);
    let tests = vec![
        trial("java_client", &broker, java_client),
        trial("librdkafka", &python, || python_client("librdkafka", "rd")),
        trial("aiokafka_puts_many_topics_in_a_request", &python, || {
            python_client("aiokafka", "aio")
        }),
        trial("kafka_python", &python, || python_client("kafka-python", "kp")),
        trial("kafkajs", &node, kafkajs),
        trial("franz_go", &go, franz_go),
        trial("addresses_of_brokers_are_rewritten", &python, addresses_are_rewritten),
        trial("groups_and_patterns_of_topics", &python, groups_and_patterns),
        trial("a_broker_dies_and_comes_back", &python, broker_comes_back),
        trial("an_operator_sees_apis_topics_and_errors", &python, operator_sees),
    ];
    let conclusion = libtest_mimic::run(&arguments, tests);
    // A static is not dropped, and its processes would stay.
    drop(WORLD.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
    conclusion.exit();
}

/// Runs with the address of the sidecar and the broker's own.
fn with_world<R>(run: impl FnOnce(SocketAddr, SocketAddr) -> R) -> R {
    let (proxy, direct) = {
        let mut world = WORLD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let world = world.get_or_insert_with(|| {
            let listen = free_address();
            let broker = Broker::start(Some(listen));
            let sidecar = Setup::new(broker.address).listen(listen).policy(&policy()).start();
            World { sidecar, broker }
        });
        (world.sidecar.address, world.broker.direct)
    };
    run(proxy, direct)
}

/// What the clients may do: each its own topics.
fn policy() -> String {
    let mut rules = String::new();
    let mut rule = |what: &str| writeln!(rules, "        - {{{what}}}").expect("a string");
    let both = ["java", "java-compact", "java-again", "java-later", "java-shared", "seen"];
    let many = (0..1000).map(|n| format!("many-{n:04}"));
    for topic in both.into_iter().map(str::to_owned).chain(many) {
        rule(&format!("role: produce, topic: {topic}"));
        rule(&format!("role: consume, topic: {topic}"));
    }
    for client in ["rd", "aio", "kp", "js", "go"] {
        rule(&format!("role: produce, topic: {client}"));
        rule(&format!("role: consume, topic: {client}"));
    }
    for client in ["java", "aio", "kp"] {
        rule(&format!("role: consume, topic: {client}-readonly"));
        rule(&format!("role: produce, topic: {client}-writeonly"));
    }
    rule("apiKey: createtopics, topic: java-made");
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: kafka}}\n\
         spec:\n  endpointSelector: {{matchLabels: {{app: shop}}}}\n  ingress:\n  \
         - fromEndpoints: [{{matchLabels: {{app: client}}}}]\n    toPorts:\n    \
         - ports: [{{port: '80', protocol: TCP}}]\n      rules:\n        kafka:\n{rules}"
    )
}

fn assert_printed(name: &str, command: &mut Command) {
    peers::assert_printed("kafka", name, command);
}

fn java_client() {
    with_world(|proxy, direct| {
        let mut java = kafka::java();
        java.arg(peers::sources("kafka").join("JavaClient.java"));
        assert_printed("java", java.args([proxy.to_string(), direct.to_string()]));
    });
}

fn python(arguments: &[&str]) -> Command {
    let mut python = Command::new(needed("python3"));
    python.env("PYTHONPATH", peers::fetched("kafka").join("python"));
    python.arg(peers::sources("kafka").join("clients.py")).args(arguments);
    python
}

fn python_client(client: &str, topic: &str) {
    with_world(|proxy, _| {
        assert_printed(client, &mut python(&[client, &proxy.to_string(), topic, "secret"]));
    });
}

fn kafkajs() {
    with_world(|proxy, _| {
        // Node.js looks for packages beside the script.
        let folder = peers::fetched("kafka").join("node");
        let script = folder.join(format!("client-{}.js", std::process::id()));
        std::fs::copy(peers::sources("kafka").join("kafkajs.js"), &script).expect("a copy");
        let mut node = Command::new(needed("node"));
        assert_printed("kafkajs", node.arg(&script).args([&proxy.to_string(), "js", "secret"]));
        std::fs::remove_file(script).expect("removed");
    });
}

fn franz_go() {
    with_world(|proxy, _| {
        let mut client = Command::new(peers::fetched("kafka").join("go/franz"));
        assert_printed("franz-go", client.args([&proxy.to_string(), "go", "secret"]));
    });
}

/// A sidecar of its own before the broker of all, which tells clients of another.
fn rewriting(direct: SocketAddr, policy: &str) -> Sidecar {
    let listen = free_address();
    let advertised = format!("'*': '{listen}'");
    Setup::new(direct)
        .listen(listen)
        .listener(&format!("advertised: {{{advertised}}}"))
        .policy(policy)
        .start()
}

fn addresses_are_rewritten() {
    with_world(|_, direct| {
        let sidecar = rewriting(direct, &policy().replace("topic: rd}", "topic: rewritten}"));
        let proxy = sidecar.address.to_string();
        // The same as without: every broker that it is told of is behind the sidecar.
        assert_printed("librdkafka", &mut python(&["librdkafka", &proxy, "rewritten", "secret"]));
    });
}

fn groups_and_patterns() {
    let policy = "
apiVersion: portreeve.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: teams}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '80', protocol: TCP}]
      rules:
        kafka:
        - {role: produce, topicPattern: 'team-a\\..*'}
        - {role: consume, topicPattern: 'team-a\\..*', groupPattern: 'team-a-.*'}
        - {apiKey: listgroups, groupPattern: 'team-a-.*'}
        - {apiKey: describegroups, groupPattern: 'team-a-.*'}
        - {apiKey: consumergroupdescribe, groupPattern: 'team-a-.*'}
";
    with_world(|_, direct| {
        let sidecar = rewriting(direct, policy);
        let proxy = sidecar.address.to_string();
        assert_printed(
            "groups",
            &mut python(&["groups", &proxy, "team-a.orders", "team-b.orders"]),
        );
    });
}

fn broker_comes_back() {
    let listen = free_address();
    let mut broker = Broker::start(Some(listen));
    let policy = policy().replace("topic: rd}", "topic: lasting}");
    let _sidecar = Setup::new(broker.address).listen(listen).policy(&policy).start();
    let mut client = python(&["restart", &listen.to_string(), "lasting", ""]);
    let client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut client = client.spawn().expect("python runs");
    let mut input = client.stdin.take().expect("its input");
    let mut lines = BufReader::new(client.stdout.take().expect("its output")).lines();
    let mut round = || {
        writeln!(input, "20").expect("it listens");
        lines.next().expect("a line").expect("text")
    };
    assert_eq!(round(), "sent 20 acked 20 got 20 failed []");
    broker.kill();
    broker.revive();
    assert_eq!(round(), "sent 40 acked 40 got 40 failed []");
    drop(input);
    assert!(client.wait().expect("it ends").success());
}

fn operator_sees() {
    with_world(|_, direct| {
        let sidecar = rewriting(direct, &policy().replace("topic: aio", "topic: watched"));
        let mut client = python(&["aiokafka", &sidecar.address.to_string(), "watched", "secret"]);
        assert!(client.stderr(Stdio::null()).status().expect("it runs").success());
        let lines = eventually("the log", || {
            let lines = sidecar.logged(10);
            let split = |line: &&serde_json::Value| {
                line["api"] == "Produce"
                    && line["denied_topics"][0] == "watched-readonly"
                    && line["topics"][0] == "watched"
            };
            lines.iter().find(split).cloned().map(|split| (split, lines.clone()))
        });
        let (split, all) = lines;
        assert_eq!(split["verdict"], "deny", "{split}");
        assert_eq!(split["error"], "TOPIC_AUTHORIZATION_FAILED", "{split}");
        assert_eq!(split["role"], "produce", "{split}");
        assert!(all.iter().any(|line| line["api"] == "Fetch" && line["verdict"] == "allow"));
        for series in [
            "portreeve_kafka_requests_total{direction=\"ingress\",api=\"Produce\",role=\"produce\",verdict=\"deny\"}",
            "portreeve_kafka_topic_decisions_total{direction=\"ingress\",topic=\"watched\",role=\"produce\",verdict=\"allow\"}",
            "portreeve_kafka_topic_decisions_total{direction=\"ingress\",topic=\"watched-readonly\",role=\"produce\",verdict=\"deny\"}",
            "portreeve_kafka_responses_total{direction=\"ingress\",api=\"Produce\",error=\"TOPIC_AUTHORIZATION_FAILED\"}",
            "portreeve_kafka_request_duration_seconds_count{direction=\"ingress\",api=\"Fetch\"}",
        ] {
            assert!(sidecar.metric(series).is_some_and(|n| n > 0.0), "{series}");
        }
    });
}

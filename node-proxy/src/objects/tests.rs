//! What is read, and what is said of what can't be.

use std::time::Duration;

use portreeve_policy::{Protocol, Source, yaml};

use super::*;

fn one(text: &str) -> Object {
    let source = Source::new("o.yaml", text);
    let nodes = yaml::parse(&source).unwrap();
    let found = read(&source, &nodes[0]);
    found.object.unwrap_or_else(|| panic!("{:?}", found.diagnostics))
}

#[test]
fn a_workload_is_an_endpoint_when_it_is_attached_and_a_peer_when_not() {
    let Object::Workload(shop) = one("
apiVersion: portreeve.dev/v1alpha1
kind: Workload
metadata: {name: shop-1, namespace: prod, uid: x, labels: {app: shop, empty: }}
spec:
  addresses: [10.0.0.7, '::ffff:10.0.0.8', 'fd00::7']
  interface: veth7f3a
  namedPorts: [{name: HTTP, port: 8080}, {name: dns, port: 53, protocol: UDP}]
  limits: {bufferedBytes: 16Mi, cpuShare: 50}
")
    else {
        panic!()
    };
    assert_eq!(shop.attachment, Some(Attachment::Interface("veth7f3a".to_owned())));
    let addresses: Vec<_> = shop.addresses().map(|address| address.to_string()).collect();
    assert_eq!(addresses, ["10.0.0.7", "10.0.0.8", "fd00::7"]);
    assert_eq!(shop.labels.to_string(), "k8s:app=shop,k8s:empty");
    assert_eq!((shop.named_ports[0].name.as_str(), shop.named_ports[0].port), ("http", 8080));
    assert_eq!(shop.named_ports[1].protocol, Protocol::Udp);
    assert_eq!((shop.limits.buffered_bytes, shop.limits.cpu_share), (16 << 20, 50));
    assert_eq!(shop.limits.connections, portreeve_core::EndpointLimits::default().connections);

    let Object::Workload(node) = one("
apiVersion: portreeve.dev/v1alpha1
kind: Workload
metadata: {name: node-2, labels: {'reserved:remote-node': ''}}
spec: {addresses: [192.0.2.9/24], node: node-2}
")
    else {
        panic!()
    };
    assert_eq!((node.namespace.as_str(), &node.attachment), ("default", &None));
    assert_eq!(node.prefixes[0].to_string(), "192.0.2.0/24");
    assert_eq!(node.labels.to_string(), "reserved:remote-node");
}

#[test]
fn a_service_is_read_as_clusters_write_it() {
    let Object::Service(service) = one("
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: prod, labels: {app: shop}, managedFields: [{manager: kubectl}]}
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, 'fd00:96::10']
  ipFamilies: [IPv4, IPv6]
  selector: {app: shop}
  type: LoadBalancer
  externalIPs: [198.51.100.7]
  externalTrafficPolicy: Local
  internalTrafficPolicy: Cluster
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}
  ports:
  - {name: http, port: 80, targetPort: web, nodePort: 30080, protocol: TCP}
  - {name: dns, port: 53, protocol: UDP, nodePort: 0}
status: {loadBalancer: {ingress: [{ip: 198.51.100.8}, {hostname: lb.example}]}}
")
    else {
        panic!()
    };
    assert_eq!(service.cluster_addresses.len(), 2);
    assert_eq!(service.external_addresses, ["198.51.100.7".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(service.balancer_addresses, ["198.51.100.8".parse::<std::net::IpAddr>().unwrap()]);
    assert!(service.external_local && !service.internal_local);
    assert_eq!(service.affinity, Some(Duration::from_secs(60)));
    assert_eq!(service.ports[0].node_port, Some(30080));
    assert_eq!((service.ports[1].protocol, service.ports[1].node_port), (Protocol::Udp, None));

    let Object::Service(headless) = one("
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, clusterIPs: [None], sessionAffinity: ClientIP}
")
    else {
        panic!()
    };
    assert!(headless.cluster_addresses.is_empty());
    assert_eq!(headless.affinity, Some(Duration::from_secs(10_800)));
}

#[test]
fn a_service_says_how_its_backends_are_asked_whether_they_are_well() {
    let Object::Service(service) = one("
apiVersion: v1
kind: Service
metadata:
  name: shop
  annotations:
    example.com/owner: {not: ours}
    portreeve.dev/health-check: GET /healthz?full
    portreeve.dev/health-check-port: '8081'
    portreeve.dev/health-check-interval: 2s
    portreeve.dev/health-check-timeout: 500ms
    portreeve.dev/health-check-fall: '5'
    portreeve.dev/health-check-rise: '1'
spec: {externalTrafficPolicy: Local, healthCheckNodePort: 32100}
")
    else {
        panic!()
    };
    let check = HealthCheck {
        question: Question::Get("/healthz?full".to_owned()),
        port: Some(8081),
        interval: Duration::from_secs(2),
        timeout: Duration::from_millis(500),
        fall: 5,
        rise: 1,
    };
    assert_eq!((service.health_check, service.health_port), (Some(check), Some(32_100)));
    let Object::Service(service) = one("
apiVersion: v1
kind: Service
metadata: {name: shop, annotations: {portreeve.dev/health-check: tcp}}
spec: {healthCheckNodePort: 0}
")
    else {
        panic!()
    };
    let check = service.health_check.unwrap();
    assert_eq!(
        (check.question, check.port, check.fall, check.rise),
        (Question::Connect, None, 3, 2)
    );
    assert_eq!((check.interval, check.timeout), (Duration::from_secs(5), Duration::from_secs(1)));
    assert_eq!(service.health_port, None);
}

#[test]
fn conditions_that_are_not_said_follow_those_that_are() {
    let Object::EndpointSlice(slice) = one("
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: shop-1, labels: {kubernetes.io/service-name: shop}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: all, port: null}]
endpoints:
- {addresses: [10.0.0.1]}
- {addresses: [10.0.0.2], conditions: {ready: false}, nodeName: node-2}
- {addresses: [10.0.0.3], conditions: {ready: false, serving: true, terminating: true}}
")
    else {
        panic!()
    };
    assert_eq!((slice.service.as_str(), slice.ports.len()), ("shop", 1));
    let conditions: Vec<_> =
        slice.endpoints.iter().map(|e| (e.ready, e.serving, e.terminating)).collect();
    assert_eq!(conditions, [(true, true, false), (false, false, false), (false, true, true)]);
    assert_eq!(slice.endpoints[1].node.as_deref(), Some("node-2"));
}

#[test]
fn an_object_is_known_by_kind_namespace_and_name() {
    let key = |text: &str| {
        let source = Source::new("o.yaml", text);
        read(&source, &yaml::parse(&source).unwrap()[0]).key.map(|key| key.to_string())
    };
    let object = |kind: &str, metadata: &str| {
        key(&format!("apiVersion: v1\nkind: {kind}\nmetadata: {metadata}\n"))
    };
    for (kind, metadata, expected) in [
        ("Service", "{name: a}", "Service default/a"),
        ("Service", "{name: a, namespace: ''}", "Service default/a"),
        ("Namespace", "{name: a}", "Namespace a"),
        ("NetworkPolicy", "{name: a}", "NetworkPolicy default/a"),
        ("CiliumNetworkPolicy", "{name: a}", "CiliumNetworkPolicy a"),
        ("CiliumNetworkPolicy", "{name: a, namespace: b}", "CiliumNetworkPolicy b/a"),
        ("CiliumClusterwideNetworkPolicy", "{name: a}", "CiliumClusterwideNetworkPolicy a"),
    ] {
        assert_eq!(object(kind, metadata).as_deref(), Some(expected));
    }
    assert_eq!(object("Service", "{namespace: b}"), None);
}

//! The admin server: health, metrics, what is in force, and a few commands. On loopback unless
//! told otherwise; it shows policy and configuration, and no secret.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use portreeve_policy::TrafficDirection;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::control::{Command, Control, OnePolicy, Policies};
use crate::endpoints::Endpoints;
use crate::runtime::Stage;
use crate::telemetry::AccessLogMode;

/// Every endpoint, with what it is for.
pub const ENDPOINTS: [(&str, &str, &str); 8] = [
    ("GET", "/live", "200 while the process works"),
    ("GET", "/ready", "200 while connections are accepted, 503 while draining"),
    ("GET", "/metrics", "metrics in the OpenMetrics text format"),
    ("GET", "/policy", "what is in force, since when, and the last error"),
    ("GET", "/config_dump", "the configuration with every default"),
    ("POST", "/reload", "reads policy again; 200 with the revision, or 422 with the errors"),
    ("POST", "/drain", "stops accepting, ends when connections have ended"),
    ("POST", "/logging", "which requests are logged: `off`, `all` or `denied` as the body"),
];

/// Serves until the control thread ends.
pub(crate) async fn serve(listener: std::net::TcpListener, control: Arc<Control>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin server can't listen");
            return;
        }
    };
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin server can't accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let control = control.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let control = control.clone();
                async move { Ok::<_, Infallible>(answer(request, &control).await) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "admin connection");
            }
        });
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(request: Request<Incoming>, control: &Control) -> Answer {
    if let Some(refused) = from_a_browser(&request) {
        return refused;
    }
    let path = request.uri().path().to_owned();
    let Some((method, ..)) = ENDPOINTS.iter().find(|(_, known, _)| *known == path) else {
        return text(StatusCode::NOT_FOUND, list());
    };
    let asked = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
    if asked.as_str() != *method {
        return text(StatusCode::METHOD_NOT_ALLOWED, format!("{path} is for {method}\n"));
    }
    match path.as_str() {
        "/live" => text(StatusCode::OK, "live\n"),
        "/ready" => match control.is_ready() {
            true => text(StatusCode::OK, "ready\n"),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        },
        "/metrics" => metrics(control),
        "/policy" => as_json(&match &control.policies {
            Policies::One(one) => one.policy_status(),
            Policies::Many(endpoints, _) => endpoints_status(endpoints),
        }),
        "/config_dump" => match &control.policies {
            Policies::One(one) => as_json(&one.config_dump()),
            Policies::Many(..) => text(StatusCode::NOT_FOUND, "the proxy of a node has none\n"),
        },
        "/reload" => reload(control).await,
        "/drain" => drain(control),
        _ => logging(request, control).await,
    }
}

/// A page in a browser must not steer the proxy of the machine it is shown on: neither across
/// origins, nor by a name that it makes resolve to loopback.
fn from_a_browser(request: &Request<Incoming>) -> Option<Answer> {
    let origin = request.headers().contains_key(header::ORIGIN);
    let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = named.map_or("", |host| match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    });
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let known = bare == "localhost" || bare.is_empty() || bare.parse::<std::net::IpAddr>().is_ok();
    let changes = request.method() != Method::GET && request.method() != Method::HEAD;
    ((changes && origin) || !known).then(|| {
        text(
            StatusCode::FORBIDDEN,
            "the admin server answers to addresses and `localhost`, and not to web pages\n",
        )
    })
}

fn list() -> String {
    let mut list = String::from("there is no such endpoint; these are:\n");
    for (method, path, what) in ENDPOINTS {
        list.push_str(&format!("{method:4} {path:12} {what}\n"));
    }
    list
}

fn metrics(control: &Control) -> Answer {
    let (telemetry, ready) = (&control.telemetry, control.is_ready());
    let body = match &control.policies {
        Policies::One(one) => {
            let kernel = one.config.redirection.as_ref().and_then(|redirection| {
                let counters = redirection.counters();
                counters
                    .inspect_err(|error| {
                        tracing::warn!("can't read the kernel's counters: {error}")
                    })
                    .ok()
            });
            telemetry.render_metrics(&one.snapshots.load(), ready, kernel)
        }
        Policies::Many(endpoints, kernel) => {
            telemetry.render_node_metrics(endpoints, ready, kernel.read())
        }
    };
    let mut answer = text(StatusCode::OK, body);
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
    );
    answer
}

/// One workload's proxy drains and ends, and is started again. That of a node would leave its program
/// behind, and all workloads without anybody who reads what has to be read.
fn drain(control: &Control) -> Answer {
    if let Policies::One(_) = control.policies {
        let _ = control.commands.send(Command::Drain);
        return text(StatusCode::ACCEPTED, "draining\n");
    }
    let mut answer = text(
        StatusCode::METHOD_NOT_ALLOWED,
        "the proxy of a node drains when its daemon ends: send that SIGTERM\n",
    );
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(""));
    answer
}

async fn reload(control: &Control) -> Answer {
    let (sender, receiver) = oneshot::channel();
    let _ = control.commands.send(Command::Reload(Some(sender)));
    match receiver.await {
        Ok(Ok(revision)) => text(StatusCode::OK, format!("revision {revision} is in force\n")),
        Ok(Err(error)) => text(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("{error}\nthe old policy stays in force\n"),
        ),
        Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the proxy is about to end\n"),
    }
}

async fn logging(request: Request<Incoming>, control: &Control) -> Answer {
    let body = Limited::new(request.into_body(), 64).collect().await;
    let name = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned());
    match name.ok().and_then(|name| AccessLogMode::from_name(&name)) {
        Some(mode) => {
            control.telemetry.set_access_log_mode(mode);
            text(StatusCode::OK, format!("access log: {}\n", mode.as_str()))
        }
        None => text(StatusCode::BAD_REQUEST, "send `off`, `all` or `denied` as the body\n"),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, plain);
    answer
}

fn as_json(value: &Value) -> Answer {
    let mut answer = text(StatusCode::OK, format!("{value:#}\n"));
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}

impl Control {
    fn is_ready(&self) -> bool {
        *self.stage.borrow() == Stage::Running
    }
}

/// What is in force for each endpoint.
fn endpoints_status(endpoints: &Endpoints) -> Value {
    let status = endpoints.list().into_iter().map(|endpoint| {
        json!({
            "name": endpoint.name,
            "addresses": endpoint.addresses,
            "revision": endpoint.revision,
            "since": humantime::format_rfc3339_millis(endpoint.since).to_string(),
            "connections": endpoint.connections,
            "buffered_bytes": endpoint.buffered_bytes,
        })
    });
    json!({ "endpoints": status.collect::<Vec<_>>() })
}

impl OnePolicy {
    /// What is in force, since when, and the last error.
    fn policy_status(&self) -> Value {
        let status = self.loader.status();
        let snapshot = self.snapshots.load();
        let time = |time| humantime::format_rfc3339_millis(time).to_string();
        let policies: Vec<Value> = status
            .policies
            .iter()
            .map(|policy| {
                json!({
                    "kind": policy.name.kind,
                    "name": policy.name.to_string(),
                    "mode": format!("{:?}", policy.mode).to_lowercase(),
                    "rules": policy.rules,
                    "file": policy.source,
                    "line": policy.line,
                })
            })
            .collect();
        let rules = snapshot.policy.rules().iter().zip(snapshot.hits());
        let rules: Vec<Value> = rules
            .map(|(rule, hits)| json!({"policy": rule.policy(), "rule": rule.section(), "hits": hits}))
            .collect();
        let last_error =
            status.last_error.map(|(at, error)| json!({"time": time(at), "error": error}));
        json!({
            "revision": snapshot.revision,
            "since": time(snapshot.since),
            "enforced": {
                "ingress": snapshot.policy.is_enforced(TrafficDirection::Ingress),
                "egress": snapshot.policy.is_enforced(TrafficDirection::Egress),
            },
            "policies": policies,
            "rules": rules,
            "warnings": status.warnings,
            "last_error": last_error,
        })
    }

    /// The configuration as it is in force.
    fn config_dump(&self) -> Value {
        let config = &self.config;
        let seconds = |limit: Option<Duration>| limit.map(|limit| limit.as_secs_f64());
        let limits = &config.limits;
        let listeners: Vec<Value> = config
            .listeners
            .iter()
            .map(|listener| {
                json!({
                    "name": listener.name,
                    "direction": listener.direction.as_str(),
                    "listen": listener.listen.to_string(),
                    "upstream": format!("{:?}", listener.upstream),
                    "policy_port": listener.policy_port,
                })
            })
            .collect();
        let peers: Vec<Value> = config
            .peers
            .iter()
            .map(|peer| {
                let prefixes: Vec<String> = peer.prefixes.iter().map(ToString::to_string).collect();
                json!({"prefixes": prefixes, "labels": peer.labels.to_string()})
            })
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "workload": {
                "name": config.endpoint.name,
                "namespace": config.endpoint.namespace,
                "labels": config.endpoint.labels.to_string(),
            },
            "listeners": listeners,
            "peers": peers,
            "policy": {
                "paths": config.policy.files().map(|files| &files.paths),
                "watch": config.policy.files().is_some_and(|files| files.watch),
                "enforcement": format!("{:?}", config.options.enforcement).to_lowercase(),
                "mode": if config.options.audit { "audit" } else { "enforce" },
            },
            "limits": {
                "connections": limits.connections,
                "header_timeout_seconds": seconds(limits.header_timeout),
                "body_timeout_seconds": seconds(limits.body_timeout),
                "idle_timeout_seconds": seconds(limits.idle_timeout),
                "connect_timeout_seconds": limits.connect_timeout.as_secs_f64(),
                "tunnel_timeout_seconds": seconds(limits.tunnel_timeout),
                "drain_timeout_seconds": limits.drain_timeout.as_secs_f64(),
                "head_bytes": limits.http1.head_bytes,
                "headers": limits.http1.headers,
                "target_bytes": limits.http1.target_bytes,
                "pipelined": limits.http1.pipelined,
                "drained_bytes": limits.http1.drained_bytes,
                "http2_streams": limits.http2.streams,
                "http2_stream_window": limits.http2.stream_window,
                "http2_connection_window": limits.http2.connection_window,
                "http2_send_buffer": limits.http2.send_buffer,
                "http2_control_frames": limits.http2.control_frames,
                "http2_cancelled_streams": limits.http2.cancelled_streams,
                "http2_stall_timeout_seconds": seconds(limits.http2_stall_timeout),
                "kafka_frame_bytes": limits.kafka.frame_bytes,
                "kafka_held_bytes": limits.kafka.held_bytes,
                "kafka_in_flight": limits.kafka.in_flight,
                "kafka_topics": limits.kafka.topics,
            },
            "redirection": config.redirection.is_some(),
            "access_log": self.telemetry.access_log_mode().as_str(),
            "workers": config.workers,
        })
    }
}

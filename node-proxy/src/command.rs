//! The command line: what each command does, and how the process ends.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::api::{Client, ClientError, Request, Watch};
use crate::cli::{
    AskArguments, AskEndpointArguments, BpfArguments, Cli, Command, ConfigCommand, EndpointCommand,
    IdentityCommand, MonitorArguments, Output, PolicyCommand, ServiceCommand,
};
use crate::datapath::Table;
use crate::source::Folder;
use crate::{config, daemon, detach, render};

/// Runs `portreeve-node`.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(arguments) => daemon::run(&arguments),
        Command::Status(ask) => show(&ask, &Request::Status, render::status),
        Command::Endpoint(EndpointCommand::List(ask)) => {
            show(&ask, &Request::EndpointList, render::endpoints)
        }
        Command::Endpoint(EndpointCommand::Get(AskEndpointArguments { endpoint, ask })) => {
            show(&ask, &Request::EndpointGet { endpoint }, render::endpoint)
        }
        Command::Policy(PolicyCommand::Get(AskEndpointArguments { endpoint, ask })) => {
            show(&ask, &Request::PolicyGet { endpoint }, render::policy)
        }
        Command::Service(ServiceCommand::List(ask)) => {
            show(&ask, &Request::ServiceList, render::services)
        }
        Command::Identity(IdentityCommand::List(ask)) => {
            show(&ask, &Request::IdentityList, render::identities)
        }
        Command::Bpf(bpf) => list(*bpf),
        Command::Detach(arguments) => detach::run(&arguments),
        Command::Monitor(arguments) => monitor(arguments),
        Command::Config(ConfigCommand::Example) => print(config::EXAMPLE).map(drop),
        Command::Config(ConfigCommand::Check { file }) => check(&file),
        Command::Version => {
            print(concat!("portreeve-node ", env!("CARGO_PKG_VERSION"), "\n")).map(drop)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// Why the process ends, and with which code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Failure {
    /// Something went wrong.
    pub(crate) fn new(message: impl std::fmt::Display) -> Self {
        Self { code: 1, message: format!("error: {message}") }
    }

    /// The command line is to be mended.
    pub(crate) fn usage(message: String) -> Self {
        Self { code: 2, message }
    }

    /// The configuration, the objects or the kept state are to be mended; the message says where.
    pub(crate) fn config(message: impl std::fmt::Display) -> Self {
        Self { code: 78, message: message.to_string() }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = if matches!(error, ClientError::NotRunning { .. }) { 3 } else { 1 };
        Self { code, message: format!("error: {error}") }
    }
}

/// Prints to standard output. Whether anybody still reads it: one who has seen enough is no failure.
pub(crate) fn print(text: &str) -> Result<bool, Failure> {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(error)),
        Ok(()) => Ok(true),
    }
}

/// Asks, and prints the answer.
fn show(
    ask: &AskArguments,
    request: &Request,
    render: fn(&serde_json::Value) -> String,
) -> Result<(), Failure> {
    let answer = Client::connect(&ask.socket)?.ask(request)?;
    let text = match ask.output {
        Output::Table => render(&answer),
        Output::Json => render::as_json(&answer),
    };
    print(&text).map(drop)
}

/// `bpf … list`.
fn list(
    BpfArguments { table, action: _, endpoint, limit, ask }: BpfArguments,
) -> Result<(), Failure> {
    if endpoint.is_some() && !Table::from(table).has_endpoints() {
        return Err(Failure::usage(
            "error: nothing of this table is one endpoint's\n  hint: `--endpoint` is for `policy` and `ct`"
                .to_owned(),
        ));
    }
    show(&ask, &Request::BpfList { table, endpoint, limit }, render::listing)
}

fn monitor(MonitorArguments { endpoint, types, ask }: MonitorArguments) -> Result<(), Failure> {
    let mut client = Client::connect(&ask.socket)?;
    client.send(&Request::Monitor(Watch { endpoint, types }))?;
    while let Some(mut news) = client.next()? {
        // Beside what is printed for each thing that happens.
        if let Some(note) = news.as_object_mut().and_then(|news| news.remove("note")) {
            eprintln!("note: {}", note.as_str().unwrap_or_default());
        }
        let line = match ask.output {
            Output::Table => render::news(&news),
            Output::Json => format!("{news}\n"),
        };
        if !print(&line)? {
            return Ok(());
        }
    }
    Err(Failure::new("the daemon has ended"))
}

/// `portreeve-node config check`.
fn check(file: &std::path::Path) -> Result<(), Failure> {
    let config = config::from_file(file)?;
    let mut folder = Folder::new(&config.objects);
    let batch = folder.read().map_err(|error| Failure::config(format!("error: {error}")))?;
    let objects = batch.events.len();
    let of_objects = batch.events.into_iter().flat_map(|event| event.diagnostics);
    let found: Vec<_> =
        batch.unreadable.into_iter().chain(batch.doubles).chain(of_objects).collect();
    for diagnostic in &found {
        eprintln!("{diagnostic}\n");
    }
    let is_error =
        |d: &&portreeve_policy::Diagnostic| d.severity == portreeve_policy::Severity::Error;
    match found.iter().filter(is_error).count() {
        0 => print(&format!("{}: good, {objects} objects\n", file.display())).map(drop),
        1 => Err(Failure::config("1 error; nothing was changed")),
        errors => Err(Failure::config(format!("{errors} errors; nothing was changed"))),
    }
}

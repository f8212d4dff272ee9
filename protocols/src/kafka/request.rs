//! What the gate shows its driver: requests as borrowed views, and what became of them.

use super::refusal::Refusal;

/// A request whose header has been read, borrowed from the input.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The API's number.
    pub api_key: i16,
    /// The API's name: `Produce`.
    pub api: &'static str,
    /// The API's version.
    pub version: i16,
    /// What the client calls itself; empty if it does not.
    pub client_id: &'a [u8],
    /// The client's own number for the request.
    pub correlation_id: i32,
    /// Who uses this API.
    pub role: Role,
}

/// What an API is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Writing records.
    Produce,
    /// Reading records.
    Consume,
    /// Every client needs it.
    Connection,
    /// Administration.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Produce, Self::Consume, Self::Connection, Self::Admin];

    /// `produce`, `consume`, `connection`, `admin`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Consume => "consume",
            Self::Connection => "connection",
            Self::Admin => "admin",
        }
    }
}

/// What of a request is to be judged: one topic, one group, or all of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// The topic, if this is about one.
    pub topic: Option<&'a [u8]>,
    /// The group, if the request is about one.
    pub group: Option<&'a [u8]>,
    /// It is about every topic there is, though requests of its kind need not be about topics.
    pub everything: bool,
}

/// How a request was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is forwarded.
    Allowed,
    /// What is allowed of it is forwarded, and the rest answered with an error.
    Partly,
    /// It asks for everything that there is, and is answered with what may be seen.
    Filtered,
    /// Nothing of it is forwarded.
    Denied,
}

/// A request that was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// How.
    pub outcome: Outcome,
    /// The error that the client is told; 0 if none. See "Error Codes" in Kafka's protocol guide.
    pub error: i16,
    /// Whether there will be an answer; produce requests with `acks=0` have none.
    pub answered: bool,
    /// Bytes of the request.
    pub bytes: u64,
}

/// What the gate asks of its driver.
///
/// For each request, in order: [`Handler::begin`], then what it is about by [`Handler::allows`], then
/// [`Handler::decided`], and when it has been answered [`Handler::finished`]. A request may begin anew
/// before it is decided, when the names of its topics had to be looked up.
pub trait Handler {
    /// A request has been read.
    fn begin(&mut self, request: &Request<'_>);
    /// Whether policy allows this of the request that has begun.
    fn allows(&mut self, subject: &Subject<'_>) -> bool;
    /// Whether policy would allow the request that has begun for some topic, of those it has not
    /// named.
    fn may(&mut self, subject: &Subject<'_>) -> bool;
    /// The request that has begun is decided.
    fn decided(&mut self, decided: &Decided);
    /// Whether the answer to `request`, which has been forwarded, may tell of this.
    fn shows(&mut self, request: &Request<'_>, subject: &Subject<'_>) -> bool;
    /// The oldest request that was decided has been answered.
    fn finished(&mut self, exchange: &Exchange);
    /// The client or the broker broke the protocol or a limit; the connection ends.
    fn refused(&mut self, refusal: Refusal);
    /// Whether policy allows some groups and not others, so that a list of all of them is to be
    /// looked through.
    fn distinguishes_groups(&self) -> bool;
    /// A number that changes when policy does.
    fn revision(&self) -> u64;
}

/// One request and its response, when both have passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The first error in the response; 0: none. Of the responses to Fetch, and of those over
    /// 64 KiB, no more than the beginning is looked at.
    pub error: i16,
    /// Whether the gate wrote the response itself.
    pub local: bool,
    /// Bytes sent to the client.
    pub response_bytes: u64,
}

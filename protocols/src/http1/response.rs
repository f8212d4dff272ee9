//! Reading a response's head: enough to know where the response ends, and that both sides agree.

use std::mem::MaybeUninit;

use super::head::{self, Body, Fields, Section, Seen};
use super::limits::Limits;
use super::refusal::Refusal;

/// A response's head.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResponseHead {
    /// Bytes of the head.
    pub(super) length: usize,
    pub(super) status: u16,
    pub(super) body: Body,
    /// It switches to WebSocket (status 101).
    pub(super) websocket: bool,
}

/// Reads the head of a response, if it is complete. `to_head`: the request was HEAD.
pub(super) fn read(
    input: &[u8],
    to_head: bool,
    limits: &Limits,
) -> Result<Option<ResponseHead>, Refusal> {
    let length = match head::find_end(input, 0, limits) {
        Ok(Section::Complete(length)) => length,
        Ok(Section::Partial(_)) => return Ok(None),
        Err(_) => return Err(Refusal::ResponseHead),
    };
    let mut fields: Fields<'_> = [const { MaybeUninit::uninit() }; Limits::MAX_HEADERS as usize];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let complete = config
        .parse_response_with_uninit_headers(&mut parsed, &input[..length], &mut fields)
        .map_err(|_| Refusal::ResponseHead)?;
    let (httparse::Status::Complete(read), Some(status)) = (complete, parsed.code) else {
        return Err(Refusal::ResponseHead);
    };
    if read != length || !(100..=999).contains(&status) {
        return Err(Refusal::ResponseHead);
    }
    let seen = Seen::of_response(parsed.headers).map_err(|refusal| match refusal {
        Refusal::LengthRepeated | Refusal::EncodingRepeated => Refusal::ResponseFraming,
        _ => Refusal::ResponseHead,
    })?;
    // RFC 9112 section 6.3, items 1 and 2: these have no body.
    let bodiless = to_head || status < 200 || status == 204 || status == 304;
    let body = if bodiless { Body::Length(0) } else { seen.response_body()? };
    let websocket = seen.options.upgrade && seen.upgrade.eq_ignore_ascii_case(b"websocket");
    Ok(Some(ResponseHead { length, status, body, websocket }))
}

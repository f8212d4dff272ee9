//! Frames counted as they arrive, before anything else looks at them: those that carry nothing are
//! paid for by those that do, and a head's bytes have an end.
//!
//! The `h2` crate applies a bound on heads only once the peer has acknowledged it, and bounds no rate
//! of frames that need little work each. Both are bounded here, for either side.

use super::Limits;
use super::refusal::Refusal;

/// Bytes of a frame's header (RFC 9113 section 4.1).
const FRAME_HEADER: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// Set on the last frame of a stream.
const END_STREAM: u8 = 1;

/// Set on the last frame of a head.
const END_HEADERS: u8 = 4;

/// What a frame that carries something gives to those that don't: a few window updates, a ping.
const EARNED: u32 = 4;

/// Budget that comes with time, a second.
const EARNED_A_SECOND: u32 = 50;

/// CONTINUATION frames of one head: a head within its limit needs two or three.
const CONTINUATIONS: u16 = 16;

/// Watches the frames that one peer sends.
#[derive(Debug)]
pub struct Meter {
    /// Bytes of the preface that are still to come; those of a server: none.
    preface: u8,
    header: [u8; FRAME_HEADER],
    /// Bytes of `header` that have come.
    have: u8,
    /// Payload of the frame under way that is still to come.
    payload: u32,
    /// Of the head under way.
    block: u64,
    continuations: u16,
    /// A head has begun and is not complete.
    in_head: bool,
    /// `budget <= most`.
    budget: u32,
    most: u32,
    block_limit: u64,
    from_server: bool,
    /// Frames whose header has come; more than two are not told apart.
    frames: u8,
}

impl Meter {
    /// For what a client sends, from its preface on.
    #[must_use]
    pub fn of_client(limits: &Limits) -> Self {
        let preface = u8::try_from(super::PREFACE.len()).unwrap_or_default();
        Self { preface, from_server: false, ..Self::of_server(limits) }
    }

    /// For what a server sends.
    #[must_use]
    pub fn of_server(limits: &Limits) -> Self {
        Self {
            preface: 0,
            header: [0; FRAME_HEADER],
            have: 0,
            payload: 0,
            block: 0,
            continuations: 0,
            in_head: false,
            budget: limits.control_frames,
            most: limits.control_frames,
            // On the wire heads are smaller than what they say; twice the bound is no head at all.
            block_limit: 2 * u64::from(limits.head_bytes),
            from_server: true,
            frames: 0,
        }
    }

    /// So many frames with something in them went the other way: window updates will come for them.
    pub fn earn(&mut self, frames: u32) {
        let earned = frames.saturating_mul(EARNED);
        self.budget = self.budget.saturating_add(earned).min(self.most);
    }

    /// Time has passed.
    pub fn earn_by_time(&mut self, millis: u64) {
        let earned = millis.saturating_mul(EARNED_A_SECOND.into()) / 1000;
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        self.budget = self.budget.saturating_add(earned).min(self.most);
    }

    /// A head has begun and is not complete: so much of it has come, and no more.
    #[must_use]
    pub fn in_head(&self) -> bool {
        self.in_head || (matches!(self.header[3], HEADERS | CONTINUATION) && self.payload > 0)
    }

    /// The first frame, which is the peer's SETTINGS (RFC 9113 section 3.4), has come whole.
    #[must_use]
    pub fn has_settings(&self) -> bool {
        self.frames > 1 || (self.frames == 1 && self.payload == 0)
    }

    /// Looks at the next bytes from the peer.
    ///
    /// # Errors
    /// When the connection is to be ended.
    pub fn look(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        let preface = bytes.len().min(self.preface.into());
        self.preface -= u8::try_from(preface).unwrap_or(self.preface);
        bytes = &bytes[preface..];
        while !bytes.is_empty() {
            let passed = bytes.len().min(self.payload as usize);
            self.payload -= u32::try_from(passed).unwrap_or(self.payload);
            bytes = &bytes[passed..];
            let have = usize::from(self.have);
            let n = bytes.len().min(FRAME_HEADER - have);
            self.header[have..have + n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            self.have += u8::try_from(n).unwrap_or_default();
            if usize::from(self.have) == FRAME_HEADER {
                self.have = 0;
                self.frame()?;
            }
        }
        Ok(())
    }

    /// A frame's header is complete.
    fn frame(&mut self) -> Result<(), Refusal> {
        let [a, b, c, kind, flags, ..] = self.header;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.payload = length;
        self.frames = self.frames.saturating_add(1).min(2);
        match kind {
            HEADERS | CONTINUATION => self.head(kind, length, flags),
            DATA if length > 0 || flags & END_STREAM != 0 => {
                self.earn(1);
                Ok(())
            }
            _ => self.spend(),
        }
    }

    fn head(&mut self, kind: u8, length: u32, flags: u8) -> Result<(), Refusal> {
        if kind == HEADERS {
            (self.block, self.continuations) = (0, 0);
            self.earn(1);
        } else {
            self.continuations += 1;
        }
        self.block += u64::from(length);
        if self.block > self.block_limit || self.continuations > CONTINUATIONS {
            return Err(match self.from_server {
                true => Refusal::ResponseHeaderFlood,
                false => Refusal::HeaderFlood,
            });
        }
        self.in_head = flags & END_HEADERS == 0;
        if self.in_head { self.spend() } else { Ok(()) }
    }

    fn spend(&mut self) -> Result<(), Refusal> {
        match self.budget.checked_sub(1) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None if self.from_server => Err(Refusal::ResponseFlood),
            None => Err(Refusal::ControlFlood),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::PREFACE;

    const PING: u8 = 6;
    const SETTINGS: u8 = 4;

    fn frame(kind: u8, flags: u8, length: u32) -> Vec<u8> {
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
        bytes.resize(bytes.len() + length as usize, 0);
        bytes
    }

    fn client() -> Meter {
        let mut meter = Meter::of_client(&Limits { control_frames: 10, ..Limits::default() });
        meter.look(PREFACE).expect("the preface");
        meter
    }

    /// How many of these frames pass, in pieces of every size alike.
    fn pass(frames: &[Vec<u8>]) -> usize {
        let count = |piece: usize| {
            let mut meter = client();
            let passes =
                |frame: &&Vec<u8>| frame.chunks(piece).all(|chunk| meter.look(chunk).is_ok());
            frames.iter().take_while(passes).count()
        };
        let counts: Vec<usize> = [1, 2, 3, 8, 9, 10, 100].map(count).to_vec();
        assert!(counts.iter().all(|n| *n == counts[0]), "{counts:?}");
        counts[0]
    }

    #[test]
    fn frames_that_carry_nothing_have_an_end() {
        for kind in [PING, SETTINGS, 2, 3, 8, 0xfe] {
            assert_eq!(pass(&vec![frame(kind, 0, 8); 100]), 10, "{kind}");
        }
        assert_eq!(pass(&vec![frame(DATA, 0, 0); 100]), 10);
    }

    #[test]
    fn frames_that_carry_something_pay_for_others() {
        let mut frames = Vec::new();
        for _ in 0..1000 {
            frames.extend([frame(DATA, 0, 5), frame(8, 0, 4), frame(8, 0, 4), frame(PING, 0, 8)]);
        }
        assert_eq!(pass(&frames), frames.len());
    }

    #[test]
    fn time_and_answers_pay_for_frames() {
        let mut meter = client();
        for _ in 0..10 {
            meter.look(&frame(PING, 0, 8)).expect("within the budget");
        }
        assert_eq!(meter.look(&frame(PING, 0, 8)), Err(Refusal::ControlFlood));
        meter.earn_by_time(20);
        meter.look(&frame(PING, 0, 8)).expect("paid by time");
        meter.earn(1);
        meter.look(&frame(8, 0, 4)).expect("paid by an answer");
    }

    #[test]
    fn a_head_has_an_end_in_bytes_and_in_frames() {
        let mut frames = vec![frame(HEADERS, 0, 100)];
        frames.extend(vec![frame(CONTINUATION, 0, 16_000); 100]);
        assert_eq!(pass(&frames), 5);
        let mut frames = vec![frame(HEADERS, 0, 100)];
        frames.extend(vec![frame(CONTINUATION, 0, 0); 100]);
        assert!(pass(&frames) <= usize::from(CONTINUATIONS) + 1);
    }
}

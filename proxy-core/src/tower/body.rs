//! The body of an answer: the service's own, or a short text of the policy's.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};

pin_project_lite::pin_project! {
    /// The body of an answer from behind a policy.
    #[derive(Debug)]
    pub struct PolicyBody<R> {
        #[pin]
        kind: Kind<R>,
    }
}

pin_project_lite::pin_project! {
    #[project = Projected]
    #[derive(Debug)]
    enum Kind<R> {
        Forwarded { #[pin] body: R },
        /// What is still to be sent.
        Own { text: &'static str },
    }
}

impl<R> PolicyBody<R> {
    pub(super) fn forwarded(body: R) -> Self {
        Self { kind: Kind::Forwarded { body } }
    }

    pub(super) fn own(text: &'static str) -> Self {
        Self { kind: Kind::Own { text } }
    }
}

impl<R> Default for PolicyBody<R> {
    fn default() -> Self {
        Self::own("")
    }
}

impl<R> Body for PolicyBody<R>
where
    R: Body,
    R::Data: From<&'static str>,
{
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        match self.project().kind.project() {
            Projected::Forwarded { body } => body.poll_frame(context),
            Projected::Own { text } => match std::mem::take(text) {
                "" => Poll::Ready(None),
                text => Poll::Ready(Some(Ok(Frame::data(text.into())))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Forwarded { body } => body.is_end_stream(),
            Kind::Own { text } => text.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Forwarded { body } => body.size_hint(),
            Kind::Own { text } => SizeHint::with_exact(text.len() as u64),
        }
    }
}

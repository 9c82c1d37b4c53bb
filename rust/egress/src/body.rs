//! Bodies, both ways: counted, bounded in time, and searched for secrets on the way back.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::refusal::{Reason, Refusal};
use crate::scrub::Stream;

/// Where the request's body leaves what went wrong: the connection only says that something did.
pub(crate) type Fault = Arc<OnceLock<Refusal>>;

/// The body of a request, exactly as long as it says.
pub(crate) struct Sent<B> {
    inner: Pin<Box<B>>,
    /// What is left of the length, or of the bound where none is given.
    left: u64,
    length: Option<u64>,
    fault: Fault,
}

impl<B: Body<Data = Bytes>> Sent<B> {
    /// Takes the length from `declared` (a `content-length`) or from the body itself.
    ///
    /// # Errors
    /// `body_length` when the two differ, `request_too_large` over `most` bytes.
    pub(crate) fn new(inner: B, declared: Option<u64>, most: u64) -> Result<Self, Refusal> {
        let known = inner.size_hint().exact();
        if declared.zip(known).is_some_and(|(declared, known)| declared != known) {
            return Err(unequal());
        }
        let length = declared.or(known);
        if length.is_some_and(|length| length > most) {
            return Err(too_large(Reason::RequestTooLarge, "a request"));
        }
        let left = length.unwrap_or(most);
        Ok(Self { inner: Box::pin(inner), left, length, fault: Fault::default() })
    }

    pub(crate) fn fault(&self) -> Fault {
        Arc::clone(&self.fault)
    }

    fn count(&mut self, bytes: usize) -> Result<(), Refusal> {
        match self.left.checked_sub(bytes as u64) {
            Some(left) => self.left = left,
            None if self.length.is_some() => return Err(unequal()),
            None => return Err(too_large(Reason::RequestTooLarge, "a request")),
        }
        Ok(())
    }

    fn fail<T>(&self, refusal: Refusal) -> Poll<Option<Result<T, Refusal>>> {
        let _ = self.fault.set(refusal.clone());
        Poll::Ready(Some(Err(refusal)))
    }
}

impl<B: Body<Data = Bytes>> Body for Sent<B> {
    type Data = Bytes;
    type Error = Refusal;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Refusal>>> {
        match ready!(self.inner.as_mut().poll_frame(context)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => match self.count(data.len()) {
                    Ok(()) => Poll::Ready(Some(Ok(Frame::data(data)))),
                    Err(refusal) => self.fail(refusal),
                },
                Err(_) => {
                    let detail = "a request has no trailers; send the fields as headers";
                    self.fail(Refusal::new(Reason::HeaderRefused, detail))
                }
            },
            Some(Err(_)) => {
                let detail = "the body of the request could not be read to its end";
                self.fail(Refusal::new(Reason::BodyFailed, detail))
            }
            None if self.length.is_some() && self.left > 0 => self.fail(unequal()),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.length == Some(0) || (self.length.is_none() && self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self.length {
            // What is left is what hyper asks for before the first byte, the whole.
            Some(_) => SizeHint::with_exact(self.left),
            None => SizeHint::default(),
        }
    }
}

/// The body of an answer. It ends with an error when it is too long or too slow, and holds its
/// connection until it is dropped or the time is over.
pub struct Answered {
    inner: Incoming,
    stream: Stream,
    left: u64,
    deadline: Pin<Box<Sleep>>,
    fault: Fault,
    ended: bool,
    _connection: Connection,
}

/// A connection and its place among those that may be open; both end here.
pub(crate) struct Connection {
    pub(crate) task: AbortHandle,
    pub(crate) _place: OwnedSemaphorePermit,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Answered {
    pub(crate) fn new(
        inner: Incoming,
        stream: Stream,
        most: u64,
        deadline: Instant,
        fault: Fault,
        connection: Connection,
    ) -> Self {
        let deadline = Box::pin(sleep_until(deadline));
        Self { inner, stream, left: most, deadline, fault, ended: false, _connection: connection }
    }

    fn end(&mut self, refusal: Refusal) -> Poll<Option<Result<Frame<Bytes>, Refusal>>> {
        self.ended = true;
        Poll::Ready(Some(Err(refusal)))
    }
}

impl Body for Answered {
    type Data = Bytes;
    type Error = Refusal;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Refusal>>> {
        while !self.ended {
            if self.deadline.as_mut().poll(context).is_ready() {
                return self.end(Refusal::deadline());
            }
            let piece = match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => match self.left.checked_sub(data.len() as u64) {
                        Some(left) => {
                            self.left = left;
                            self.stream.push(data)
                        }
                        None => return self.end(too_large(Reason::ResponseTooLarge, "an answer")),
                    },
                    // Trailers are not passed on: nothing here reads them.
                    Err(_) => continue,
                },
                Some(Err(_)) => {
                    let refusal = self.fault.get().cloned().unwrap_or_else(broken);
                    return self.end(refusal);
                }
                None => {
                    self.ended = true;
                    self.stream.finish()
                }
            };
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
        }
        Poll::Ready(None)
    }
}

impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answered(at most {} bytes more)", self.left)
    }
}

pub(crate) fn broken() -> Refusal {
    let detail = "the server ended the connection early, or what it sent is no HTTP/1.1 with a \
                  head of bearable size";
    Refusal::new(Reason::ResponseBroken, detail)
}

pub(crate) fn too_large(reason: Reason, what: &str) -> Refusal {
    Refusal::new(reason, format!("{what} has more bytes than are allowed; ask for less"))
}

fn unequal() -> Refusal {
    let detail = "the body is not as long as its `content-length` says; leave that header out";
    Refusal::new(Reason::BodyLength, detail)
}

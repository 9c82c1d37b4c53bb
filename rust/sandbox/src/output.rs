//! Standard output and error, captured under one cap.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::Value;
use crate::run::Stop;

/// Bytes a stream takes in one write.
const CHUNK: usize = 64 * 1024;

#[derive(Clone, Copy)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// What was captured.
#[derive(Default)]
pub(crate) struct Captured {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) truncated: bool,
    left: u64,
}

impl Captured {
    /// Keeps what fits; false when something did not.
    fn keep(&mut self, stream: Stream, bytes: &[u8]) -> bool {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let (kept, lost) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        self.left = self.left.saturating_sub(kept.len() as u64);
        self.truncated |= !lost.is_empty();
        match stream {
            Stream::Out => self.stdout.extend_from_slice(kept),
            Stream::Err => self.stderr.extend_from_slice(kept),
        }
        lost.is_empty()
    }
}

/// The shared end that both streams write to.
#[derive(Clone)]
pub(crate) struct Capture(Arc<Mutex<Captured>>);

impl Capture {
    pub(crate) fn new(cap: u64) -> Self {
        Self(Arc::new(Mutex::new(Captured { left: cap, ..Captured::default() })))
    }

    pub(crate) fn stream(&self, stream: Stream) -> Sink {
        Sink { capture: self.clone(), stream }
    }

    /// The result of a call, if its text still fits: it is output like any other.
    pub(crate) fn room_for(&self, result: Option<Value>) -> wasmtime::Result<Option<Value>> {
        let size = match &result {
            None | Some(Value::Nothing) => 0,
            Some(value) => value.json().len() as u64,
        };
        let captured = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if size <= captured.left { Ok(result) } else { Err(Stop::OutputFull.into()) }
    }

    /// Everything so far; leaves nothing behind.
    pub(crate) fn take(&self) -> Captured {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Clone)]
pub(crate) struct Sink {
    capture: Capture,
    stream: Stream,
}

#[async_trait]
impl Pollable for Sink {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Sink {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut captured = self.capture.0.lock().unwrap_or_else(PoisonError::into_inner);
        if captured.keep(self.stream, &bytes) {
            Ok(())
        } else {
            Err(StreamError::Trap(Stop::OutputFull.into()))
        }
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}

impl IsTerminal for Sink {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Sink {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    /// Neither preview 1 nor 0.2 asks for this one.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

//! The thread that reads files, and bodies that it fills: one piece of a file at a time, once the piece before has
//! been taken, so that a slow client costs one piece of memory.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::fs::File;
use std::future::Future as _;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// What may wait for the thread; one more is refused. Every connection of the API has at most one job there.
const MAX_WAITING: usize = 8192;
/// One piece of a file. Bytes.
const PIECE: u64 = 64 << 10;

type Job = Box<dyn FnOnce() + Send>;

/// Too much waits for the thread, or it has ended.
#[derive(Debug, thiserror::Error)]
#[error("too many files are being read")]
pub struct Busy;

/// Runs what has to wait for a disk. The thread ends with the last of its handles.
#[derive(Clone)]
pub struct Reader(SyncSender<Job>);

impl Reader {
    /// Starts the thread.
    pub fn start() -> io::Result<Reader> {
        let (jobs, work) = sync_channel::<Job>(MAX_WAITING);
        let run = move || work.into_iter().for_each(|job| job());
        std::thread::Builder::new()
            .name("static files".into())
            .spawn(run)?;
        Ok(Reader(jobs))
    }

    fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, Busy> {
        let (done, result) = oneshot::channel();
        let job = move || {
            if done.send(work()).is_err() {
                tracing::trace!("whoever wanted a file has gone");
            }
        };
        self.0.try_send(Box::new(job)).map_err(|_| Busy)?;
        Ok(result)
    }

    /// Does this on the thread.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        self.begin(work)?.await.map_err(|_| Busy)
    }
}

type Piece = io::Result<(File, Bytes)>;

/// A file as the body of an answer. What it had when it was opened is sent: a file that has become shorter cuts the
/// answer off, so that its client knows.
pub struct FileBody {
    file: Option<File>,
    /// Bytes that have not been sent.
    left: u64,
    reading: Option<oneshot::Receiver<Piece>>,
    reader: Reader,
}

impl FileBody {
    /// The first `length` bytes of a file.
    pub fn new(file: File, length: u64, reader: Reader) -> FileBody {
        FileBody {
            file: Some(file),
            left: length,
            reading: None,
            reader,
        }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut reading = match (self.reading.take(), self.file.take()) {
            (Some(reading), _) => reading,
            (None, Some(file)) => {
                let length = self.left.min(PIECE);
                match self.reader.begin(move || read(file, length)) {
                    Ok(reading) => reading,
                    Err(busy) => return Poll::Ready(Some(Err(io::Error::other(busy)))),
                }
            }
            (None, None) => return Poll::Ready(None),
        };
        match Pin::new(&mut reading).poll(cx) {
            Poll::Pending => {
                self.reading = Some(reading);
                Poll::Pending
            }
            Poll::Ready(Ok(Ok((file, piece)))) => {
                self.left -= piece.len() as u64;
                self.file = Some(file);
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Poll::Ready(Ok(Err(error))) => Poll::Ready(Some(Err(error))),
            Poll::Ready(Err(_)) => Poll::Ready(Some(Err(io::Error::other(Busy)))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

fn read(mut file: File, length: u64) -> Piece {
    let mut piece = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact(&mut piece)?;
    Ok((file, piece.into()))
}

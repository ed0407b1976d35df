//! An answer's body that waits for its client, but not for ever.
//!
//! Invariant: once the client has taken nothing for the time given, the body and what is held with it are gone, and
//! the answer ends with an error. Who serves the connection need not look at it for that: it does not while the
//! client takes nothing, so a task of its own watches.

use hyper::body::{Body, Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::watch;

/// Why an answer ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError<E> {
    /// Where it came from, it broke off.
    #[error("the answer broke off")]
    Broken(#[source] E),
    /// Its client took nothing of it for a while.
    #[error("the client took nothing of the answer for too long")]
    Untaken,
}

/// A body, and what is held until it has gone or is given up.
pub struct Patient<B, T> {
    kept: Arc<Mutex<Kept<B, T>>>,
    /// Says that something was taken; closed when the body goes.
    progress: watch::Sender<()>,
}

struct Kept<B, T> {
    /// Nothing once it is given up.
    body: Option<(B, T)>,
    /// Who waits for more of it.
    waker: Option<Waker>,
}

fn lock<B, T>(kept: &Mutex<Kept<B, T>>) -> MutexGuard<'_, Kept<B, T>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<B, T> Patient<B, T> {
    /// A body that is given up when nothing of it is taken for `patience`, and the task that sees to it.
    pub fn new(body: B, held: T, patience: Duration) -> (Patient<B, T>, impl Future<Output = ()>) {
        let kept = Arc::new(Mutex::new(Kept {
            body: Some((body, held)),
            waker: None,
        }));
        let (progress, mut taken) = watch::channel(());
        let watched = kept.clone();
        let watch = async move {
            loop {
                match tokio::time::timeout(patience, taken.changed()).await {
                    Ok(Ok(())) => {}
                    // It has gone by itself.
                    Ok(Err(_)) => return,
                    Err(_) => break,
                }
            }
            let (body, waker) = {
                let mut kept = lock(&watched);
                (kept.body.take(), kept.waker.take())
            };
            drop(body);
            waker.into_iter().for_each(Waker::wake);
        };
        (Patient { kept, progress }, watch)
    }
}

impl<B: Body + Unpin, T: Unpin> Body for Patient<B, T> {
    type Data = B::Data;
    type Error = AnswerError<B::Error>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut kept = lock(&self.kept);
        let Some((body, _)) = &mut kept.body else {
            return Poll::Ready(Some(Err(AnswerError::Untaken)));
        };
        let polled = Pin::new(body).poll_frame(cx);
        if polled.is_pending() {
            kept.waker = Some(cx.waker().clone());
        } else {
            self.progress.send_replace(());
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(AnswerError::Broken)))
    }

    fn is_end_stream(&self) -> bool {
        let kept = lock(&self.kept);
        kept.body.as_ref().is_some_and(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let kept = lock(&self.kept);
        let hint = kept.body.as_ref().map(|(body, _)| body.size_hint());
        hint.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, channel::Channel};
    use std::convert::Infallible;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_is_given_up_with_what_it_holds() {
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(8);
        let held = Arc::new(());
        let (mut body, watch) = Patient::new(body, held.clone(), PATIENCE);
        let almost = PATIENCE - Duration::from_secs(1);
        let client = async {
            for _ in 0..3 {
                sender.send_data(Bytes::from_static(b"piece")).await.unwrap();
                tokio::time::sleep(almost).await;
                assert!(body.frame().await.unwrap().is_ok(), "it is being taken");
            }
            tokio::time::sleep(almost).await;
            assert_eq!(Arc::strong_count(&held), 2);
            // Who waits for more, of which there is none, hears of it too.
            assert!(matches!(body.frame().await, Some(Err(AnswerError::Untaken))));
            assert_eq!(Arc::strong_count(&held), 1);
            assert!(sender.send_data(Bytes::new()).await.is_err(), "the body has gone");
        };
        tokio::join!(client, watch);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_has_gone_is_watched_no_longer() {
        let (_sender, body) = Channel::<Bytes, Infallible>::new(8);
        let (body, watch) = Patient::new(body, (), PATIENCE);
        drop(body);
        let soon = Duration::from_secs(1);
        assert!(tokio::time::timeout(soon, watch).await.is_ok());
    }
}

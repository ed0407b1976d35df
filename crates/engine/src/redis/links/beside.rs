//! Tries beside one another: a try that hangs is not waited for alone.
//!
//! A connection whose first bytes were lost while the network was bad stays silent when the network is good again, and
//! only a fresh one finds that out. To wait for the silent one to its end would be to be away for as long.
//!
//! Invariant: at most `within / every` tries, rounded up, are under way at a time, and none outlives the call.

use super::shared::now;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use std::time::Duration;
use tokio::time::{sleep_until, timeout_at};

/// What the first try that succeeds brings. While none ends another begins `every` so often. The error is that of the
/// last try, when each that began has failed; `None` where nothing was decided in time.
pub async fn first<T, E, F>(
    every: Duration,
    within: Duration,
    mut begin: impl FnMut() -> F,
) -> Option<Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut tries = FuturesUnordered::from_iter([begin()]);
    let mut next = now() + every;
    let end = now() + within;
    let race = async {
        loop {
            tokio::select! {
                Some(ended) = tries.next() => {
                    if ended.is_ok() || tries.is_empty() {
                        return ended;
                    }
                }
                () = sleep_until(next), if next < end => {
                    next += every;
                    tries.push(begin());
                }
            }
        }
    };
    timeout_at(end, race).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::time::sleep;

    const EVERY: Duration = Duration::from_millis(400);
    const WITHIN: Duration = Duration::from_secs(2);

    /// Runs tries of which the n-th takes so long and ends so; how many began, what came of it, and after how long.
    async fn run(ends: &[(u64, Result<(), ()>)]) -> (usize, Option<Result<usize, usize>>, Duration) {
        let began = now();
        let count = Cell::new(0);
        let came = first(EVERY, WITHIN, || {
            let number = count.get();
            count.set(number + 1);
            let (takes, end) = ends.get(number).copied().unwrap_or((3_600_000, Ok(())));
            async move {
                sleep(Duration::from_millis(takes)).await;
                end.map(|()| number).map_err(|()| number)
            }
        });
        let came = came.await;
        (count.get(), came, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_answers_soon_stays_alone() {
        let (began, came, took) = run(&[(399, Ok(()))]).await;
        assert_eq!((began, came, took.as_millis()), (1, Some(Ok(0)), 399));
        let (began, came, took) = run(&[(30, Err(()))]).await;
        assert_eq!((began, came, took.as_millis()), (1, Some(Err(0)), 30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_one_is_overtaken() {
        let (began, came, took) = run(&[(3_600_000, Ok(())), (10, Ok(()))]).await;
        assert_eq!((began, came, took.as_millis()), (2, Some(Ok(1)), 410));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_leaves_the_others_their_time() {
        let (began, came, took) = run(&[(900, Ok(())), (10, Err(())), (5, Err(()))]).await;
        assert_eq!((began, came, took.as_millis()), (3, Some(Ok(0)), 900));
        let (began, came, _) = run(&[(500, Err(())), (200, Err(()))]).await;
        assert_eq!((began, came), (2, Some(Err(1))));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_begin_than_are_allowed() {
        let (began, came, took) = run(&[]).await;
        assert_eq!((began, came, took.as_secs()), (5, None, WITHIN.as_secs()));
    }
}

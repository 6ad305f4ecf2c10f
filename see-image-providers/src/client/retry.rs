//! Which answers are asked for again, and when: the one policy, for questions as for downloads.
//!
//! | what happened | asked again |
//! |---|---|
//! | no connection, no answer in time, an answer that broke off | yes |
//! | 408, 425, 429, 500, 502, 503, 504 | yes |
//! | any other status, or no agreement on TLS | no |
//! | a connection that is refused, where something else serves | no |
//!
//! The pause is what the server names in `Retry-After`, and otherwise 250 ms, doubled each time up to 15 s. A pause that
//! ends after the patience is not begun.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use see_core::{Error, ErrorKind};

use super::failure;

/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How long a question is repeated: four times, where each answer comes at once.
const QUESTION: Duration = Duration::from_secs(3);
/// The same where the server says when it will answer.
const QUESTION_ASKED: Duration = Duration::from_secs(15);

/// Whether a server that answers so may give another answer soon.
pub(crate) fn is_busy(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// Whether a request that failed so may succeed soon.
pub(crate) fn is_passing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
        && !failure::is_about_tls(error)
}

tokio::task_local! {
    static HAS_FALLBACK: ();
}

/// Asks what need not be answered, since there is something else that serves: a connection that is refused is not tried
/// again.
pub(crate) async fn with_fallback<F: Future>(question: F) -> F::Output {
    HAS_FALLBACK.scope((), question).await
}

/// Whether a question that failed so is asked again.
pub(super) fn is_asked_again(error: &Error) -> bool {
    let has_fallback = HAS_FALLBACK.try_with(|()| ()).is_ok();
    is_passing(error) && !(has_fallback && failure::is_refused(error))
}

/// How much patience is left with a server.
#[derive(Debug)]
pub(crate) struct Retry {
    patience: Duration,
    /// The same where the server names the pause.
    patience_asked: Duration,
    since: Instant,
    pause: Duration,
}

impl Retry {
    /// For a question with a small answer, such as a login or a list.
    pub(crate) fn of_question() -> Self {
        Self::new(QUESTION, QUESTION_ASKED)
    }

    /// For a download that may make no progress for so long.
    pub(crate) fn of_download(patience: Duration) -> Self {
        Self::new(patience, patience)
    }

    fn new(patience: Duration, patience_asked: Duration) -> Self {
        Self {
            patience,
            patience_asked,
            since: Instant::now(),
            pause: FIRST_PAUSE,
        }
    }

    /// Bytes came: the patience begins anew.
    pub(crate) fn progressed(&mut self) {
        self.since = Instant::now();
        self.pause = FIRST_PAUSE;
    }

    /// How long to wait before the next try, `asked` being what the server names; `None` where no patience is left.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let (wait, patience) = match asked {
            Some(asked) => (asked.max(FIRST_PAUSE), self.patience_asked),
            None => (self.pause, self.patience),
        };
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        (self.since.elapsed().saturating_add(wait) <= patience).then_some(wait)
    }
}

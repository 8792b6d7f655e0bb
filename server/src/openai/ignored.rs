//! `x-sparkherd-ignored`: parameters that nobody knows are accepted, and named.

use warp::http::header::HeaderValue;
use warp::reply::Response;

/// Names listed in `x-sparkherd-ignored`; a header has room for no more.
const IGNORED_MAX: usize = 16;
/// Longest name listed there.
const IGNORED_NAME_BYTES_MAX: usize = 48;

/// The value of `x-sparkherd-ignored`, or nothing to say. Names come from the client: what a header cannot carry becomes
/// `?`, and length and count are bounded.
fn ignored_header(names: impl IntoIterator<Item = String>) -> Option<String> {
    let mut names = names.into_iter().map(|name| {
        let clean =
            name.chars().map(|letter| if letter.is_ascii_graphic() && letter != ',' { letter } else { '?' });
        clean.take(IGNORED_NAME_BYTES_MAX).collect::<String>()
    });
    let mut listed: Vec<String> = names.by_ref().take(IGNORED_MAX).collect();
    if names.next().is_some() {
        listed.push("...".to_owned());
    }
    (!listed.is_empty()).then(|| listed.join(", "))
}

/// Says in the answer's header what of the request was not looked at.
pub(super) fn with_ignored(mut response: Response, names: Vec<String>) -> Response {
    if let Some(Ok(names)) = ignored_header(names).map(HeaderValue::try_from) {
        response.headers_mut().insert("x-sparkherd-ignored", names);
    }
    response
}

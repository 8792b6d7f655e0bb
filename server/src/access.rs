//! Who may ask, and for which names. Replaced as a whole by the agent's `access` command.

use sha2::{Digest, Sha256};
use sparkherd_protocol::Access;
use subtle::ConstantTimeEq;
use thiserror::Error;
use warp::http::HeaderMap;
use warp::http::header::AUTHORIZATION;

/// SHA-256 of a key.
pub(crate) type KeyHash = [u8; 32];

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AccessError {
    /// The hash itself is not repeated: a key put there by mistake would end up in a log.
    #[error("key hash {index} is not 64 hexadecimal digits")]
    BadHash { index: usize },
    #[error("no served name: clients could not name the model")]
    NoName,
}

/// Why a request's key does not open the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyProblem {
    Missing,
    Wrong,
}

/// The audience of an engine: parsed key hashes and the names it answers to.
#[derive(Clone, Debug)]
pub struct Audience {
    anonymous: bool,
    key_hashes: Vec<KeyHash>,
    names: Vec<String>,
}

impl Audience {
    pub fn new(access: &Access, served_names: Vec<String>) -> Result<Self, AccessError> {
        if served_names.is_empty() {
            return Err(AccessError::NoName);
        }
        let key_hashes = access
            .key_hashes
            .iter()
            .enumerate()
            .map(|(index, text)| parse_hash(text).ok_or(AccessError::BadHash { index }))
            .collect::<Result<_, _>>()?;
        Ok(Self { anonymous: access.anonymous, key_hashes, names: served_names })
    }

    /// The name answers carry.
    pub(crate) fn first_name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    pub(crate) fn serves(&self, name: &str) -> bool {
        self.names.iter().any(|served| served == name)
    }

    /// The hash of the key that was presented, or nothing where nobody needs one.
    ///
    /// Every known hash is compared, each in constant time, so that timing tells neither a prefix nor which key matched.
    pub(crate) fn admits(&self, headers: &HeaderMap) -> Result<Option<KeyHash>, KeyProblem> {
        if self.anonymous {
            return Ok(None);
        }
        let key = presented_key(headers).ok_or(KeyProblem::Missing)?;
        let hash: KeyHash = Sha256::digest(key).into();
        let known = self.key_hashes.iter().fold(subtle::Choice::from(0), |found, candidate| {
            found | candidate.as_slice().ct_eq(hash.as_slice())
        });
        if bool::from(known) { Ok(Some(hash)) } else { Err(KeyProblem::Wrong) }
    }
}

/// `Authorization: Bearer KEY`, as OpenAI's clients send it, else `x-api-key: KEY`, as Anthropic's do.
fn presented_key(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(key)
    });
    let key =
        bearer.or_else(|| headers.get("x-api-key").map(warp::http::HeaderValue::as_bytes))?.trim_ascii();
    (!key.is_empty()).then_some(key)
}

fn parse_hash(text: &str) -> Option<KeyHash> {
    let mut hash = KeyHash::default();
    if text.len() != 2 * hash.len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of "abc" (FIPS 180-2, appendix B.1).
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn audience(anonymous: bool, hashes: &[&str]) -> Result<Audience, AccessError> {
        let access = Access { anonymous, key_hashes: hashes.iter().map(ToString::to_string).collect() };
        Audience::new(&access, vec!["m".to_owned()])
    }

    fn asked_with(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(warp::http::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn keys_open_by_their_hash() {
        let audience = audience(false, &[&"0".repeat(64), ABC]).unwrap();
        let hash = parse_hash(ABC).unwrap();
        for (headers, verdict) in [
            (asked_with("authorization", "Bearer abc"), Ok(Some(hash))),
            (asked_with("authorization", "bearer  abc"), Ok(Some(hash))),
            (asked_with("x-api-key", "abc"), Ok(Some(hash))),
            (asked_with("authorization", "Bearer abd"), Err(KeyProblem::Wrong)),
            (asked_with("authorization", ABC), Err(KeyProblem::Missing)),
            (asked_with("authorization", "Bearer "), Err(KeyProblem::Missing)),
            (HeaderMap::new(), Err(KeyProblem::Missing)),
        ] {
            assert_eq!(audience.admits(&headers), verdict, "{headers:?}");
        }
    }

    #[test]
    fn nobody_gets_in_without_keys_unless_anonymous() {
        assert_eq!(
            audience(false, &[]).unwrap().admits(&asked_with("x-api-key", "abc")),
            Err(KeyProblem::Wrong)
        );
        assert_eq!(audience(true, &[]).unwrap().admits(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn bad_hashes_are_refused_without_repeating_them() {
        for hash in ["sk-spark-secret", &ABC[1..], &ABC.replace('b', "é")] {
            let error = audience(false, &[ABC, hash]).unwrap_err();
            assert_eq!(error, AccessError::BadHash { index: 1 });
            assert!(!error.to_string().contains("secret"));
        }
        assert_eq!(Audience::new(&Access::default(), Vec::new()).unwrap_err(), AccessError::NoName);
    }
}

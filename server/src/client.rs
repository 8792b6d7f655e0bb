//! Who asks: what one client's requests are counted and queued under.

use std::net::IpAddr;

use sha2::{Digest, Sha256};
use sparkherd_engine::{Caller, ClientKey};
use warp::http::{HeaderMap, HeaderName};

use crate::access::KeyHash;
use crate::openai::CallerWishes;

/// Open WebUI asks for all of its users with one key, and says here for whom. Its order: the steadiest first.
const USER_HEADERS: [&str; 2] = ["x-openwebui-user-id", "x-openwebui-user-email"];

/// Whom the front of `sparkherd serve` asks for: all its connections come from this machine itself.
pub(crate) const PEER_HEADER: HeaderName = HeaderName::from_static("x-sparkherd-peer");

/// The address a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// What is known of who sent a request, apart from what its body says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'a> {
    /// Hash of the key that opened the door; none where no key is needed, since anybody can make one up.
    pub(crate) key: Option<&'a KeyHash>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) peer: Option<Peer>,
}

/// Names become salted hashes: equal names are equal clients of this engine, and nobody learns a name from the hash (I15).
#[derive(Clone, Debug)]
pub(crate) struct ClientHasher {
    salt: [u8; 32],
}

impl ClientHasher {
    pub(crate) fn new(seed: u64, incarnation: &str) -> Self {
        let salt = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(incarnation);
        Self { salt: salt.finalize().into() }
    }

    /// Under what a request is counted and queued.
    ///
    /// Limits count by the key, or by the network it comes from where none is needed: everything else is what a client likes
    /// to say. Turns are taken by the first that is known: key, Open WebUI's user, `user`, network.
    ///
    /// Prompts are shared in the prefix cache among requests of one key and one `cache_salt` only: how fast an answer begins
    /// would else tell what others have asked.
    pub(crate) fn caller(&self, asker: &Asker<'_>, wishes: &CallerWishes) -> Caller {
        let Asker { key, headers, peer } = *asker;
        let CallerWishes { user, cache_salt, priority } = wishes;
        let header = USER_HEADERS.iter().find_map(|name| headers.get(*name));
        let account = match (key, peer) {
            (Some(key), _) => self.hash("key", key),
            (None, Some(Peer(address))) => self.hash("network", &network(address)),
            (None, None) => 0,
        };
        let client = match (key, header, user) {
            (None, Some(user), _) => self.hash("header", user.as_bytes()),
            (None, None, Some(user)) => self.hash("user", user.as_bytes()),
            (Some(_), _, _) | (None, None, None) => account,
        };
        let tenant = key.map_or(0, |key| self.hash("tenant", key));
        let salt = cache_salt.as_ref().map_or(0, |salt| self.hash("salt", salt.as_bytes()));
        let cache_salt = if salt == 0 {
            tenant
        } else {
            self.hash("both", &[tenant.to_le_bytes(), salt.to_le_bytes()].concat())
        };
        let (account, client) = (ClientKey(account), ClientKey(client));
        Caller { account, client, priority: *priority, cache_salt }
    }

    fn hash(&self, kind: &str, name: &[u8]) -> u64 {
        let digest =
            Sha256::new().chain_update(self.salt).chain_update(kind).chain_update([0]).chain_update(name);
        digest.finalize().iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
    }
}

impl Peer {
    /// Whom a request comes from. Only this machine's own word is taken for another address: whoever runs programs here can ask
    /// under any of them, and so can the clients of a proxy that runs here, passes their headers on and asks without a key.
    pub(crate) fn behind(connection: Self, headers: &HeaderMap) -> Self {
        let Self(address) = connection;
        let named = headers.get(PEER_HEADER).filter(|_| address.to_canonical().is_loopback());
        named.and_then(|named| named.to_str().ok()?.parse().ok()).map_or(connection, Self)
    }

    /// What stands for the peer's network where no key was looked at.
    pub(crate) fn account(self) -> ClientKey {
        ClientKey(u64::from_be_bytes(network(self.0)))
    }
}

/// What one household or machine has of the address: 64 bits of IPv6, as whoever has one such address has all the others.
fn network(address: IpAddr) -> [u8; 8] {
    let bits = match address.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    };
    bits.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn caller(
        key: Option<&KeyHash>,
        header: Option<&str>,
        user: Option<&str>,
        peer: u8,
        salt: Option<&str>,
    ) -> Caller {
        let headers = header
            .map(|value| (warp::http::HeaderName::from_static(USER_HEADERS[0]), value.parse().unwrap()));
        let headers = HeaderMap::from_iter(headers);
        let peer = Some(Peer(Ipv4Addr::new(127, 0, 0, peer).into()));
        let wishes = CallerWishes {
            user: user.map(str::to_owned),
            cache_salt: salt.map(str::to_owned),
            ..CallerWishes::default()
        };
        ClientHasher::new(1, "test").caller(&Asker { key, headers: &headers, peer }, &wishes)
    }

    #[test]
    fn the_first_that_is_known_counts() {
        let (one, other) = ([1; 32], [2; 32]);
        let key = caller(Some(&one), Some("a"), Some("b"), 1, None);
        assert_eq!(
            key,
            caller(Some(&one), Some("x"), Some("y"), 2, None),
            "users of one key share its place"
        );
        assert_ne!(key.client, caller(Some(&other), Some("a"), Some("b"), 1, None).client);
        let header = caller(None, Some("a"), Some("b"), 1, None);
        assert_eq!(header.client, caller(None, Some("a"), Some("y"), 2, None).client);
        assert_ne!(header.client, caller(None, None, Some("a"), 1, None).client, "a user is no header");
        let user = caller(None, None, Some("b"), 1, None);
        assert_eq!(user.client, caller(None, None, Some("b"), 2, None).client);
        assert_ne!(user.client, caller(None, None, None, 1, None).client);
        assert_ne!(caller(None, None, None, 1, None).client, caller(None, None, None, 2, None).client);
    }

    #[test]
    fn no_name_that_a_client_chooses_is_another_account() {
        let key = Some(&[1; 32]);
        let accounts = |key| {
            [caller(key, None, None, 1, None), caller(key, Some("a"), None, 1, None)]
                .into_iter()
                .chain(["b", "c"].map(|user| caller(key, None, Some(user), 1, Some(user))))
                .map(|caller| caller.account)
                .collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!((accounts(key).len(), accounts(None).len()), (1, 1));
        assert_eq!(caller(key, None, None, 1, None).account, caller(key, None, None, 2, None).account);
        assert_ne!(caller(None, None, None, 1, None).account, caller(None, None, None, 2, None).account);
    }

    #[test]
    fn a_network_is_an_address_of_ipv4_and_64_bits_of_ipv6() {
        let v6 = |segments: [u16; 8]| network(Ipv6Addr::from(segments).into());
        let one = v6([0x2001, 0xdb8, 0, 1, 0, 0, 0, 1]);
        assert_eq!(one, v6([0x2001, 0xdb8, 0, 1, 9, 9, 9, 9]));
        assert_ne!(one, v6([0x2001, 0xdb8, 0, 2, 0, 0, 0, 1]));
        let v4 = Ipv4Addr::new(192, 0, 2, 7);
        assert_eq!(network(v4.into()), network(v4.to_ipv6_mapped().into()));
        assert_ne!(network(v4.into()), network(Ipv4Addr::new(192, 0, 2, 8).into()));
    }

    #[test]
    fn only_this_machine_can_ask_for_others() {
        let behind = |address: [u8; 4], named: &str| {
            let headers = HeaderMap::from_iter([(PEER_HEADER, named.parse().unwrap())]);
            let Peer(peer) = Peer::behind(Peer(Ipv4Addr::from(address).into()), &headers);
            peer.to_string()
        };
        assert_eq!(behind([127, 0, 0, 1], "192.0.2.7"), "192.0.2.7");
        assert_eq!(behind([127, 0, 0, 1], "2001:db8::1"), "2001:db8::1");
        assert_eq!(behind([127, 0, 0, 1], "somebody"), "127.0.0.1");
        assert_eq!(behind([192, 0, 2, 8], "192.0.2.7"), "192.0.2.8");
    }

    #[test]
    fn prompts_are_shared_within_a_key_and_a_salt() {
        let (one, other) = ([1; 32], [2; 32]);
        let salt = |key, salt| caller(key, None, None, 1, salt).cache_salt;
        assert_eq!(salt(None, None), 0);
        assert_eq!(salt(Some(&one), None), salt(Some(&one), None));
        let all = [
            salt(None, None),
            salt(Some(&one), None),
            salt(Some(&other), None),
            salt(None, Some("s")),
            salt(Some(&one), Some("s")),
        ];
        let distinct: std::collections::BTreeSet<u64> = all.into_iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn hashes_differ_between_engines() {
        let headers = HeaderMap::new();
        let asker = Asker { key: Some(&[7; 32]), headers: &headers, peer: None };
        let of = |hasher: ClientHasher| hasher.caller(&asker, &CallerWishes::default()).client;
        assert_ne!(of(ClientHasher::new(1, "a")), of(ClientHasher::new(1, "b")));
        assert_ne!(of(ClientHasher::new(1, "a")), of(ClientHasher::new(2, "a")));
    }
}

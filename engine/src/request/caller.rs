/// Who asks, how urgently, and with whom the prefix cache may be shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// What limits count by: nobody can choose another.
    pub account: ClientKey,
    /// Who takes turns with others; an account may have several.
    pub client: ClientKey,
    pub priority: Priority,
    /// Only requests of the same salt find each other's blocks in the prefix cache: otherwise the time to the first token
    /// tells one tenant what another has asked.
    pub cache_salt: u64,
}

/// The server's name for somebody, hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientKey(pub u64);

/// Nothing of a lower priority starts while something of a higher one waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Somebody waits for it.
    #[default]
    Interactive,
    Batch,
}

use super::ToolDialect;

/// Mistral's templates refuse ids of any other length.
const MISTRAL_CHARACTERS: usize = 9;

/// As many as OpenAI's have.
const CHARACTERS: usize = 24;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Makes the ids by which tool results refer to their calls: the `index`-th of an answer, from the answer's own `seed`.
pub(crate) fn call_id(dialect: ToolDialect, seed: u64, index: u32) -> String {
    match dialect {
        ToolDialect::Mistral => characters(seed, u64::from(index), MISTRAL_CHARACTERS),
        ToolDialect::Hermes | ToolDialect::Llama3Json => {
            format!("call_{}", characters(seed, u64::from(index), CHARACTERS))
        }
    }
}

/// An id that Mistral's templates accept: the given one where it is of their form, else one made of it, the same each time,
/// so that a result still finds its call.
pub(crate) fn mistral_id(id: &str) -> String {
    if id.len() == MISTRAL_CHARACTERS && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return id.to_owned();
    }
    characters(fnv(id), 0, MISTRAL_CHARACTERS)
}

/// Digits in base 62 of two words drawn for (`seed`, `stream`); 24 of them need 143 bits, so words follow one another.
fn characters(seed: u64, stream: u64, count: usize) -> String {
    /// One word is good for this many digits: 62¹⁰ < 2⁶⁴.
    const DIGITS_PER_WORD: usize = 10;
    let mut state = mix(seed ^ mix(stream.wrapping_add(1)));
    let mut text = String::with_capacity(count);
    while text.len() < count {
        state = mix(state.wrapping_add(0x9E37_79B9_7F4A_7C15));
        let mut word = state;
        for _ in 0..DIGITS_PER_WORD.min(count - text.len()) {
            let digit = usize::try_from(word % 62).unwrap_or(0);
            text.push(char::from(ALPHABET[digit]));
            word /= 62;
        }
    }
    text
}

/// The finaliser of splitmix64 (Stafford's variant 13).
fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

/// FNV-1a, 64 bits: the ids are a client's own, nobody gains by a collision.
fn fnv(text: &str) -> u64 {
    text.bytes()
        .fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_have_the_form_their_templates_want_and_differ() {
        let mut seen = BTreeSet::new();
        for seed in 0..40 {
            for index in 0..40 {
                let hermes = call_id(ToolDialect::Hermes, seed, index);
                assert!(hermes.len() == 29 && hermes.starts_with("call_"), "{hermes}");
                let mistral = call_id(ToolDialect::Mistral, seed, index);
                assert_eq!(mistral_id(&mistral), mistral);
                assert!(seen.insert(hermes) && seen.insert(mistral));
            }
        }
    }

    #[test]
    fn a_foreign_id_becomes_the_same_one_each_time() {
        let id = mistral_id("call_abc");
        assert_eq!(id, mistral_id("call_abc"));
        assert_ne!(id, mistral_id("call_abd"));
        assert!(id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
    }
}

//! Codes that a person can read aloud and type: in groups of four, kept as their SHA-256 however they were typed.

use crate::identity::dispositivo;

/// What they are made of, five bits each: no letter that could be read as a digit (Crockford's base 32).
const LETRAS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Longer than the longest of them and what separates its groups.
const MAX: usize = 80;

/// A code of `largo` random characters.
pub(super) fn genera(largo: usize) -> Result<String, getrandom::Error> {
    let mut bytes = vec![0; largo];
    getrandom::fill(&mut bytes)?;
    let letras: Vec<char> = bytes.iter().map(|b| char::from(LETRAS[usize::from(b % 32)])).collect();
    Ok(letras.chunks(4).map(String::from_iter).collect::<Vec<_>>().join("-"))
}

/// What is kept of a code. What is too long to be one is cut: nothing long is hashed.
pub(super) fn hash(codigo: &str) -> [u8; 32] {
    let letra = |c: char| match c.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        c => c,
    };
    let limpio: String = codigo.chars().take(MAX).filter(char::is_ascii_alphanumeric).map(letra).collect();
    dispositivo::hash(limpio.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_however_it_is_typed() {
        let codigo = genera(20).unwrap();
        assert_eq!(codigo.len(), 24);
        assert_ne!(codigo, genera(20).unwrap());
        for typed in
            [codigo.to_lowercase(), codigo.replace('-', ""), codigo.replace('-', " "), format!(" {codigo}\n")]
        {
            assert_eq!(hash(&typed), hash(&codigo), "{typed}");
        }
        assert_eq!(hash("0000-1111"), hash("ooOO-iIlL"));
        assert_ne!(hash(&codigo[1..]), hash(&codigo));
    }
}

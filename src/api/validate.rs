//! Checks of fields: the rules are garde's, the messages ours, in both languages.

use garde::rules::{email, length};

use super::problem::{Problem, Texto};

/// Collects what is wrong with fields.
#[derive(Default)]
pub(super) struct Check(Vec<(String, Texto)>);

impl Check {
    /// Notes `campo` unless `good`.
    pub(super) fn that(&mut self, good: bool, campo: &str, es: &'static str, en: &'static str) {
        if !good {
            self.0.push((campo.to_owned(), Texto::new(es, en)));
        }
    }

    /// A text for people: something, not too much of it, no NUL (which PostgreSQL cannot store).
    pub(super) fn text(&mut self, campo: &str, value: &str) {
        let good = length::chars::apply(&value, (1, 200)).is_ok()
            && length::chars::apply(&value.trim(), (1, 200)).is_ok()
            && !value.contains('\0');
        self.that(good, campo, "De 1 a 200 caracteres.", "From 1 to 200 characters.");
    }

    /// A national number: RUC (11 digits) or DNI (8).
    pub(super) fn digits(&mut self, campo: &str, value: &str, cuantos: usize) {
        let good = length::bytes::apply(&value, (cuantos, cuantos)).is_ok()
            && value.bytes().all(|b| b.is_ascii_digit());
        let (es, en) = if cuantos == 8 {
            ("Son 8 dígitos.", "It is 8 digits.")
        } else {
            ("Son 11 dígitos.", "It is 11 digits.")
        };
        self.that(good, campo, es, en);
    }

    /// Something that mail can be sent to, as far as its form tells (RFC 5321 section 4.5.3.1.3), at a domain
    /// that is one of the Internet's.
    pub(super) fn email(&mut self, campo: &str, value: &str) {
        let value = value.trim();
        let good = length::bytes::apply(&value, (3, 254)).is_ok()
            && email::parse_email(value).is_ok()
            && value.rsplit_once('@').is_some_and(|(_, domain)| domain.contains('.'));
        self.that(good, campo, "No es un correo.", "Not an e-mail address.");
    }

    /// Nothing was wrong, or the problem that says what was.
    pub(super) fn done(self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(self.failed()) }
    }

    /// The problem.
    pub(super) fn failed(self) -> Problem {
        Problem::invalid(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(check: impl FnOnce(&mut Check)) -> bool {
        let mut all = Check::default();
        check(&mut all);
        all.done().is_err()
    }

    #[test]
    fn what_mail_cannot_be_sent_to_is_no_address() {
        for good in ["ana@fundo.pe", " Ana.Paz+riego@sub.fundo.com.pe "] {
            assert!(!wrong(|c| c.email("email", good)), "{good}");
        }
        for bad in
            ["", "ana", "ana@", "@fundo.pe", "ana@fundo", "a b@fundo.pe", "a@b@fundo.pe", "a\0@fundo.pe"]
        {
            assert!(wrong(|c| c.email("email", bad)), "{bad}");
        }
        assert!(wrong(|c| c.email("email", &format!("a@{}.pe", "x".repeat(254)))));
    }

    #[test]
    fn a_text_says_something_and_not_too_much() {
        for good in ["a", "  a  ", &"ñ".repeat(200)] {
            assert!(!wrong(|c| c.text("nombre", good)), "{good}");
        }
        for bad in ["", "   ", "a\0b", &"ñ".repeat(201)] {
            assert!(wrong(|c| c.text("nombre", bad)), "{bad}");
        }
        assert!(
            wrong(|c| c.digits("dni", "1234567", 8)) && wrong(|c| c.digits("dni", "１２３４５６７８", 8))
        );
    }
}

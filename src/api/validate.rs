//! Checks of fields, each with its message in both languages.

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
        let good = !value.trim().is_empty() && value.chars().count() <= 200 && !value.contains('\0');
        self.that(good, campo, "De 1 a 200 caracteres.", "From 1 to 200 characters.");
    }

    /// A national number: RUC (11 digits) or DNI (8).
    pub(super) fn digits(&mut self, campo: &str, value: &str, cuantos: usize) {
        let good = value.len() == cuantos && value.bytes().all(|b| b.is_ascii_digit());
        let (es, en) = if cuantos == 8 {
            ("Son 8 dígitos.", "It is 8 digits.")
        } else {
            ("Son 11 dígitos.", "It is 11 digits.")
        };
        self.that(good, campo, es, en);
    }

    /// Something that mail can be sent to, as far as its form tells (RFC 5321 section 4.5.3.1.3).
    pub(super) fn email(&mut self, campo: &str, value: &str) {
        let value = value.trim();
        let good = value.len() <= 254
            && !value.contains(|c: char| c.is_whitespace() || c.is_control())
            && value
                .split_once('@')
                .is_some_and(|(a, b)| !a.is_empty() && b.contains('.') && !b.contains('@'));
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

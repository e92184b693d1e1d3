//! One-time codes by time (RFC 6238), as authenticator apps have them: SHA-1, six digits, thirty seconds.
//!
//! The only room of totp-rs and qrcode. What a code was good for before is the store's to remember
//! (`store::totp::spend`); here a code is a time step, or none.

use qrcode::render::svg;
use qrcode::{EcLevel, QrCode};
use totp_rs::{Builder, Totp};

use crate::domain::Timestamp;

/// Who is shown in the app beside the account.
pub const EMISOR: &str = "Alertrace";

/// A secret of 160 random bits, as RFC 4226 wants it.
///
/// # Errors
/// When the machine has no randomness.
pub fn genera() -> Result<[u8; 20], getrandom::Error> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// The time step of a code that is good at `ahora`, thirty seconds early or late; `None` = no such code.
#[must_use]
pub fn paso(secreto: &[u8], codigo: &str, ahora: Timestamp) -> Option<i64> {
    // People type what they read, in groups of three.
    let codigo: String = codigo.chars().filter(|c| !c.is_whitespace()).take(7).collect();
    let segundos = u64::try_from(ahora.secs()).ok()?;
    let paso = motor(secreto, "", EMISOR)?.check(&codigo, segundos)?;
    i64::try_from(paso).ok()
}

/// The secret as a person can type it into their app, and the address that a QR code carries.
#[must_use]
pub fn escrito(secreto: &[u8], cuenta: &str, emisor: &str) -> Option<(String, String)> {
    // The colon separates the two.
    let sin = |texto: &str| texto.replace(':', " ");
    let motor = motor(secreto, &sin(cuenta), &sin(emisor))?;
    Some((motor.secret().to_base32(), motor.to_url().ok()?))
}

/// A picture of an address, as SVG without a `#`, which ends a data URL.
#[must_use]
pub fn dibujo(url: &str) -> Option<String> {
    let qr = QrCode::with_error_correction_level(url, EcLevel::M).ok()?;
    let (negro, blanco) = (svg::Color("black"), svg::Color("white"));
    Some(qr.render().min_dimensions(200, 200).dark_color(negro).light_color(blanco).build())
}

fn motor(secreto: &[u8], cuenta: &str, emisor: &str) -> Option<Totp> {
    let motor = Builder::new().with_secret(secreto.to_vec()).with_account_name(cuenta);
    motor.with_issuer(Some(emisor)).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B: its secret and times, the last six digits of its eight.
    const SECRETO: &[u8] = b"12345678901234567890";

    fn at(segundos: i64) -> Timestamp {
        Timestamp::clamped(segundos * 1_000_000)
    }

    #[test]
    fn the_codes_are_those_of_the_rfc() {
        for (segundos, codigo) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
        ] {
            assert_eq!(paso(SECRETO, codigo, at(segundos)), Some(segundos / 30), "{segundos}");
        }
    }

    #[test]
    fn a_code_is_good_one_step_early_or_late_and_no_more() {
        let (codigo, suyo) = ("005924", 1_234_567_890 / 30);
        for (pasos, vale) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
            let hallado = paso(SECRETO, codigo, at((suyo + pasos) * 30));
            assert_eq!(hallado, vale.then_some(suyo), "{pasos} steps");
        }
        assert_eq!(paso(SECRETO, " 005 924", at(1_234_567_890)), Some(suyo), "as an app shows it");
        for malo in ["", "5924", "0059240", "00592a", "٠٠٥٩٢٤"] {
            assert_eq!(paso(SECRETO, malo, at(1_234_567_890)), None, "{malo}");
        }
    }

    #[test]
    fn an_app_gets_an_address_and_a_picture_of_it() {
        let (secreto, url) = escrito(SECRETO, "ana:paz@x.pe", EMISOR).unwrap();
        assert_eq!(secreto, "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        assert!(url.starts_with("otpauth://totp/Alertrace:ana%20paz"), "{url}");
        assert!(url.contains("secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ") && url.contains("issuer=Alertrace"));
        let picture = dibujo(&url).unwrap();
        assert!(picture.contains("<svg") && !picture.contains('#'), "{picture}");
    }
}

//! Access tokens: JWT, HS256, signed with the installation's secret.
//!
//! The algorithm is pinned; time is the [`Clock`](crate::domain::Clock)'s and not the library's.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;

/// Who says so.
const ISS: &str = "alertrace";
/// To whom; the word that Supabase uses for a signed-in user.
const AUD: &str = "authenticated";
/// Seconds that two clocks may differ.
const HOLGURA: i64 = 30;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// `user_id`.
    pub sub: String,
    /// When it was issued, in seconds since the epoch.
    pub iat: i64,
    /// When it expires.
    pub exp: i64,
    /// The token's own number.
    pub jti: String,
    /// The generation of the account that it is of.
    #[serde(default)]
    pub generacion: i64,
    /// Not good before; ours carry none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    iss: String,
    aud: String,
}

impl Claims {
    /// A token for `user_id`, good for `segundos` from `ahora` on.
    #[must_use]
    pub fn new(user_id: &str, ahora: Timestamp, segundos: i64, jti: &str) -> Self {
        Self {
            sub: user_id.to_owned(),
            iat: ahora.secs(),
            exp: ahora.secs().saturating_add(segundos),
            jti: jti.to_owned(),
            generacion: 0,
            nbf: None,
            iss: ISS.to_owned(),
            aud: AUD.to_owned(),
        }
    }

    /// Of this generation of the account.
    #[must_use]
    pub const fn de(mut self, generacion: i64) -> Self {
        self.generacion = generacion;
        self
    }

    /// When it expires.
    #[must_use]
    pub fn caduca(&self) -> Timestamp {
        Timestamp::clamped(self.exp.saturating_mul(1_000_000))
    }
}

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a token of ours, or not any more.
    #[error("not a valid token")]
    Invalido,
    /// It was one, until it expired.
    #[error("the token has expired")]
    Caducado,
}

/// Signs and checks tokens.
pub struct Firmante {
    firma: EncodingKey,
    comprueba: DecodingKey,
    reglas: Validation,
}

impl Firmante {
    /// With the installation's secret.
    #[must_use]
    pub fn new(secreto: &[u8]) -> Self {
        let mut reglas = Validation::new(Algorithm::HS256);
        reglas.set_issuer(&[ISS]);
        reglas.set_audience(&[AUD]);
        reglas.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Checked below, against our clock.
        reglas.validate_exp = false;
        reglas.validate_nbf = false;
        Self {
            firma: EncodingKey::from_secret(secreto),
            comprueba: DecodingKey::from_secret(secreto),
            reglas,
        }
    }

    /// The signed token.
    ///
    /// # Errors
    /// [`Error::Invalido`] when it cannot be signed.
    pub fn firma(&self, claims: &Claims) -> Result<String, Error> {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.firma).map_err(|_| Error::Invalido)
    }

    /// What a token says, if it is ours and of now.
    ///
    /// # Errors
    /// [`Error`].
    pub fn comprueba(&self, token: &str, ahora: Timestamp) -> Result<Claims, Error> {
        let leido = jsonwebtoken::decode::<Claims>(token, &self.comprueba, &self.reglas);
        let claims = leido.map_err(|_| Error::Invalido)?.claims;
        // The claims are whatever was signed: no sum that could overflow on their side.
        let (desde, hasta) = (ahora.secs() + HOLGURA, ahora.secs() - HOLGURA);
        if claims.iat > desde || claims.nbf.is_some_and(|nbf| nbf > desde) {
            return Err(Error::Invalido);
        }
        if claims.exp <= hasta {
            return Err(Error::Caducado);
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    const SECRETO: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn ahora() -> Timestamp {
        Timestamp::parse("2026-11-24T12:00:00Z").unwrap()
    }

    fn b64(json: &str) -> String {
        URL_SAFE_NO_PAD.encode(json)
    }

    #[test]
    fn a_token_of_ours_is_believed_until_it_expires() {
        let firmante = Firmante::new(SECRETO);
        let claims = Claims::new("u1", ahora(), 60, "j");
        let token = firmante.firma(&claims).unwrap();
        assert_eq!(firmante.comprueba(&token, ahora()), Ok(claims));
        let despues = |s| ahora().plus(std::time::Duration::from_secs(s));
        assert!(firmante.comprueba(&token, despues(89)).is_ok());
        assert_eq!(firmante.comprueba(&token, despues(90)), Err(Error::Caducado));
    }

    #[test]
    fn attacks_are_refused() {
        let firmante = Firmante::new(SECRETO);
        let claims = Claims::new("u1", ahora(), 60, "j");
        let token = firmante.firma(&claims).unwrap();
        let (cabecera, cuerpo) = (token.split('.').next().unwrap(), token.split('.').nth(1).unwrap());
        let con = |alg, clave: &[u8], claims: &Claims| {
            jsonwebtoken::encode(&Header::new(alg), claims, &EncodingKey::from_secret(clave)).unwrap()
        };
        let de = |iss: &str, aud: &str| Claims { iss: iss.into(), aud: aud.into(), ..claims.clone() };
        let futuro = Claims::new("u1", ahora().plus(std::time::Duration::from_hours(1)), 60, "j");
        for (que, atacante) in [
            ("alg none", format!("{}.{cuerpo}.", b64(r#"{"alg":"none","typ":"JWT"}"#))),
            ("no signature", format!("{cabecera}.{cuerpo}.")),
            ("truncated", token[..token.len() - 4].to_owned()),
            ("other body", format!("{cabecera}.{}.{}", b64("{}"), token.split('.').nth(2).unwrap())),
            ("another key", con(Algorithm::HS256, b"another key of thirty-two bytes!", &claims)),
            ("another algorithm", con(Algorithm::HS384, SECRETO, &claims)),
            ("another issuer", con(Algorithm::HS256, SECRETO, &de("evil", AUD))),
            ("another audience", con(Algorithm::HS256, SECRETO, &de(ISS, "anon"))),
            ("from the future", firmante.firma(&futuro).unwrap()),
            ("empty", String::new()),
            ("garbage", "a.b.c".to_owned()),
        ] {
            assert_eq!(firmante.comprueba(&atacante, ahora()), Err(Error::Invalido), "{que}");
        }
    }

    /// Signed with our key, as somebody who shares it would.
    fn con(cambia: impl FnOnce(&mut serde_json::Value)) -> String {
        let mut claims = serde_json::to_value(Claims::new("u1", ahora(), 60, "j")).unwrap();
        cambia(&mut claims);
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(SECRETO))
            .unwrap()
    }

    #[test]
    fn a_token_is_not_good_before_its_time() {
        let firmante = Firmante::new(SECRETO);
        let desde = |s: i64| con(|c| c["nbf"] = (ahora().secs() + s).into());
        assert!(firmante.comprueba(&desde(30), ahora()).is_ok(), "two clocks may differ");
        assert_eq!(firmante.comprueba(&desde(31), ahora()), Err(Error::Invalido));
    }

    #[test]
    fn a_claim_that_is_missing_or_absurd_is_no_panic() {
        let firmante = Firmante::new(SECRETO);
        for falta in ["sub", "iat", "exp", "jti", "iss", "aud"] {
            let token = con(|c| drop(c.as_object_mut().unwrap().remove(falta)));
            assert_eq!(firmante.comprueba(&token, ahora()), Err(Error::Invalido), "{falta}");
        }
        let eterno = firmante.comprueba(&con(|c| c["exp"] = i64::MAX.into()), ahora());
        assert_eq!(eterno.map(|c| c.caduca()), Ok(Timestamp::MAX));
        assert!(firmante.comprueba(&con(|c| c["exp"] = i64::MIN.into()), ahora()).is_err());
    }
}

//! Access tokens of ours: JWT, HS256 or Ed25519, signed with the installation's secret or a key made from it.
//!
//! The algorithm is the key's ([`Clave`]); time is the [`Clock`](crate::domain::Clock)'s and not the library's.

use aws_lc_rs::signature::Ed25519KeyPair;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::clave::{AUD, Clave, vigente};
use crate::domain::Timestamp;

/// Who says so.
pub const ISS: &str = "alertrace";

/// How sure it is who somebody is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aal {
    /// By a password, or by a code that was sent to them.
    #[default]
    #[serde(rename = "aal1")]
    Uno,
    /// And by a second factor.
    #[serde(rename = "aal2")]
    Dos,
}

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
    /// The sign-in that it is of, in Supabase's word; it ends with that.
    pub session_id: String,
    /// Whether the sign-in showed a second factor, in Supabase's words.
    #[serde(default)]
    pub aal: Aal,
    /// Not good before; ours carry none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    iss: String,
    aud: String,
}

impl Claims {
    /// A token of the sign-in `sesion` of `user_id`, good for `segundos` from `ahora` on.
    #[must_use]
    pub fn new(user_id: &str, sesion: &str, ahora: Timestamp, segundos: i64, jti: &str) -> Self {
        Self {
            sub: user_id.to_owned(),
            iat: ahora.secs(),
            exp: ahora.secs().saturating_add(segundos),
            jti: jti.to_owned(),
            generacion: 0,
            session_id: sesion.to_owned(),
            aal: Aal::Uno,
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

    /// Of a sign-in that showed a second factor, or did not.
    #[must_use]
    pub const fn con_segundo(mut self, segundo: bool) -> Self {
        self.aal = if segundo { Aal::Dos } else { Aal::Uno };
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
    /// The keys that it would be checked with cannot be had now.
    #[error("the keys of the identity provider cannot be had now")]
    SinClaves,
}

/// Signs and checks tokens.
pub struct Firmante {
    firma: EncodingKey,
    cabecera: Header,
    comprueba: Clave,
    publicadas: JwkSet,
}

/// The key that tokens are signed with cannot be made: the library does not take it, which it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key that tokens are signed with cannot be made")]
pub struct SinClave;

impl Firmante {
    /// HS256, with the installation's secret.
    #[must_use]
    pub fn new(secreto: &[u8]) -> Self {
        Self {
            firma: EncodingKey::from_secret(secreto),
            cabecera: Header::new(Algorithm::HS256),
            comprueba: Clave::compartida(secreto, ISS),
            publicadas: JwkSet::default(),
        }
    }

    /// Ed25519, with a key made from the installation's secret: others can check what we sign, and whoever
    /// keeps the secret keeps the key.
    ///
    /// # Errors
    /// [`SinClave`].
    pub fn ed25519(secreto: &[u8]) -> Result<Self, SinClave> {
        let semilla = Sha256::new().chain_update(b"ed25519 tokens\0").chain_update(secreto).finalize();
        let par = Ed25519KeyPair::from_seed_unchecked(&semilla).map_err(|_| SinClave)?;
        let der = par.to_pkcs8v1().map_err(|_| SinClave)?;
        let firma = EncodingKey::from_ed_der(der.as_ref());
        let mut jwk = Jwk::from_encoding_key(&firma, Algorithm::EdDSA).map_err(|_| SinClave)?;
        let kid = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| SinClave)?;
        jwk.common.key_id = Some(kid.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let comprueba = Clave::publicada(&jwk, ISS).ok_or(SinClave)?;
        let cabecera = Header { kid: Some(kid), ..Header::new(Algorithm::EdDSA) };
        Ok(Self { firma, cabecera, comprueba, publicadas: JwkSet { keys: vec![jwk] } })
    }

    /// The keys that others check our tokens with; none where the key is a secret.
    #[must_use]
    pub const fn publicadas(&self) -> &JwkSet {
        &self.publicadas
    }

    /// The signed token.
    ///
    /// # Errors
    /// [`Error::Invalido`] when it cannot be signed.
    pub fn firma(&self, claims: &Claims) -> Result<String, Error> {
        jsonwebtoken::encode(&self.cabecera, claims, &self.firma).map_err(|_| Error::Invalido)
    }

    /// What a token says, if it is ours and of now.
    ///
    /// # Errors
    /// [`Error`].
    pub fn comprueba(&self, token: &str, ahora: Timestamp) -> Result<Claims, Error> {
        let claims: Claims = self.comprueba.lee(token)?;
        vigente(Some(claims.iat), claims.nbf, claims.exp, ahora)?;
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
        let claims = Claims::new("u1", "s1", ahora(), 60, "j");
        let token = firmante.firma(&claims).unwrap();
        assert_eq!(firmante.comprueba(&token, ahora()), Ok(claims));
        let despues = |s| ahora().plus(std::time::Duration::from_secs(s));
        assert!(firmante.comprueba(&token, despues(89)).is_ok());
        assert_eq!(firmante.comprueba(&token, despues(90)), Err(Error::Caducado));
    }

    #[test]
    fn attacks_are_refused() {
        let firmante = Firmante::new(SECRETO);
        let claims = Claims::new("u1", "s1", ahora(), 60, "j");
        let token = firmante.firma(&claims).unwrap();
        let (cabecera, cuerpo) = (token.split('.').next().unwrap(), token.split('.').nth(1).unwrap());
        let con = |alg, clave: &[u8], claims: &Claims| {
            jsonwebtoken::encode(&Header::new(alg), claims, &EncodingKey::from_secret(clave)).unwrap()
        };
        let de = |iss: &str, aud: &str| Claims { iss: iss.into(), aud: aud.into(), ..claims.clone() };
        let futuro = Claims::new("u1", "s1", ahora().plus(std::time::Duration::from_hours(1)), 60, "j");
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
            ("critical header", {
                let cabecera = Header { crit: Some(vec!["exp".to_owned()]), ..Header::new(Algorithm::HS256) };
                jsonwebtoken::encode(&cabecera, &claims, &EncodingKey::from_secret(SECRETO)).unwrap()
            }),
            ("empty", String::new()),
            ("garbage", "a.b.c".to_owned()),
        ] {
            assert_eq!(firmante.comprueba(&atacante, ahora()), Err(Error::Invalido), "{que}");
        }
    }

    /// Signed with our key, as somebody who shares it would.
    fn con(cambia: impl FnOnce(&mut serde_json::Value)) -> String {
        let mut claims = serde_json::to_value(Claims::new("u1", "s1", ahora(), 60, "j")).unwrap();
        cambia(&mut claims);
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(SECRETO))
            .unwrap()
    }

    #[test]
    fn with_ed25519_others_can_check_what_we_sign_and_nothing_else_is_believed() {
        let firmante = Firmante::ed25519(SECRETO).unwrap();
        let claims = Claims::new("u1", "s1", ahora(), 60, "j");
        let token = firmante.firma(&claims).unwrap();
        assert_eq!(firmante.comprueba(&token, ahora()), Ok(claims.clone()));
        assert_eq!(firmante.publicadas(), Firmante::ed25519(SECRETO).unwrap().publicadas(), "made once");
        let publicada = serde_json::to_value(firmante.publicadas()).unwrap();
        let clave = &publicada["keys"][0];
        assert_eq!(
            (&clave["kty"], &clave["crv"], &clave["alg"]),
            (&"OKP".into(), &"Ed25519".into(), &"EdDSA".into())
        );
        assert!(clave["d"].is_null(), "the private part stays here");
        assert_eq!(
            serde_json::to_value(Firmante::new(SECRETO).publicadas()).unwrap(),
            serde_json::json!({"keys": []})
        );
        // The public key as a shared secret, in each form that somebody could take it.
        let x = clave["x"].as_str().unwrap();
        let cruda = URL_SAFE_NO_PAD.decode(x).unwrap();
        for secreto in [x.as_bytes(), &cruda, SECRETO] {
            let cabecera =
                Header { kid: clave["kid"].as_str().map(str::to_owned), ..Header::new(Algorithm::HS256) };
            let falso = jsonwebtoken::encode(&cabecera, &claims, &EncodingKey::from_secret(secreto)).unwrap();
            assert_eq!(firmante.comprueba(&falso, ahora()), Err(Error::Invalido));
        }
        let otro = Firmante::ed25519(b"another secret of thirty-two byte").unwrap().firma(&claims).unwrap();
        assert_eq!(firmante.comprueba(&otro, ahora()), Err(Error::Invalido));
        assert_eq!(Firmante::new(SECRETO).comprueba(&token, ahora()), Err(Error::Invalido));
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

//! The keys that another server publishes (JWKS, RFC 7517): fetched when they are needed, kept, and fetched
//! again when they are old or a token names one that is not among them.
//!
//! While the other server is away, what is kept goes on being good for a day: nobody is signed out by an
//! outage, and a key that was withdrawn is not believed for ever. However many tokens with invented names
//! come, the other server is asked a few times a minute at most, one request at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::jwk::JwkSet;
use reqwest::{Client, Url};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::clave::Clave;
use super::tokens::Error;
use crate::limits::rate::Rate;

/// Longest answer that is read, in bytes: a key has some 500.
const MAX_BYTES: usize = 64 * 1024;
/// Keys that are kept of one answer.
const MAX_CLAVES: usize = 32;

/// How long keys are good.
#[derive(Debug, Clone, Copy)]
pub struct Plazos {
    /// Without asking again.
    pub frescas: Duration,
    /// At all, while nobody answers.
    pub utiles: Duration,
    /// Times a minute that the other server is asked at most; half of them at once.
    pub por_minuto: u32,
}

impl Default for Plazos {
    fn default() -> Self {
        Self { frescas: Duration::from_secs(600), utiles: Duration::from_secs(86_400), por_minuto: 6 }
    }
}

/// See the module.
pub struct Jwks {
    url: Url,
    iss: String,
    http: Client,
    plazos: Plazos,
    cuantas: Option<Rate<()>>,
    leyendo: Mutex<()>,
    juego: ArcSwap<Juego>,
}

/// What was read last.
#[derive(Default)]
struct Juego {
    claves: HashMap<String, Arc<Clave>>,
    leido: Option<Instant>,
}

impl Juego {
    fn clave(&self, kid: &str, hasta: Duration) -> Option<Arc<Clave>> {
        let reciente = self.leido.is_some_and(|leido| leido.elapsed() < hasta);
        self.claves.get(kid).filter(|_| reciente).cloned()
    }
}

impl Jwks {
    /// The keys at `url`, of tokens that `iss` issues. Nothing is asked yet.
    #[must_use]
    pub fn new(url: Url, iss: &str, http: Client, plazos: Plazos) -> Self {
        let burst = (plazos.por_minuto / 2).max(1);
        let cuantas = Rate::new(plazos.por_minuto, Duration::from_secs(60), burst);
        let (leyendo, juego) = (Mutex::default(), ArcSwap::default());
        Self { url, iss: iss.to_owned(), http, plazos, cuantas, leyendo, juego }
    }

    /// Reads the keys ahead of the first token, so that an outage after the start signs nobody out.
    pub async fn prepara(&self) {
        let _turno = self.leyendo.lock().await;
        if self.juego.load().leido.is_none() {
            self.lee().await;
        }
    }

    /// The key of this name.
    ///
    /// # Errors
    /// [`Error::Invalido`] when there is none; [`Error::SinClaves`] when that cannot be told now.
    pub async fn clave(&self, kid: &str) -> Result<Arc<Clave>, Error> {
        if let Some(clave) = self.juego.load().clave(kid, self.plazos.frescas) {
            return Ok(clave);
        }
        let vistas = self.juego.load().leido;
        let turno = match self.leyendo.try_lock() {
            Ok(turno) => turno,
            // Somebody asks already: what is kept is good enough meanwhile.
            Err(_) => match self.juego.load().clave(kid, self.plazos.utiles) {
                Some(clave) => return Ok(clave),
                None => self.leyendo.lock().await,
            },
        };
        // Whoever was before us may have read them.
        if self.juego.load().leido == vistas {
            self.lee().await;
        }
        drop(turno);
        let juego = self.juego.load();
        let vivas = juego.leido.is_some_and(|leido| leido.elapsed() < self.plazos.utiles);
        let falta = if vivas { Error::Invalido } else { Error::SinClaves };
        juego.clave(kid, self.plazos.utiles).ok_or(falta)
    }

    /// Reads them, if it may; what is kept stays when that fails.
    async fn lee(&self) {
        if self.cuantas.as_ref().is_some_and(|c| c.check(()).is_err()) {
            return;
        }
        match self.pide().await {
            Ok(claves) => {
                tracing::debug!(keys = claves.len(), "the identity provider's keys were read");
                self.juego.store(Arc::new(Juego { claves, leido: Some(Instant::now()) }));
            }
            Err(e) => {
                let e = e.to_string();
                tracing::warn!(error = e, "the identity provider's keys cannot be read; those known go on");
            }
        }
    }

    async fn pide(&self) -> Result<HashMap<String, Arc<Clave>>, super::supabase::Fallo> {
        let answer = self.http.get(self.url.clone()).send().await?.error_for_status()?;
        let bytes = super::supabase::read(answer, MAX_BYTES).await?;
        let juego: JwkSet = serde_json::from_slice(&bytes)?;
        let una = |jwk: &jsonwebtoken::jwk::Jwk| {
            let kid = jwk.common.key_id.clone()?;
            Some((kid, Arc::new(Clave::publicada(jwk, &self.iss)?)))
        };
        Ok(juego.keys.iter().filter_map(una).take(MAX_CLAVES).collect())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::tokens::Firmante;
    use super::*;

    /// Serves keys while there are any, and counts how often it is asked.
    async fn servidor()
    -> (Url, tokio::sync::watch::Sender<Option<String>>, Arc<std::sync::atomic::AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let (di, dice) = tokio::sync::watch::channel(None::<String>);
        let veces = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let suyas = veces.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                suyas.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]).await;
                let answer = match &*dice.borrow() {
                    Some(body) => format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                        body.len()
                    ),
                    None => "HTTP/1.1 503 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
                };
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (url, di, veces)
    }

    #[tokio::test]
    async fn what_is_kept_is_good_for_a_while_when_nobody_answers_and_no_longer() {
        let firmante = Firmante::ed25519(b"a secret of more than thirty-two bytes").unwrap();
        let kid = firmante.publicadas().keys[0].common.key_id.clone().unwrap();
        let body = serde_json::to_string(firmante.publicadas()).unwrap();
        let (url, di, veces) = servidor().await;
        let plazos =
            Plazos { frescas: Duration::ZERO, utiles: Duration::from_millis(300), por_minuto: 1_000 };
        let jwks = Jwks::new(url, "alertrace", Client::new(), plazos);
        assert_eq!(
            jwks.clave(&kid).await.err(),
            Some(Error::SinClaves),
            "nothing is known, and that is not a no"
        );
        di.send_replace(Some(body));
        assert!(jwks.clave(&kid).await.is_ok());
        assert_eq!(jwks.clave("another").await.err(), Some(Error::Invalido));
        di.send_replace(None);
        let antes = veces.load(std::sync::atomic::Ordering::SeqCst);
        assert!(jwks.clave(&kid).await.is_ok(), "stale, while there is an error");
        assert!(veces.load(std::sync::atomic::Ordering::SeqCst) > antes, "and it was asked");
        tokio::time::sleep(Duration::from_millis(350)).await;
        assert_eq!(jwks.clave(&kid).await.err(), Some(Error::SinClaves), "not for ever");
    }

    #[test]
    fn keys_that_tokens_are_not_checked_with_are_left_out() {
        for jwk in [
            serde_json::json!({ "kty": "oct", "kid": "a", "k": "c2VjcmV0" }),
            serde_json::json!({ "kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB" }),
            serde_json::json!({ "kty": "RSA", "kid": "a", "use": "enc", "n": "A".repeat(400), "e": "AQAB" }),
            serde_json::json!({ "kty": "RSA", "kid": "a", "alg": "RS512", "n": "B".repeat(400), "e": "AQAB" }),
        ] {
            assert!(Clave::publicada(&serde_json::from_value(jwk.clone()).unwrap(), "x").is_none(), "{jwk}");
        }
        let good = serde_json::json!({ "kty": "RSA", "kid": "a", "alg": "RS256", "n": "B".repeat(400), "e": "AQAB" });
        assert!(Clave::publicada(&serde_json::from_value(good).unwrap(), "x").is_some());
    }
}

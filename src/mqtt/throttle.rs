//! How fast one client may send, how often a sign-in may fail, and what of all limits was met.
//!
//! A client that sends faster than it may is slowed down: its socket is not read for a while. One that
//! keeps at it is ended. Sign-ins are held back by address and name together, so that one device with a
//! wrong token does not lock out the others behind the same router.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::counter;
use tokio::time::Instant;

/// Counts that a limit was met: which, by the name of its setting.
pub(super) fn limita(cual: &'static str) {
    counter!("alertrace_mqtt_limited_total", "limit" => cual).increment(1);
}

/// A pause as long as this between two delays is obedience.
const PAUSA: Duration = Duration::from_secs(1);
/// Pairs of address and name that are remembered.
const MAX_PARES: usize = 10_000;

/// A leaking bucket that holds what one second allows.
#[derive(Debug)]
pub(super) struct Caudal {
    por_segundo: f64,
    lleno: f64,
    visto: Instant,
}

impl Caudal {
    /// `por_segundo` = 0: no limit.
    pub(super) fn new(por_segundo: u64, ahora: Instant) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a rate is far below 2^52")]
        Self { por_segundo: por_segundo as f64, lleno: 0.0, visto: ahora }
    }

    /// What may come in a second, at least one.
    fn un_segundo(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "made from a whole number"
        )]
        let n = self.por_segundo as usize;
        n.max(1)
    }

    /// `n` more came; answers how long to wait before the next.
    fn toma(&mut self, n: usize, ahora: Instant) -> Duration {
        if self.por_segundo <= 0.0 {
            return Duration::ZERO;
        }
        let pasado = ahora.saturating_duration_since(self.visto).as_secs_f64();
        self.visto = ahora;
        #[expect(clippy::cast_precision_loss, reason = "bytes of one read")]
        let n = n as f64;
        self.lleno = (self.lleno - pasado * self.por_segundo).max(0.0) + n;
        Duration::from_secs_f64(((self.lleno - self.por_segundo) / self.por_segundo).max(0.0))
    }
}

/// What one client may send.
#[derive(Debug)]
pub(super) struct Freno {
    mensajes: Caudal,
    bytes: Caudal,
    /// One that is slowed down for this long without a pause is ended.
    paciencia: Duration,
    hasta: Option<Instant>,
    /// Since when it has been slowed down again and again.
    desde: Option<Instant>,
}

impl Freno {
    /// What may come in a second (0 = no limit).
    pub(super) fn new(mensajes: u64, bytes: u64, paciencia: Duration) -> Self {
        let ahora = Instant::now();
        let (mensajes, bytes) = (Caudal::new(mensajes, ahora), Caudal::new(bytes, ahora));
        Self { mensajes, bytes, paciencia, hasta: None, desde: None }
    }

    /// So much was asked for at once as `n` messages are: a second's worth at most, or one large
    /// subscription would take for long what a small limit allows.
    pub(super) fn mensajes(&mut self, n: usize) {
        let espera = self.mensajes.toma(n.min(self.mensajes.un_segundo()), Instant::now());
        self.espera(espera);
    }

    pub(super) fn lee(&mut self, bytes: usize) {
        let espera = self.bytes.toma(bytes, Instant::now());
        self.espera(espera);
    }

    fn espera(&mut self, espera: Duration) {
        if espera.is_zero() {
            return;
        }
        let ahora = Instant::now();
        if self.hasta.is_none_or(|h| ahora > h + PAUSA) {
            self.desde = Some(ahora);
            limita("rate");
        }
        self.hasta = Some(self.hasta.unwrap_or(ahora).max(ahora + espera));
    }

    /// Until when nothing is read.
    pub(super) fn hasta(&self) -> Option<Instant> {
        self.hasta.filter(|h| *h > Instant::now())
    }

    /// It does not slow down. Looked at when a delay is over, too.
    pub(super) fn harta(&self) -> bool {
        self.hasta.is_some_and(|h| Instant::now() <= h + PAUSA)
            && self.desde.is_some_and(|d| d.elapsed() > self.paciencia)
    }
}

/// Failed sign-ins by address and name.
#[derive(Debug)]
pub(super) struct Intentos {
    mapa: Mutex<HashMap<(IpAddr, String), (u32, Instant)>>,
    /// Sign-ins that may fail before the next ones wait.
    libres: u32,
    /// The longest that a sign-in is held back, and how long a failure is remembered.
    espera_maxima: Duration,
}

impl Intentos {
    /// See the fields.
    pub(super) fn new(libres: u32, espera_maxima: Duration) -> Self {
        Self { mapa: Mutex::default(), libres, espera_maxima }
    }

    /// How long `usuario` from `ip` has to wait before it may try again.
    pub(super) fn espera(&self, ip: IpAddr, usuario: &str) -> Option<Duration> {
        let mapa = self.mapa.lock().unwrap_or_else(PoisonError::into_inner);
        let (fallos, ultimo) = mapa.get(&(ip, usuario.to_owned()))?;
        let castigo =
            Duration::from_secs(1 << fallos.checked_sub(self.libres)?.min(12)).min(self.espera_maxima);
        castigo.checked_sub(ultimo.elapsed()).filter(|e| !e.is_zero())
    }

    /// A sign-in failed.
    pub(super) fn falla(&self, ip: IpAddr, usuario: &str) {
        let mut mapa = self.mapa.lock().unwrap_or_else(PoisonError::into_inner);
        if mapa.len() >= MAX_PARES {
            mapa.retain(|_, (_, ultimo)| ultimo.elapsed() < self.espera_maxima);
            if mapa.len() >= MAX_PARES {
                // A flood of names: what it would be held back by is the limit on connections.
                return;
            }
        }
        let entrada = mapa.entry((ip, usuario.to_owned())).or_insert((0, Instant::now()));
        if entrada.1.elapsed() > self.espera_maxima * 2 {
            entrada.0 = 0;
        }
        *entrada = (entrada.0.saturating_add(1), Instant::now());
    }

    /// A sign-in succeeded.
    pub(super) fn acierta(&self, ip: IpAddr, usuario: &str) {
        self.mapa.lock().unwrap_or_else(PoisonError::into_inner).remove(&(ip, usuario.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_sends_too_fast_waits_and_who_keeps_at_it_is_ended() {
        let mut freno = Freno::new(10, 0, Duration::from_secs(60));
        for _ in 0..10 {
            freno.mensajes(1);
        }
        assert!(freno.hasta().is_none(), "a second's worth at once is fine");
        freno.mensajes(1);
        assert!(freno.hasta().is_some());
        for _ in 0..70 {
            assert!(freno.desde.is_some());
            tokio::time::advance(Duration::from_secs(1)).await;
            for _ in 0..11 {
                freno.mensajes(1);
            }
        }
        assert!(freno.harta());
        tokio::time::advance(Duration::from_secs(30)).await;
        freno.mensajes(1);
        assert!(freno.hasta().is_none() && !freno.harta(), "a pause makes it good");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_make_the_next_sign_in_wait_longer_each_time() {
        const ESPERA_MAXIMA: Duration = Duration::from_secs(60);
        let intentos = Intentos::new(5, ESPERA_MAXIMA);
        let ip = IpAddr::from([10, 0, 0, 1]);
        for _ in 0..4 {
            intentos.falla(ip, "s1");
        }
        assert_eq!(intentos.espera(ip, "s1"), None);
        intentos.falla(ip, "s1");
        assert_eq!(intentos.espera(ip, "s1"), Some(Duration::from_secs(1)));
        assert_eq!(intentos.espera(ip, "s2"), None, "others behind the same address do not wait");
        for _ in 0..20 {
            intentos.falla(ip, "s1");
        }
        assert_eq!(intentos.espera(ip, "s1"), Some(ESPERA_MAXIMA));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(intentos.espera(ip, "s1"), None);
        intentos.acierta(ip, "s1");
        assert_eq!(intentos.espera(ip, "s1"), None);
    }
}

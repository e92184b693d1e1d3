//! Mail: links by which an e-mail is confirmed or a forgotten password replaced.
//!
//! By SMTP; or, for a demonstration, into the log; or not at all, which whoever asks is told. A message is sent
//! after the answer: how long it takes says nothing about who has an account, and a slow mail server holds nobody up.
//! A bounded number is under way, and one account gets one message a minute.

use std::sync::Arc;
use std::time::Duration;

use lettre::message::{Mailbox, header::ContentType};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use metrics::counter;
use tokio::sync::Semaphore;

use super::cuentas::Error;
use crate::limits::rate::Rate;

/// Messages under way.
const A_LA_VEZ: usize = 16;
/// One delivery.
const PLAZO: Duration = Duration::from_secs(20);

/// Where messages go.
pub enum Transporte {
    /// Nowhere: what needs them is not there.
    Ninguno,
    /// Into the log.
    Registro,
    /// To a mail server.
    Smtp(Box<AsyncSmtpTransport<Tokio1Executor>>),
}

/// See the module.
pub struct Correo {
    transporte: Arc<Transporte>,
    de: Mailbox,
    /// The front end, for links that lead there.
    sitio: String,
    /// This server, as people reach it.
    publico: String,
    plazas: Arc<Semaphore>,
    por_cuenta: Option<Rate<String>>,
}

/// What cannot be had of the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Malo {
    /// Not an address that can be written to.
    #[error("mail.from is no mailbox: {0}")]
    De(#[from] lettre::address::AddressError),
    /// Not the address of a mail server.
    #[error("mail.smtp_url cannot be used: {0}")]
    Url(#[from] lettre::transport::smtp::Error),
}

impl Correo {
    /// From whom; `sitio` is the front end, `publico` this server.
    ///
    /// # Errors
    /// [`Malo::De`].
    pub fn new(transporte: Transporte, de: &str, sitio: &str, publico: &str) -> Result<Self, Malo> {
        Ok(Self {
            transporte: Arc::new(transporte),
            de: de.parse()?,
            sitio: sitio.trim_end_matches('/').to_owned(),
            publico: publico.trim_end_matches('/').to_owned(),
            plazas: Arc::new(Semaphore::new(A_LA_VEZ)),
            por_cuenta: Rate::new(1, Duration::from_secs(60), 1),
        })
    }

    /// A server that sends nothing.
    ///
    /// # Errors
    /// [`Malo::De`], which it does not.
    pub fn ninguno() -> Result<Self, Malo> {
        Self::new(Transporte::Ninguno, "alertrace@localhost", "", "")
    }

    /// A mail server's address: `smtps://`, or `smtp://` with `?tls=required` for STARTTLS.
    ///
    /// # Errors
    /// [`Malo::Url`].
    pub fn smtp(url: &str) -> Result<Transporte, Malo> {
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url)?.timeout(Some(PLAZO)).build();
        Ok(Transporte::Smtp(Box::new(transport)))
    }

    /// Whether messages can be sent at all.
    ///
    /// # Errors
    /// [`Error::SinCorreo`].
    pub fn listo(&self) -> Result<(), Error> {
        if matches!(*self.transporte, Transporte::Ninguno) { Err(Error::SinCorreo) } else { Ok(()) }
    }

    /// The front end's address.
    #[must_use]
    pub fn sitio(&self) -> &str {
        &self.sitio
    }

    /// This server's address, as people reach it.
    #[must_use]
    pub fn publico(&self) -> &str {
        &self.publico
    }

    /// Whether an account may get a message now.
    #[must_use]
    pub fn puede(&self, email: &str) -> bool {
        self.por_cuenta.as_ref().is_none_or(|rate| rate.check(email.to_owned()).is_ok())
    }

    /// Sends a message, some time.
    pub fn envia(&self, para: &str, asunto: &str, texto: String) {
        let transport = match &*self.transporte {
            Transporte::Ninguno => return,
            Transporte::Registro => {
                tracing::warn!(
                    para,
                    asunto,
                    texto,
                    "mail is not sent but written here (mail.transport = \"log\")"
                );
                return;
            }
            Transporte::Smtp(_) => self.transporte.clone(),
        };
        let Ok(plaza) = self.plazas.clone().try_acquire_owned() else {
            counter!("alertrace_mail_total", "result" => "dropped").increment(1);
            tracing::error!("a message was not sent: too many are under way");
            return;
        };
        let Ok(to) = para.parse::<Mailbox>() else {
            tracing::warn!("a message was not sent: its address is none");
            return;
        };
        let message = Message::builder().from(self.de.clone()).to(to).subject(asunto);
        let message = message.header(ContentType::TEXT_PLAIN).body(texto);
        tokio::spawn(async move {
            let _plaza = plaza;
            let (Transporte::Smtp(smtp), Ok(message)) = (&*transport, message) else { return };
            let sent = tokio::time::timeout(PLAZO, smtp.send(message)).await;
            let error = match sent {
                Ok(Ok(_)) => {
                    counter!("alertrace_mail_total", "result" => "sent").increment(1);
                    return;
                }
                Ok(Err(e)) => e.to_string(),
                Err(_) => "the mail server does not answer in time".to_owned(),
            };
            counter!("alertrace_mail_total", "result" => "failed").increment(1);
            tracing::error!(error, "a message could not be sent; ask for it again");
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_bounded_number_of_messages_is_under_way_and_there_is_room_again() {
        crate::tls::install_provider();
        // It takes connections, and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}", silent.local_addr().unwrap());
        let correo = Correo::new(Correo::smtp(&url).unwrap(), "a@x.pe", "", "").unwrap();
        for n in 0..3 * A_LA_VEZ {
            correo.envia(&format!("p{n}@x.pe"), "asunto", String::new());
            assert_eq!(correo.plazas.available_permits(), A_LA_VEZ.saturating_sub(n + 1));
        }
        // Whoever waited for the mail server is told that it is gone.
        drop(silent);
        while correo.plazas.available_permits() < A_LA_VEZ {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn one_address_gets_a_message_a_minute_and_others_theirs() {
        let correo = Correo::ninguno().unwrap();
        assert!(correo.puede("a@x.pe") && correo.puede("b@x.pe"));
        assert!(!correo.puede("a@x.pe"));
    }
}

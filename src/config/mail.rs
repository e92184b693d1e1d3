//! `[mail]`: how messages leave, and where their links lead.

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::reader::Reader;

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTransport {
    /// Nowhere: what needs them is not there.
    Off,
    /// To a mail server.
    Smtp,
    /// Into the log, links and all: for a demonstration.
    Log,
}

/// `[mail]`
#[derive(Debug, Clone)]
pub struct Mail {
    /// Where messages go.
    pub transport: MailTransport,
    /// The mail server, with the password.
    pub smtp_url: Option<SecretString>,
    /// From whom messages are.
    pub from: String,
    /// The front end.
    pub site_url: String,
    /// This server, as people reach it.
    pub public_url: String,
}

impl Mail {
    pub(super) fn read(r: &mut Reader) -> Self {
        let transports =
            [("off", MailTransport::Off), ("smtp", MailTransport::Smtp), ("log", MailTransport::Log)];
        let mail = Self {
            transport: r.choice("mail.transport", &transports).unwrap_or(MailTransport::Off),
            smtp_url: r.secret("mail.smtp_url"),
            from: r.required_text("mail.from"),
            site_url: web(r, "mail.site_url"),
            public_url: web(r, "mail.public_url"),
        };
        if mail.transport == MailTransport::Smtp {
            let scheme = |url: &SecretString| {
                let url = Url::parse(url.expose_secret()).ok();
                url.is_some_and(|u| ["smtp", "smtps"].contains(&u.scheme()) && u.has_host())
            };
            if !mail.smtp_url.as_ref().is_some_and(scheme) {
                r.invalid(
                    "mail.smtp_url",
                    "smtps://USER:PASSWORD@HOST, or smtp://USER:PASSWORD@HOST:587?tls=required",
                );
            }
        }
        mail
    }
}

/// An address of the web.
fn web(r: &mut Reader, key: &str) -> String {
    let text = r.text(key);
    let good = Url::parse(&text).is_ok_and(|u| ["http", "https"].contains(&u.scheme()) && u.has_host());
    if !good {
        r.invalid(key, "an address such as https://alertrace.finca.example");
    }
    text
}

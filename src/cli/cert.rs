//! `alertrace cert`: the site's certificates, beside a server that runs or without one. A running
//! server follows what these commands change within seconds.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Subcommand;

use crate::config::Config;
use crate::domain::{Clock, DeviceId, SystemClock, Timestamp};
use crate::telemetry;
use crate::tls::{Certificate, Change, DEFAULT_DAYS, Revocation, Site};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the site's authority and the server's certificate, where they are not there yet.
    Init,
    /// Show the certificates: the authority's, the server's, those of devices.
    #[command(visible_alias = "list")]
    Show,
    /// Sign a device's request (CSR); the name in the certificate is the device's, whatever the request says.
    Sign {
        /// The request, PEM or DER.
        #[arg(long, value_name = "FILE")]
        csr: PathBuf,
        #[command(flatten)]
        device: Device,
        /// Where the certificate goes (default: standard output).
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Make a private key and a certificate for a device, and put them with the authority's into a directory.
    Bundle {
        #[command(flatten)]
        device: Device,
        /// The directory, made if it is not there.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Refuse certificates of devices from now on.
    Revoke(Which),
    /// Make the server's certificate anew, with the names that are configured and that this machine has now.
    Renew {
        /// Make a new private key too.
        #[arg(long)]
        new_key: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Device {
    /// The device's `device_id`.
    #[arg(long = "device", value_name = "ID", value_parser = DeviceId::new)]
    id: DeviceId,
    /// Days that the certificate is good for.
    #[arg(long, default_value_t = DEFAULT_DAYS, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    days: u64,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// All certificates that were issued to a device so far.
    #[arg(long, value_name = "ID", value_parser = DeviceId::new)]
    device: Option<DeviceId>,
    /// One certificate, by its serial number.
    #[arg(long, value_name = "SERIAL")]
    serial: Option<String>,
}

/// Does it, and says what to do next.
pub(super) fn run(args: &Args, config: &Config) -> anyhow::Result<()> {
    telemetry::init(&config.log)?;
    let site = Site::new(&config.tls, Arc::new(SystemClock));
    let text = match &args.command {
        Command::Init => init(&site)?,
        Command::Show => show(&site, SystemClock.now())?,
        Command::Sign { csr, device, out } => sign(&site, csr, device, out.as_ref())?,
        Command::Bundle { device, out } => bundle(&site, config, device, out)?,
        Command::Revoke(which) => revoke(&site, which)?,
        Command::Renew { new_key } => {
            let made = site.renew(*new_key)?;
            format!("The server's certificate was made anew.\n{}", described("Server", &made)?)
        }
    };
    // A reader that has seen enough (`| head`) is no failure.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(())
}

fn init(site: &Site) -> anyhow::Result<String> {
    let dir = site.dir().display();
    let changes = site.init()?;
    let mut text = String::new();
    for change in &changes {
        match change {
            Change::AuthorityMade => writeln!(
                text,
                "Made this site's authority: {dir}/ca.pem, for every device and browser that should trust this server; \
                 {dir}/ca.key, which nobody may read. Back both up."
            ),
            Change::CertificateMade => writeln!(text, "Made the server's certificate: {dir}/server.pem."),
            Change::CertificateRenewed(why) => writeln!(text, "Renewed the server's certificate: {why}."),
        }?;
    }
    if changes.is_empty() {
        writeln!(text, "All is there already, in {dir}.")?;
    }
    text += &described("Server", &site.server()?)?;
    text += "\nNext: `alertrace cert bundle --device ID --out DIR` for a device that signs in with a certificate.\n";
    Ok(text)
}

fn show(site: &Site, now: Timestamp) -> anyhow::Result<String> {
    let mut text = String::new();
    if let Some(authority) = site.authority_certificate()? {
        text += &described("Authority", &authority)?;
        if !site.can_sign() {
            text += "  its private key (ca.key) is not here: sign devices where it is kept\n";
        }
    } else {
        text += "Authority: none (`alertrace cert init` makes one)\n";
    }
    let server = site.server()?;
    text += &described("Server", &server)?;
    writeln!(text, "  {}", expiry(&server, now))?;
    for name in site.missing(&server) {
        writeln!(text, "  without {name}, which tls.names asks for: `alertrace cert renew` puts it in")?;
    }
    for address in Site::missing_addresses(&server) {
        writeln!(text, "  without {address}, an address of this machine: `alertrace cert renew` puts it in")?;
    }
    let (devices, revoked) = (site.devices()?, site.revoked()?);
    writeln!(text, "Devices: {}", devices.len())?;
    for device in &devices {
        let name = device.common_name.as_deref().unwrap_or("?");
        let state = if revoked.contains(&device.serial) { "revoked".into() } else { expiry(device, now) };
        writeln!(text, "  {name}  serial {}  {state}", device.serial)?;
    }
    let elsewhere = |r: &&Revocation| !devices.iter().any(|d| d.serial == r.serial);
    for revocation in revoked.list().into_iter().filter(elsewhere) {
        writeln!(text, "  (issued elsewhere)  serial {}  revoked", revocation.serial)?;
    }
    Ok(text)
}

fn described(what: &str, certificate: &Certificate) -> Result<String, std::fmt::Error> {
    let Certificate { subject, issuer, serial, names, not_after, .. } = certificate;
    let mut text = format!("{what}: {subject}\n  serial {serial}, until {not_after}\n");
    if issuer != subject {
        writeln!(text, "  issued by {issuer}")?;
    }
    if !names.is_empty() {
        writeln!(text, "  names {}", names.join(", "))?;
    }
    Ok(text)
}

fn expiry(certificate: &Certificate, now: Timestamp) -> String {
    match certificate.days_left(now) {
        days if days < 0 => format!("expired on {}", certificate.not_after),
        days => format!("good for {days} days"),
    }
}

fn sign(site: &Site, csr: &PathBuf, device: &Device, out: Option<&PathBuf>) -> anyhow::Result<String> {
    let request = std::fs::read(csr).with_context(|| format!("cannot read {}", csr.display()))?;
    // Before anything is signed that then has nowhere to go.
    let file = out
        .map(|out| std::fs::File::create_new(out).with_context(|| format!("cannot write {}", out.display())));
    let file = file.transpose()?;
    let signed = site.sign(&request, &device.id, device.days);
    let Some((mut file, out)) = file.zip(out) else { return Ok(signed?.1) };
    let (certificate, pem) = match signed {
        Ok(signed) => signed,
        Err(e) => {
            // Empty, and of no use to anybody.
            let _ = std::fs::remove_file(out);
            return Err(e.into());
        }
    };
    file.write_all(pem.as_bytes()).with_context(|| format!("cannot write {}", out.display()))?;
    Ok(format!(
        "{} has the certificate of {} (serial {}, until {}).\nPut it on the device, with {} to check the server by.\n{}",
        out.display(),
        device.id,
        certificate.serial,
        certificate.not_after,
        site.dir().join("ca.pem").display(),
        registered(&device.id),
    ))
}

fn bundle(site: &Site, config: &Config, device: &Device, out: &std::path::Path) -> anyhow::Result<String> {
    let made = site.bundle(&device.id, device.days, out)?;
    let id = &device.id;
    let port = config.mqtt.tls_listen.map_or(8883, |address| address.port());
    let mut text = format!(
        "{} has the private key of {id}, {} its certificate (serial {}, until {}), {} the authority's.\n\
         The key is nowhere else: put all three on the device, then delete them here.\n{}\
         Try it:\n  mosquitto_pub --cafile {} --cert {} --key {} -h HOST -p {port} -V 5 -q 1 \\\n    \
         -t sensores/{id}/data -m '{{\"temperatura\": 21.5}}'\n",
        made.key_path.display(),
        made.certificate_path.display(),
        made.certificate.serial,
        made.certificate.not_after,
        made.ca_path.display(),
        registered(id),
        made.ca_path.display(),
        made.certificate_path.display(),
        made.key_path.display(),
    );
    if let (Ok(server), Ok(Some(authority))) = (site.server(), site.authority_certificate())
        && !server.is_issued_by(&authority)
    {
        writeln!(
            text,
            "This server's own certificate is from {}: the device checks it by that authority, not by ca.pem.",
            server.issuer
        )?;
    }
    Ok(text)
}

fn registered(id: &DeviceId) -> String {
    format!("It signs in once {id} is registered (POST /api/v1/sensores), and until that is undone.\n")
}

fn revoke(site: &Site, which: &Which) -> anyhow::Result<String> {
    let new = match (&which.device, &which.serial) {
        (Some(device), _) => site.revoke_device(device)?,
        (None, Some(serial)) => site.revoke_serial(serial)?,
        (None, None) => anyhow::bail!("name what to revoke: --device ID or --serial SERIAL"),
    };
    if new.is_empty() {
        return Ok("Revoked before; nothing changed.\n".into());
    }
    let mut text = String::new();
    for Revocation { serial, device_id, .. } in &new {
        let whose = device_id.as_deref().map(|id| format!(" of {id}")).unwrap_or_default();
        writeln!(text, "Certificate {serial}{whose} is refused from now on.")?;
    }
    text +=
        "A running server cuts the device off within seconds. Its token, if it has one, still signs it in.\n";
    Ok(text)
}

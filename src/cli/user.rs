//! `alertrace user`: accounts without HTTP, the first of all.

use std::io::Read as _;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Subcommand;

use crate::config::{self, Config};
use crate::domain::SystemClock;
use crate::identity::cuentas::{Cuentas, NuevaEmpresa};
use crate::store::Store;
use crate::{app, telemetry};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an account: an empresa and its administrator, or the installation's operador. The server
    /// must not be running.
    Create {
        /// E-mail that signs in.
        #[arg(long)]
        email: String,
        /// Read the password from standard input (its first line).
        #[arg(long, required = true)]
        password_stdin: bool,
        /// RUC of the new empresa, 11 digits.
        #[arg(long, value_name = "RUC", required_unless_present = "operador", conflicts_with = "operador")]
        empresa: Option<String>,
        /// Make the account that runs the installation: it sees every connection, and no empresa's data.
        #[arg(long)]
        operador: bool,
        /// Name of the new empresa (default: its RUC).
        #[arg(long, value_name = "NAME")]
        razon_social: Option<String>,
        /// Given name of the administrator.
        #[arg(long, default_value = "Administrador")]
        nombre: String,
        /// Surname of the administrator.
        #[arg(long, default_value = "")]
        apellido: String,
    },
    /// Take away the second factor of somebody who has lost it and their recovery codes. The server must not be running.
    RemoveTotp {
        /// E-mail that signs in.
        #[arg(long)]
        email: String,
    },
}

/// Changes accounts, and says what was done.
pub(super) async fn run(args: &Args, config: &Config) -> anyhow::Result<()> {
    telemetry::init(&config.log)?;
    match &args.command {
        Command::Create { .. } => create(&args.command, config).await,
        Command::RemoveTotp { email } => remove_totp(email, config).await,
    }
}

async fn remove_totp(email: &str, config: &Config) -> anyhow::Result<()> {
    let (cuentas, store) = accounts(config).await?;
    cuentas.totp_quita_en_consola(email).await?;
    store.close().await;
    println!("{email} signs in with the password alone from now on");
    Ok(())
}

async fn accounts(config: &Config) -> anyhow::Result<(Cuentas, Store)> {
    let secret = config::secrets::jwt_secret(config)?;
    let store = app::open_store(config).await?;
    let cuentas =
        app::accounts(config, store.clone(), Arc::new(SystemClock), Arc::default(), secret.expose())?;
    Ok((cuentas, store))
}

async fn create(command: &Command, config: &Config) -> anyhow::Result<()> {
    let Command::Create { email, empresa, razon_social, nombre, apellido, .. } = command else {
        return Ok(());
    };
    if let Some(ruc) = empresa {
        anyhow::ensure!(
            ruc.len() == 11 && ruc.bytes().all(|b| b.is_ascii_digit()),
            "--empresa takes a RUC: 11 digits, got {ruc:?}"
        );
    }
    anyhow::ensure!(email.contains('@'), "--email takes an e-mail address, got {email:?}");
    let mut password = String::new();
    std::io::stdin().read_to_string(&mut password).context("cannot read the password from standard input")?;
    let password = password.lines().next().unwrap_or_default().to_owned();
    let (cuentas, store) = accounts(config).await?;
    let made = match empresa {
        Some(ruc) => {
            let nueva = NuevaEmpresa {
                email: email.clone(),
                password,
                nombre: nombre.clone(),
                apellido: apellido.clone(),
                dni: None,
                telefono: None,
                ruc: ruc.clone(),
                razon_social: razon_social.clone().unwrap_or_else(|| ruc.clone()),
                empresa_email: None,
            };
            cuentas.create_admin(nueva).await?
        }
        None => cuentas.create_operador(email, &password, nombre, apellido).await?,
    };
    store.close().await;
    let what =
        empresa.as_ref().map_or_else(|| "runs the installation".into(), |ruc| format!("administers {ruc}"));
    println!("{} {what} (user_id {})", made.email, made.user_id);
    Ok(())
}

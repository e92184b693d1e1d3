//! Backups of PostgreSQL: its own `pg_dump` and `pg_restore` do the work, told where and as whom.
//!
//! The password goes by the environment, since everybody can read the arguments of a process.

use std::path::Path;
use std::process::Command;

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::super::backup::Contents;
use super::super::migrations::{self, Applied, Step};
use super::super::{Error, Result};
use super::{Options, conexion, migraciones};
use crate::domain::Timestamp;

/// How a file of `pg_dump --format=custom` begins.
const MAGIC: &[u8] = b"PGDMP";

/// Where the data is, for PostgreSQL's own programs.
#[derive(Debug)]
pub struct Volcado {
    /// The address, without the password.
    url: Url,
    password: Option<SecretString>,
    env: Vec<(&'static str, String)>,
    schema: String,
}

impl Volcado {
    /// Takes the address past a pooler, where there is one: a dump is one long session.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] when the address is none.
    pub fn new(options: &Options) -> Result<Self> {
        let address = options.direct_url.as_ref().unwrap_or(&options.url);
        let no_address = |_| Error::inconsistent("the address of PostgreSQL cannot be taken apart");
        let mut url = Url::parse(address.expose_secret()).map_err(no_address)?;
        let mut password = url.password().map(|p| percent_decode_str(p).decode_utf8_lossy().into_owned());
        let _ = url.set_password(None);
        let mut kept = Vec::new();
        for pair in url.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            match pair.strip_prefix("password=") {
                Some(p) => password = Some(percent_decode_str(p).decode_utf8_lossy().into_owned()),
                None => kept.push(pair.to_owned()),
            }
        }
        url.set_query((!kept.is_empty()).then(|| kept.join("&")).as_deref());
        let mut env = vec![("PGAPPNAME", String::from("alertrace backup"))];
        if let Some(ca) = &options.ca {
            // What the address itself says comes first; see `conexion::options`.
            env.push(("PGSSLMODE", String::from("verify-full")));
            env.push(("PGSSLROOTCERT", ca.display().to_string()));
        }
        Ok(Self { url, password: password.map(SecretString::from), env, schema: options.schema.clone() })
    }

    /// The program that writes a dump to `out`.
    #[must_use]
    pub fn dump(&self, out: &Path) -> Command {
        let mut command = Command::new("pg_dump");
        command
            .args(["--format=custom", "--no-password"])
            .arg(format!("--schema=\"{}\"", self.schema))
            .arg("--file")
            .arg(out)
            .arg(format!("--dbname={}", self.url))
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(password) = &self.password {
            command.env("PGPASSWORD", password.expose_secret());
        }
        command
    }

    /// The same for a person to run, who knows the password; what comes of it is that person's alone, too.
    #[must_use]
    pub fn dump_line(&self, out: &Path) -> String {
        let Self { url, schema, .. } = self;
        let out = out.display();
        format!("(umask 077; pg_dump --format=custom --schema={schema} --file='{out}' --dbname='{url}')")
    }

    /// What a person runs to put the dump `file` back, keeping what is there under another name, which ends
    /// in `date`.
    #[must_use]
    pub fn restore_lines(&self, file: &Path, date: &str) -> [String; 2] {
        let Self { url, schema, .. } = self;
        // PostgreSQL cuts a name off at 63 bytes.
        let aside = format!("{}_{date}", &schema[..schema.len().min(48)]);
        [
            format!("psql --dbname='{url}' -c 'ALTER SCHEMA {schema} RENAME TO {aside}'"),
            format!(
                "pg_restore --single-transaction --exit-on-error --no-owner --dbname='{url}' '{}'",
                file.display()
            ),
        ]
    }
}

/// Whether that is a dump.
#[must_use]
pub fn is_dump(begin: &[u8]) -> bool {
    begin.starts_with(MAGIC)
}

/// The program that reads the whole of a dump, and does nothing with it.
#[must_use]
pub fn read_all(file: &Path) -> Command {
    let mut command = Command::new("pg_restore");
    command.args(["--file", "/dev/null"]).arg(file);
    command
}

/// The program that lists what is in a dump.
#[must_use]
pub fn list(file: &Path) -> Command {
    let mut command = Command::new("pg_restore");
    command.arg("--list").arg(file);
    command
}

/// The program that prints what [`contents`] reads.
#[must_use]
pub fn rows(file: &Path) -> Command {
    let mut command = Command::new("pg_restore");
    command.args(["--data-only", "--file=-"]);
    for table in ["migraciones", "empresas", "sensores", "ultimas_lecturas"] {
        command.args(["--table", table]);
    }
    command.arg(file);
    command
}

/// What a dump says of itself, by the rows that `COPY` would load.
///
/// # Errors
/// [`Error::Newer`]; [`Error::Inconsistent`] when it is no dump of Alertrace's schema.
pub fn contents(copied: &str, bytes: u64) -> Result<Contents> {
    let mut applied: Vec<Applied> = Vec::new();
    let (mut empresas, mut sensores, mut newest) = (0, 0, None);
    let mut inside: Option<(String, Vec<&str>)> = None;
    for line in copied.lines() {
        let Some((table, columns)) = &inside else {
            inside = header(line);
            continue;
        };
        if line == "\\." {
            inside = None;
            continue;
        }
        let of = |name| {
            let place = columns.iter().position(|column| *column == name)?;
            line.split('\t').nth(place)
        };
        match table.as_str() {
            "migraciones" => applied.push(Applied {
                version: of("version").and_then(|v| v.parse().ok()).unwrap_or_default(),
                description: of("descripcion").unwrap_or_default().to_owned(),
            }),
            "empresas" => empresas += 1,
            "sensores" => sensores += 1,
            _ => newest = newest.max(of("ts").and_then(|ts| ts.parse::<i64>().ok())),
        }
    }
    migrations::check(migraciones::LISTA, &applied)?;
    let last = applied.iter().max_by_key(|a| a.version);
    let last = last.ok_or_else(|| Error::inconsistent("it is not a dump of Alertrace's schema"))?;
    Ok(Contents {
        schema: last.version,
        description: last.description.clone(),
        bytes,
        empresas,
        sensores,
        lecturas: None,
        newest: newest.map(Timestamp::clamped),
    })
}

/// `COPY alertrace.sensores (id_sensor, …) FROM stdin;`
fn header(line: &str) -> Option<(String, Vec<&str>)> {
    let (table, columns) = line.strip_prefix("COPY ")?.strip_suffix(") FROM stdin;")?.split_once(" (")?;
    let table = table.rsplit('.').next()?.trim_matches('"').to_owned();
    Some((table, columns.split(", ").collect()))
}

/// The versions of the schema, as PostgreSQL has them. A schema that is not there has none, and is not made.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn schema(options: &Options) -> Result<Vec<Step>> {
    let conexion = conexion::options(&options.url, options.ca.as_deref())?;
    let applied = migraciones::look(&conexion, &options.schema).await?;
    Ok(migrations::steps(migraciones::LISTA, applied))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Volcado {
        let options = Options {
            url: SecretString::from(url),
            direct_url: None,
            ca: None,
            schema: String::from("alertrace"),
            max_connections: 1,
            acquire_timeout: std::time::Duration::ZERO,
            data_dir: std::path::PathBuf::new(),
            copy: true,
        };
        Volcado::new(&options).unwrap()
    }

    #[test]
    fn the_password_is_in_the_environment_and_nowhere_else() {
        for url in [
            "postgres://u:no%2Fes%3Asecreta@h:5433/d?sslmode=disable",
            "postgres://u@h:5433/d?password=no%2Fes%3Asecreta&sslmode=disable",
        ] {
            let volcado = of(url);
            let command = volcado.dump(Path::new("/x/a.dump"));
            let args = command.get_args().map(|a| a.to_str().unwrap()).collect::<Vec<_>>().join(" ");
            assert!(args.contains("--dbname=postgres://u@h:5433/d?sslmode=disable"), "{args}");
            let password = command.get_envs().find(|(name, _)| *name == "PGPASSWORD").unwrap().1;
            assert_eq!(password.unwrap(), "no/es:secreta");
            let shown = format!("{args} {volcado:?} {}", volcado.dump_line(Path::new("a")));
            assert!(!shown.contains("secreta"), "{shown}");
        }
    }

    #[test]
    fn a_dump_that_is_not_ours_or_is_newer_is_refused() {
        let copy = |version: i64| {
            format!(
                "--\nCOPY a.migraciones (version, descripcion, sha256) FROM stdin;\n1\tinicial\t\\\\x00\n\
                 {version}\tx (alertrace 8.0.0)\t\\\\x00\n\\.\n\n\
                 COPY a.sensores (id_sensor, nombre) FROM stdin;\n1\tCOPY a.b (c) FROM stdin;\n2\tb\n\\.\n"
            )
        };
        let here = contents(&copy(2), 7).unwrap();
        assert_eq!((here.schema, here.empresas, here.sensores, here.newest), (2, 0, 2, None));
        assert!(matches!(contents(&copy(99), 7), Err(Error::Newer { schema: 99, .. })));
        assert!(matches!(contents("", 7), Err(Error::Inconsistent(_))));
    }
}

//! The real binary, on free ports and a directory of its own.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::documented;
use super::postgres::{self, Database};
use reqwest::{Certificate, Client as Http, Method, Response};
use serde_json::{Value, json};

const BIN: &str = env!("CARGO_BIN_EXE_alertrace");
pub const EMAIL: &str = "admin@fundo.pe";
pub const PASSWORD: &str = "una clave larga";

/// A device and how it signs in.
#[derive(Debug, Clone)]
pub struct Device {
    pub id_sensor: i64,
    pub id: String,
    pub token: String,
}

/// Variables that say where a server has its data.
pub type Place = Vec<(&'static str, String)>;

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    dir: tempfile::TempDir,
    pub place: Place,
    /// What the test changed in its environment: kept when it starts again.
    envs: Vec<(OsString, OsString)>,
    pub http: String,
    pub mqtt: String,
    /// MQTT over TLS; empty when it is off.
    pub mqtts: String,
    client: Http,
    https: bool,
    pub token: String,
}

/// The binary with the environment of a server that lives in `dir`.
pub fn command(dir: &Path) -> Command {
    command_at(dir, &place(dir, postgres::of_this_run()))
}

fn command_at(dir: &Path, place: &Place) -> Command {
    let mut command = Command::new(BIN);
    configure(&mut command, dir);
    command.envs(place.iter().cloned());
    command
}

fn configure(command: &mut Command, dir: &Path) {
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("ALERTRACE__DATA_DIR", dir.join("data"))
        .env("ALERTRACE__HTTP__LISTEN", "127.0.0.1:0")
        .env("ALERTRACE__MQTT__LISTEN", "127.0.0.1:0")
        .env("ALERTRACE__MQTT__TLS_LISTEN", "127.0.0.1:0")
        .env("ALERTRACE__IDENTITY__REGISTRATION", "open")
        .env("ALERTRACE__LOG__FORMAT", "json")
        .current_dir(dir);
}

/// What tells a server in `dir` where its data is: with PostgreSQL, in a schema of its own.
pub fn place(dir: &Path, database: Database) -> Place {
    let schema = || ("ALERTRACE__DATABASE__SCHEMA", schema(dir));
    match database {
        Database::Sqlite => Place::new(),
        Database::Postgres => vec![("DATABASE_URL", postgres::shared().url()), schema()],
        Database::Pgbouncer => {
            let cluster = postgres::shared();
            vec![("DATABASE_URL", cluster.pooler_url()), ("DIRECT_URL", cluster.url()), schema()]
        }
    }
}

/// A schema for a directory: its name in hexadecimal, since names fold case.
pub fn schema(dir: &Path) -> String {
    let name = dir.file_name().expect("a name").as_encoded_bytes();
    name.iter().fold(String::from("t"), |text, byte| format!("{text}{byte:02x}"))
}

/// Makes an empresa and its administrator; answers whether that went well.
pub fn create_account(dir: &Path, place: &Place, email: &str, ruc: &str) -> bool {
    let mut create = command_at(dir, place)
        .args(["user", "create", "--email", email, "--password-stdin", "--empresa", ruc])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary starts");
    // One that ends at once reads nothing.
    let _ = create.stdin.take().expect("piped").write_all(PASSWORD.as_bytes());
    create.wait().expect("it ends").success()
}

/// Starts the server through `command`; answers the child and where it listens: HTTP, MQTT, MQTT
/// over TLS.
fn launch(mut command: Command) -> (Child, [String; 3]) {
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the binary starts");
    let stderr = BufReader::new(child.stderr.take().expect("piped"));
    let (say, hear) = std::sync::mpsc::channel();
    // Reads to the end, so that the server never blocks on its log.
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            eprintln!("{line}");
            let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
            if line["message"] == "ready" {
                let address = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
                let _ = say.send(["http", "mqtt", "mqtts"].map(address));
            }
        }
    });
    (child, hear.recv_timeout(Duration::from_secs(60)).expect("the server gets ready"))
}

impl Server {
    /// Starts one with an empresa and its administrator.
    pub async fn start() -> Self {
        Self::start_with(|command| command).await
    }

    /// As [`Self::start`]; `wrap` may change the command that runs the server.
    pub async fn start_with(wrap: impl FnOnce(Command) -> Command) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let place = place(dir.path(), postgres::of_this_run());
        Self::start_in(dir, place, wrap).await
    }

    /// As [`Self::start`], on a database that the test has chosen.
    pub async fn start_on(database: Database) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let place = place(dir.path(), database);
        Self::start_in(dir, place, |command| command).await
    }

    /// As [`Self::start_with`], in a directory and on a database that the test has chosen.
    pub async fn start_in(
        dir: tempfile::TempDir,
        place: Place,
        wrap: impl FnOnce(Command) -> Command,
    ) -> Self {
        assert!(create_account(dir.path(), &place, EMAIL, "20123456789"), "user create");
        Self::take_over_with(dir, place, wrap).await
    }

    /// Starts one on a database that has the administrator already.
    pub async fn take_over(dir: tempfile::TempDir, place: Place) -> Self {
        Self::take_over_with(dir, place, |command| command).await
    }

    async fn take_over_with(
        dir: tempfile::TempDir,
        place: Place,
        wrap: impl FnOnce(Command) -> Command,
    ) -> Self {
        let mut server = Self::open(dir, place, wrap);
        server.token = server.sign_in(EMAIL).await;
        server
    }

    /// Starts one on whatever is in the directory, and signs nobody in.
    pub fn open(dir: tempfile::TempDir, place: Place, wrap: impl FnOnce(Command) -> Command) -> Self {
        let mut serve = wrap(command_at(dir.path(), &place));
        serve.arg("serve");
        let pair = |(key, value): (&OsStr, Option<&OsStr>)| Some((key.to_owned(), value?.to_owned()));
        let envs = serve.get_envs().filter_map(pair).collect();
        let https = serve
            .get_envs()
            .any(|(key, value)| key == "ALERTRACE__HTTP__TLS" && value == Some("true".as_ref()));
        let (child, [http, mqtt, mqtts]) = launch(serve);
        let mut client = Http::builder();
        if https {
            let ca = std::fs::read(dir.path().join("certs/ca.pem")).expect("the site's authority");
            client = client.tls_certs_only([Certificate::from_pem(&ca).expect("a certificate")]);
        }
        let client = client.build().expect("a client");
        Self { child, dir, place, envs, http, mqtt, mqtts, client, https, token: String::new() }
    }

    /// The binary, for a test that wraps it (`strace`).
    pub fn wrapped(program: &str, args: &[&str], inner: &Command) -> Command {
        let mut outer = Command::new(program);
        outer.args(args).arg(inner.get_program());
        for (key, value) in inner.get_envs() {
            if let Some(value) = value {
                outer.env(key, value);
            }
        }
        if let Some(dir) = inner.get_current_dir() {
            outer.current_dir(dir);
        }
        outer
    }

    /// The process that was started: the server's own, unless a wrapper stays in between.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the process as a power cut would, as far as a process can tell.
    pub fn kill(&mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("it ends");
    }

    /// As [`Self::kill`], and starts it again.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        let mut serve = command_at(self.dir.path(), &self.place);
        serve.arg("serve").envs(self.envs.iter().cloned());
        (self.child, [self.http, self.mqtt, self.mqtts]) = launch(serve);
    }

    /// Starts it again, and returns as soon as it has taken the data directory.
    pub fn launch_and_do_not_wait(&mut self) {
        let mut serve = command_at(self.dir.path(), &self.place);
        self.child = serve.arg("serve").stderr(Stdio::null()).spawn().expect("the binary starts");
        let pid = self.child.id().to_string();
        let holds = || std::fs::read_to_string(self.data_dir().join("alertrace.lock")).unwrap_or_default();
        let start = std::time::Instant::now();
        while holds().trim() != pid {
            assert!(start.elapsed() < Duration::from_secs(10), "it does not take its lock");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until it ends by itself; answers its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        let start = std::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status.code();
            }
            assert!(start.elapsed() < Duration::from_secs(20), "the server does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks it to stop; answers its exit code and how long it took.
    pub async fn terminate(&mut self) -> (Option<i32>, Duration) {
        let start = std::time::Instant::now();
        // The server's own process, which is not our child where the test wraps it.
        let lock = std::fs::read_to_string(self.data_dir().join("alertrace.lock")).expect("the lock file");
        let pid = lock.trim();
        assert!(Command::new("kill").args(["-TERM", pid]).status().expect("kill runs").success());
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return (status.code(), start.elapsed());
            }
            assert!(start.elapsed() < Duration::from_secs(20), "the server does not stop");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The site's authority, for clients.
    /// The binary, on this server's directory.
    pub fn command(&self) -> Command {
        command_at(self.dir.path(), &self.place)
    }

    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("certs/ca.pem")
    }

    /// Runs a command of the binary beside the server; answers its output, which must be a success.
    pub fn run(&self, args: &[&str]) -> String {
        let output = command_at(self.dir.path(), &self.place).args(args).output().expect("the binary starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs SQL on the server's database, for what no route does: people of every role.
    pub fn sql(&self, sql: &str) {
        if let Some((_, schema)) = self.place.iter().find(|(key, _)| *key == "ALERTRACE__DATABASE__SCHEMA") {
            postgres::shared().sql(&format!("SET search_path TO {schema}; {sql}"));
            return;
        }
        let script = "import sqlite3, sys\n\
                      db = sqlite3.connect(sys.argv[1], timeout=10)\n\
                      db.executescript(sys.argv[2])\n\
                      db.commit()";
        let mut python = Command::new("python3");
        python.args(["-c", script]).arg(self.data_dir().join("alertrace.db")).arg(sql);
        assert!(python.status().expect("python3 runs").success(), "{sql}");
    }

    /// All that is in a table, in no order that means anything.
    pub fn rows(&self, table: &str) -> String {
        if let Some((_, schema)) = self.place.iter().find(|(key, _)| *key == "ALERTRACE__DATABASE__SCHEMA") {
            return postgres::shared().sql(&format!("SELECT t::text FROM {schema}.{table} t ORDER BY 1"));
        }
        let script = "import sqlite3, sys\n\
                      db = sqlite3.connect(sys.argv[1], timeout=10)\n\
                      print(sorted(map(repr, db.execute('SELECT * FROM ' + sys.argv[2]))))";
        let mut python = Command::new("python3");
        let output =
            python.args(["-c", script]).arg(self.data_dir().join("alertrace.db")).arg(table).output();
        let output = output.expect("python3 runs");
        assert!(output.status.success(), "{table}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// The server's working directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub async fn sign_in(&self, email: &str) -> String {
        let body = json!({ "email": email, "password": PASSWORD });
        let answer = self.request(Method::POST, "/api/v1/auth/login", "", Some(body)).await;
        assert_eq!(answer.status(), 200, "sign-in");
        let body: Value = answer.json().await.expect("JSON");
        body["access_token"].as_str().expect("a token").to_owned()
    }

    pub async fn request(&self, method: Method, path: &str, token: &str, body: Option<Value>) -> Response {
        let mut request = self.client.request(
            method.clone(),
            format!("{}://{}{path}", if self.https { "https" } else { "http" }, self.http),
        );
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("an answer");
        documented::check(method.as_str(), path, answer.status().as_u16());
        answer
    }

    /// GET as the administrator; must be 200.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.request(Method::GET, path, &self.token, None).await;
        assert_eq!(answer.status(), 200, "GET {path}");
        answer.json().await.expect("JSON")
    }

    /// Registers a device.
    pub async fn device(&self, id: &str) -> Device {
        self.device_of(id, &self.token).await
    }

    pub async fn device_of(&self, id: &str, token: &str) -> Device {
        let body = json!({ "device_id": id, "nombre": id, "tipo": "prueba" });
        let answer = self.request(Method::POST, "/api/v1/sensores", token, Some(body)).await;
        assert_eq!(answer.status(), 201, "register {id}");
        let body: Value = answer.json().await.expect("JSON");
        Device {
            id_sensor: body["sensor"]["id_sensor"].as_i64().expect("a key"),
            id: id.to_owned(),
            token: body["credenciales"]["token"].as_str().expect("a token").to_owned(),
        }
    }

    /// The readings of a device, oldest first.
    pub async fn readings(&self, device: &Device) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        let mut from = "1970-01-01T00:00:00Z".to_owned();
        loop {
            let path =
                format!("/api/v1/sensores/{}/lecturas?orden=asc&limit=1000&desde={from}", device.id_sensor);
            let page = self.get(&path).await;
            let page = page.as_array().expect("an array").clone();
            // `desde` is inclusive: the last of one page is the first of the next.
            let seen = all.last().is_some_and(|last| page.first() == Some(last));
            all.extend(page.iter().skip(usize::from(seen)).cloned());
            if page.len() < 1_000 {
                return all;
            }
            page[page.len() - 1]["timestamp"].as_str().expect("a moment").clone_into(&mut from);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

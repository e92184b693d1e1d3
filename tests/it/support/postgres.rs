//! A PostgreSQL cluster of the tests' own, and a PgBouncer in front of it.
//!
//! One cluster serves a run: the first test that asks starts it in `target/it-postgres`, and it stops by
//! itself when no test has been there for a while. With `ALERTRACE_TEST_DATABASE=postgres` (or
//! `pgbouncer`) every [`super::Server`] is on it, in a schema of its own.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Who connects, and with which password.
pub const USER: &str = "alertrace";
pub const PASSWORD: &str = "no/es:secreta";

/// Where a server of the test has its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
    /// Through PgBouncer in transaction mode.
    Pgbouncer,
}

/// Which database this run is about.
pub fn of_this_run() -> Database {
    match std::env::var("ALERTRACE_TEST_DATABASE").as_deref() {
        Err(_) | Ok("" | "sqlite") => Database::Sqlite,
        Ok("postgres") => Database::Postgres,
        Ok("pgbouncer") => Database::Pgbouncer,
        Ok(other) => panic!("ALERTRACE_TEST_DATABASE is {other:?}; sqlite, postgres and pgbouncer are known"),
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    pub port: u16,
    pub pooler_port: u16,
    /// Stops with this value; else it is shared.
    own: Option<tempfile::TempDir>,
}

/// The cluster of this run.
pub fn shared() -> &'static Cluster {
    /// Held for reading by every process that uses the cluster.
    static USERS: OnceLock<(Cluster, File)> = OnceLock::new();
    let start = || {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/it-postgres");
        std::fs::create_dir_all(&dir).expect("a directory");
        let open = |name: &str| {
            let path = dir.join(name);
            OpenOptions::new().create(true).truncate(false).write(true).open(path).expect("a lock file")
        };
        let users = open("users");
        users.lock_shared().expect("a lock");
        let starting = open("starting");
        starting.lock().expect("a lock");
        let cluster = Cluster::running(&dir).unwrap_or_else(|| {
            let cluster = Cluster::start(&dir, None);
            cluster.stop_when_nobody_is_left();
            cluster
        });
        (cluster, users)
    };
    &USERS.get_or_init(start).0
}

impl Cluster {
    /// A cluster that ends with the test, which may do with it what it likes.
    pub fn own() -> Self {
        let dir = tempfile::Builder::new().prefix("it-pg-").tempdir().expect("a temporary directory");
        let path = dir.path().to_owned();
        Self::start(&path, Some(dir))
    }

    fn running(dir: &Path) -> Option<Self> {
        let ports = std::fs::read_to_string(dir.join("ports")).ok()?;
        let (port, pooler_port) = ports.trim().split_once(' ')?;
        let cluster = Self {
            dir: dir.to_owned(),
            port: port.parse().ok()?,
            pooler_port: pooler_port.parse().ok()?,
            own: None,
        };
        (answers(cluster.port) && answers(cluster.pooler_port)).then_some(cluster)
    }

    fn start(dir: &Path, own: Option<tempfile::TempDir>) -> Self {
        let cluster = Self { dir: dir.to_owned(), port: free_port(), pooler_port: free_port(), own };
        for leftover in ["data", "ports", "pgbouncer.pid"] {
            let path = dir.join(leftover);
            let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
        }
        if is_root() {
            // PostgreSQL and PgBouncer refuse to run as root.
            run(Command::new("chown").arg("postgres").arg(dir));
        }
        let (data, password) = (dir.join("data"), dir.join("password"));
        std::fs::write(&password, PASSWORD).expect("a file");
        run(as_postgres(&bin("initdb")).arg("-D").arg(&data).arg("--pwfile").arg(&password).args([
            // Its files are no loss; what is written later is synced.
            "--no-sync",
            "-U",
            USER,
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-instructions",
        ]));
        let config = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\nmax_connections = 300\n\
             shared_buffers = 64MB\nfsync = on\n",
            cluster.port,
            dir.display()
        );
        std::fs::write(dir.join("extra.conf"), config).expect("a file");
        let line = format!("\ninclude '{}'\n", dir.join("extra.conf").display());
        let conf = data.join("postgresql.conf");
        let text = std::fs::read_to_string(&conf).expect("a file") + &line;
        std::fs::write(&conf, text).expect("a file");
        cluster.start_server();
        cluster.start_pooler();
        std::fs::write(dir.join("ports"), format!("{} {}\n", cluster.port, cluster.pooler_port))
            .expect("a file");
        cluster
    }

    /// `postgres://…`, as somebody would put it into DATABASE_URL.
    pub fn url(&self) -> String {
        format!("postgres://{USER}:no%2Fes%3Asecreta@127.0.0.1:{}/postgres", self.port)
    }

    /// As [`Self::url`], through PgBouncer in transaction mode.
    pub fn pooler_url(&self) -> String {
        format!("postgres://{USER}:no%2Fes%3Asecreta@127.0.0.1:{}/postgres", self.pooler_port)
    }

    /// Runs SQL; answers what psql prints of it, unaligned.
    pub fn sql(&self, sql: &str) -> String {
        let output =
            Command::new("psql").args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]).arg(self.url()).output();
        let output = output.expect("psql runs");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    pub fn start_server(&self) {
        let log = self.dir.join("log");
        let start = || {
            let mut command = as_postgres(&bin("pg_ctl"));
            command.arg("-D").arg(self.data()).arg("-l").arg(&log).args(["-w", "-t", "60", "start"]);
            command
        };
        // After a kill the server's children hold its shared memory until they have noticed.
        for _ in 0..60 {
            if succeeds(&mut start()).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
        run(&mut start());
    }

    /// `mode`: `fast` ends every connection; `immediate` is as good as a kill.
    pub fn stop_server(&self, mode: &str) {
        run(as_postgres(&bin("pg_ctl")).arg("-D").arg(self.data()).args(["-w", "-m", mode, "stop"]));
    }

    /// The server's own process.
    pub fn server_pid(&self) -> String {
        let pid = std::fs::read_to_string(self.data().join("postmaster.pid")).expect("it runs");
        pid.lines().next().expect("a line").to_owned()
    }

    /// The directory of the cluster's files.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn start_pooler(&self) {
        let users = self.dir.join("users.txt");
        std::fs::write(&users, format!("\"{USER}\" \"{PASSWORD}\"\n")).expect("a file");
        // The defaults, but for what a test needs: few connections, so that sessions are shared.
        let ini = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = 5\nmax_client_conn = 1000\nlogfile = {}\npidfile = {}\n",
            self.port,
            self.pooler_port,
            users.display(),
            self.dir.join("pgbouncer.log").display(),
            self.dir.join("pgbouncer.pid").display()
        );
        let path = self.dir.join("pgbouncer.ini");
        std::fs::write(&path, ini).expect("a file");
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&users));
        }
        run(as_postgres("/usr/sbin/pgbouncer").args(["-q", "-d"]).arg(path));
        let start = Instant::now();
        while !answers(self.pooler_port) {
            assert!(start.elapsed() < Duration::from_secs(10), "PgBouncer does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the cluster when its lock has been free for a while: tests come and go, and how a run ends
    /// nobody can say in advance. `scripts/test` does not wait for that.
    fn stop_when_nobody_is_left(&self) {
        let script = r#"exec 9>"$0/users"
            while sleep 15; do flock -n 9 && break; done
            exec "$1" "$0" "#;
        let stop = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/stop-test-postgres");
        let mut command = Command::new("setsid");
        command.args(["-f", "sh", "-c", script]).arg(&self.dir).arg(stop);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().expect("setsid runs").success());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.own.is_some() {
            let stop = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/stop-test-postgres");
            let _ = Command::new(stop).arg(&self.dir).status();
        }
    }
}

fn answers(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// A program of PostgreSQL: Debian keeps them by version.
fn bin(name: &str) -> String {
    let debian = "/usr/lib/postgresql";
    let mut versions: Vec<u32> = std::fs::read_dir(debian).map_or_else(
        |_| Vec::new(),
        |dir| dir.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect(),
    );
    versions.sort_unstable();
    versions.last().map_or_else(|| name.to_owned(), |v| format!("{debian}/{v}/bin/{name}"))
}

pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// A command, not as root.
pub fn as_postgres(program: &str) -> Command {
    if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--", program]);
        command.current_dir("/");
        command
    } else {
        Command::new(program)
    }
}

fn run(command: &mut Command) {
    if let Err(text) = succeeds(command) {
        panic!("{command:?}: {text}");
    }
}

fn succeeds(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped());
    // What is started stays, and must not hold a pipe of ours open.
    let log = tempfile::tempfile().expect("a file");
    let status =
        output.stdout(Stdio::null()).stderr(log.try_clone().expect("a file")).status().expect("it runs");
    if !status.success() {
        use std::io::{Read as _, Seek as _};
        let (mut log, mut text) = (log, String::new());
        let _ = log.rewind().and_then(|()| log.read_to_string(&mut text));
        return Err(text);
    }
    Ok(())
}

//! Power is lost at every moment of hundreds of commits (R-PROC-5, R10 of the scoreboard): the writes of a running
//! server to its data files are recorded, images of all states in which a disk may be left are built from the record,
//! and each is opened with the store's own code.
//!
//! A disk may keep any part of the writes that were not made durable, in any order. So for the writes between two syncs
//! the images have every prefix of them, every suffix, each one alone, each one missing, random choices, and choices in
//! which a write is torn at a sector of 512 bytes. A write of a descriptor with `O_DSYNC` is a sync of its own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use relay::store::queue::Queue;
use relay::store::{Missing, Store};
use serde_json::{Value, json};

use crate::common::http::HttpConnection;
use crate::common::server::{RunningProcess, TestServer, addresses, data_directory};
use crate::common::signal::signal_process;
use crate::common::socket::Socket;
use crate::common::{PATIENCE, cli, eventually_within, http};

/// Changes that are made and acknowledged, one commit each.
const CHANGES: usize = 220;
const IMAGES_MIN: usize = 5_000;
const SECTOR_BYTES: usize = 512;
/// Images that show that the check can fail.
const CONTROLS: usize = 20;

/// R-PROC-5, R10: a server adds and removes webhook endpoints, one commit each, and its answers are counted. Every
/// image opens, and shows exactly the changes that had been answered, or one more. Images without the order that syncs
/// guarantee do not, so the check can fail.
#[test]
fn acknowledged_changes_are_a_prefix() {
    let place = data_directory();
    let data = place.path().join("data");
    let app = cli::create_app(&data, &[]);
    start_once(&data);
    let base = fs::read(data.join("data.mdb")).unwrap();
    let record = place.path().join("record");
    let mut states = vec![BTreeSet::new()];
    let server = recorded(&data, &record, &[]);
    let mut connection = HttpConnection::open(server.address);
    let mut present: Vec<(String, String)> = Vec::new();
    let headers = [("X-Relay-Key", app.key.as_str()), ("X-Relay-Secret", app.secret.as_str())];
    for number in 0..CHANGES {
        if number % 3 == 2 || present.len() == 20 {
            let (_, id) = present.remove(number * 7 % present.len());
            connection.send("DELETE", &app.path(&format!("/webhooks/{id}")), &headers, b"");
            connection.read().expect(204);
        } else {
            let url = format!("https://example.com/{number}/{}", "x".repeat(number * 37 % 1_500));
            connection.send("POST", &app.path("/webhooks"), &headers, json!({ "url": url }).to_string().as_bytes());
            let id = connection.read().expect(201).json()["id"].as_str().unwrap().to_owned();
            present.push((url, id));
        }
        states.push(present.iter().map(|(url, _)| url.clone()).collect());
    }
    server.end();

    let epochs = epochs(&fs::read(&record).unwrap(), 0);
    let read = |directory: &Path| -> Result<BTreeSet<String>, String> {
        let store = Store::open(directory, Missing::Refuse).map_err(|error| error.to_string())?;
        store.directory().map_err(|error| error.to_string())?;
        let webhooks = store.webhooks(Some(&app.id)).map_err(|error| error.to_string())?;
        Ok(webhooks.into_iter().map(|(_, webhook)| webhook.url).collect())
    };
    let mut replay = Replay::new(place.path().join("image"), base.clone(), "data.mdb");
    let found = replay.run(&epochs, &states, read);
    println!("apps: {} commits, {} images, {} of them bad", found.commits, found.images, found.bad.len());
    assert_eq!(found.commits, CHANGES, "each answer is one commit");
    assert!(found.bad.is_empty(), "{:#?}", &found.bad[..found.bad.len().min(5)]);
    assert!(found.images >= IMAGES_MIN, "{}", found.images);

    // Without the sync before it, the meta page may be on disk before the pages that it refers to. A separate program
    // opens these images: LMDB trusts its file, and may crash on them.
    let image = Replay::new(place.path().join("unordered"), Vec::new(), "data.mdb");
    let (mut disk, mut bad) = (base, 0);
    for (number, pair) in epochs.chunks_exact(2).take(CONTROLS).enumerate() {
        let mut unordered = disk.clone();
        pair[1].iter().for_each(|write| write.apply(&mut unordered, write.bytes.len()));
        let list = |directory: &Path| {
            let data = directory.to_str().unwrap();
            Ok(cli::run(&["webhook", "list", "--app", &app.id, "--json", "--data", data]))
        };
        let output = image.open(&unordered, list).unwrap();
        let urls = output.status.success().then(|| serde_json::from_slice::<Vec<Value>>(&output.stdout).unwrap());
        let urls = urls.map(|list| list.iter().map(|webhook| webhook["url"].as_str().unwrap().to_owned()).collect());
        bad += usize::from(urls.is_none_or(|urls| !states[number..=number + 1].contains(&urls)));
        pair.concat().iter().for_each(|write| write.apply(&mut disk, write.bytes.len()));
    }
    println!("apps, were there no sync before the meta page: {bad} of {CONTROLS} images are bad");
    assert!(bad > CONTROLS / 2, "{bad}");
}

/// R-PROC-5, P-HOOK-7: the same for the queue of webhooks, with deliveries that are added and tried again: every image
/// opens, and shows the queue before or after a commit and nothing between.
#[test]
fn the_webhook_queue_survives() {
    let place = data_directory();
    let data = place.path().join("data");
    let app = cli::create_app(&data, &["client_events=true", "max_client_events_per_second=0"]);
    // Nobody listens there.
    cli::add_webhook(&data, &app, &["--url", "http://127.0.0.1:1/", "--events", "client_event", "--allow-private"]);
    start_once(&data);
    let base = fs::read(data.join("webhooks/data.mdb")).unwrap();
    let record = place.path().join("record");
    let server = recorded(&data, &record, &["--webhook-retry-ms", "10"]);
    let adopted = TestServer::adopt(server.address, app.clone());
    let mut socket = Socket::open(&adopted, &app);
    socket.subscribe("private-a");
    // One more than asserted: an event counts as waiting shortly before its commit, and the server is killed then.
    for number in 0..=CHANGES as u64 {
        let data = "x".repeat(number as usize * 41 % 6_000);
        socket.send_json(&json!({"event": "client-e", "channel": "private-a", "data": data}));
        eventually_within("the event is in the queue", PATIENCE, || (server.waiting() > number).then_some(()));
    }
    server.end();

    let epochs = epochs(&fs::read(&record).unwrap(), 1);
    let read = |directory: &Path| -> Result<Vec<String>, String> {
        let queue = Queue::open(directory, Missing::Refuse).map_err(|error| error.to_string())?;
        let deliveries = queue.deliveries().map_err(|error| error.to_string())?;
        let body =
            |number| queue.body(number).map_err(|error| error.to_string()).map(|body| body.map(|body| body.len()));
        deliveries.iter().map(|delivery| Ok(format!("{delivery:?} {:?}", body(delivery.number)?))).collect()
    };
    let mut states = vec![Vec::new()];
    let mut disk = base.clone();
    let probe = Replay::new(place.path().join("probe"), Vec::new(), "webhooks/data.mdb");
    for epoch in &epochs {
        epoch.iter().for_each(|write| write.apply(&mut disk, write.bytes.len()));
        if is_commit(epoch) {
            states.push(probe.open(&disk, read).expect("the state after a commit"));
        }
    }
    let added = states.last().unwrap().len();
    assert!(added >= CHANGES, "{added}");
    let found = Replay::new(place.path().join("image"), base, "webhooks/data.mdb").run(&epochs, &states, read);
    println!("webhooks: {} commits, {} images, {} of them bad", found.commits, found.images, found.bad.len());
    assert!(found.commits >= CHANGES, "{}", found.commits);
    assert!(found.bad.is_empty(), "{:#?}", &found.bad[..found.bad.len().min(5)]);
    assert!(found.images >= IMAGES_MIN, "{}", found.images);
}

/// Has a server create its files, so that the record begins with complete ones.
pub(crate) fn start_once(data: &Path) {
    let mut process = RunningProcess::relay(&arguments(data));
    process.listening_line();
    signal_process(process.pid(), "TERM");
    assert!(process.wait(PATIENCE).success(), "{}", process.log());
}

fn arguments(data: &Path) -> Vec<&str> {
    let ports = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--shards", "2", "--drain-ms", "0"];
    [&["serve", "--data", data.to_str().unwrap()][..], &ports].concat()
}

/// A server whose writes are recorded.
pub(crate) struct Recorded {
    process: RunningProcess,
    pub(crate) address: std::net::SocketAddr,
    health: std::net::SocketAddr,
}

pub(crate) fn recorded(data: &Path, record: &Path, more: &[&str]) -> Recorded {
    let mut command = cli::command("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(cli::binary()).args(arguments(data)).args(more);
    command.env("LD_PRELOAD", recorder(record.parent().unwrap())).env("RELAY_TEST_RECORD", record);
    command.env("RELAY_TEST_FAIL", record.with_file_name("fail"));
    let mut process = RunningProcess::spawn(command);
    let (address, health) = addresses(&process.listening_line());
    Recorded { process, address, health }
}

impl Recorded {
    fn waiting(&self) -> u64 {
        let page = http::get(self.health, "/metrics").expect(200);
        let line = page.text().lines().find(|line| line.starts_with("relay_webhook_queue ")).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    pub(crate) fn end(mut self) {
        signal_process(self.process.pid(), "KILL");
        self.process.wait(PATIENCE);
    }
}

/// The library that records, compiled by the C compiler that also compiles LMDB.
fn recorder(place: &Path) -> PathBuf {
    let library = place.join("recorder.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reliability/recorder.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl").stdin(Stdio::null());
    assert!(compiler.status().expect("a C compiler").success());
    library
}

#[derive(Clone, Debug)]
struct Write {
    offset: usize,
    bytes: Vec<u8>,
    durable: bool,
}

impl Write {
    /// Writes its first bytes to the disk.
    fn apply(&self, disk: &mut Vec<u8>, bytes: usize) {
        let end = self.offset + bytes;
        if disk.len() < end {
            disk.resize(end, 0);
        }
        disk[self.offset..end].copy_from_slice(&self.bytes[..bytes]);
    }
}

/// The writes to one file, in groups that end with a sync.
fn epochs(record: &[u8], file: u8) -> Vec<Vec<Write>> {
    let (mut epochs, mut open) = (Vec::new(), Vec::new());
    let mut rest = record;
    while !rest.is_empty() {
        let (head, after) = rest.split_at(24);
        let number = |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().unwrap()) as usize;
        let (bytes, after) = after.split_at(number(16));
        rest = after;
        if head[1] != file {
            continue;
        }
        match head[0] {
            b'W' => {
                open.push(Write { offset: number(8), bytes: bytes.to_vec(), durable: head[2] == 1 });
                if head[2] == 1 {
                    epochs.push(std::mem::take(&mut open));
                }
            }
            b'S' if !open.is_empty() => epochs.push(std::mem::take(&mut open)),
            b'S' => {}
            kind => panic!("an entry of kind {kind}: LMDB is not expected to do that"),
        }
    }
    epochs
}

/// The write of a meta page ends a commit; nothing else goes through the synchronous descriptor.
fn is_commit(epoch: &[Write]) -> bool {
    epoch.last().is_some_and(|write| write.durable)
}

struct Replay {
    folder: PathBuf,
    file: PathBuf,
    disk: Vec<u8>,
    random: u64,
}

#[derive(Debug, Default)]
struct Found {
    commits: usize,
    images: usize,
    bad: Vec<String>,
}

impl Replay {
    fn new(folder: PathBuf, disk: Vec<u8>, file: &str) -> Self {
        let file = folder.join(file);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(file.parent().unwrap()).unwrap();
        Self { folder, file, disk, random: 0x9E37_79B9_7F4A_7C15 }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % bound as u64) as usize
    }

    fn open<S>(&self, disk: &[u8], read: impl Fn(&Path) -> Result<S, String>) -> Result<S, String> {
        fs::write(&self.file, disk).unwrap();
        fs::set_permissions(&self.file, fs::Permissions::from_mode(0o600)).unwrap();
        read(&self.folder)
    }

    /// Builds and opens the images. After `states[n]` `n` commits were made.
    fn run<S: PartialEq + std::fmt::Debug>(
        &mut self,
        epochs: &[Vec<Write>],
        states: &[S],
        read: impl Fn(&Path) -> Result<S, String>,
    ) -> Found {
        let mut found = Found::default();
        for (number, epoch) in epochs.iter().enumerate() {
            let allowed =
                &states[found.commits..=(found.commits + usize::from(is_commit(epoch))).min(states.len() - 1)];
            for (choice, torn) in self.choices(epoch) {
                let mut disk = self.disk.clone();
                for (position, &index) in choice.iter().enumerate() {
                    let bytes = epoch[index].bytes.len();
                    let last = position + 1 == choice.len();
                    epoch[index].apply(&mut disk, if last { torn.unwrap_or(bytes).min(bytes) } else { bytes });
                }
                found.images += 1;
                match self.open(&disk, &read) {
                    Ok(state) if allowed.contains(&state) => {}
                    Ok(_) => found.bad.push(format!("sync {number}, writes {choice:?}: another state")),
                    Err(error) => found.bad.push(format!("sync {number}, writes {choice:?}: {error}")),
                }
            }
            epoch.iter().for_each(|write| write.apply(&mut self.disk, write.bytes.len()));
            found.commits += usize::from(is_commit(epoch));
        }
        found.images += 1;
        let last = self.open(&self.disk.clone(), &read);
        assert_eq!(last.as_ref(), Ok(&states[found.commits]), "the disk in the end");
        found
    }

    /// Which writes of an epoch reach the disk, in which order, and after how many bytes the last of them ends.
    fn choices(&mut self, epoch: &[Write]) -> Vec<(Vec<usize>, Option<usize>)> {
        let count = epoch.len();
        let all: Vec<usize> = (0..count).collect();
        let mut choices: BTreeSet<(Vec<usize>, Option<usize>)> = BTreeSet::new();
        for index in 0..=count {
            choices.insert((all[..index].to_vec(), None));
            choices.insert((all[index..].iter().rev().copied().collect(), None));
        }
        for (index, write) in epoch.iter().enumerate() {
            choices.insert((vec![index], None));
            choices.insert((all.iter().copied().filter(|other| *other != index).collect(), None));
            for _ in 0..3 {
                let sectors = write.bytes.len().div_ceil(SECTOR_BYTES);
                let torn = self.below(sectors) * SECTOR_BYTES;
                let mut others: Vec<usize> = all.iter().copied().filter(|other| *other != index).collect();
                others.retain(|_| self.below(2) == 0);
                others.push(index);
                choices.insert((others, Some(torn)));
            }
        }
        for _ in 0..8 {
            let mut chosen: Vec<usize> = all.iter().copied().filter(|_| self.below(2) == 0).collect();
            for at in (1..chosen.len()).rev() {
                chosen.swap(at, self.below(at + 1));
            }
            choices.insert((chosen, None));
        }
        choices.into_iter().collect()
    }
}

//! Three generations of etcdctl drive the subject, plain and over TLS; what they print is compared with recorded stories.
//!
//! A story (`testdata/etcdctl-*.txt`) holds prose (`#`), commands (`$`), their standard input (`<`) and the output: standard
//! output, `Error:` lines of standard error, and the exit status when it is not 0. Ids, addresses and terms are replaced by
//! words before the comparison. The stories were recorded from a real etcd:
//! `PILASTER_RECORD=1 cargo xtask suite etcdctl --subject etcd-3.7.1` records them again; the diff is then read by a person.
//!
//! Sizes, indexes and durations differ from run to run; `endpoint status` and `endpoint health` are checked by field below.

use std::path::Path;

use pilaster_tests::{Client, Kind, Options, Server, kind, raw, tls, tool};
use serde_json::Value;

#[test]
fn etcdctl_3_4() {
    drive("3.4.23/etcdctl", "etcdctl-3.4.txt");
}

#[test]
fn etcdctl_3_5() {
    drive("3.5.1/etcdctl", "etcdctl-3.5.txt");
}

#[test]
fn etcdctl_3_7() {
    drive("3.7.1/etcdctl", "etcdctl-3.7.txt");
}

fn drive(program: &str, story: &str) {
    let Some(program) = kind::peer(program) else {
        return;
    };
    let plain = Server::start(Options::new(Kind::subject()));
    tell(&program, &plain, story);
    endpoint_commands(&program, &plain);
    let secured = Server::start(Options::new(Kind::subject()).tls(tls::TlsFiles::create()));
    tell(&program, &secured, story);
    endpoint_commands(&program, &secured);
}

/// Runs the story and compares what is printed with what is recorded.
fn tell(program: &Path, server: &Server, story: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(story);
    let recorded = std::fs::read_to_string(&file).expect("the story is part of the source");
    let words = Words::of(server);
    let mut told = String::new();
    let mut commands = 0;
    let mut lines = recorded.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(command) = line.strip_prefix("$ ") else {
            // Prose stays; what was printed last time goes.
            if line.starts_with('#') {
                told += if told.is_empty() { "" } else { "\n" };
                told += &format!("{line}\n");
            }
            continue;
        };
        told += &format!("{line}\n");
        let mut input = String::new();
        while let Some(next) = lines.next_if(|next| next.starts_with('<')) {
            told += &format!("{next}\n");
            input += next[1..].strip_prefix(' ').unwrap_or_default();
            input += "\n";
        }
        let arguments = split(command);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        told += &words.replace(&printed(&tool::etcdctl(
            program, server, &arguments, &input,
        )));
        commands += 1;
    }
    if std::env::var_os("PILASTER_RECORD").is_some() {
        assert!(
            !server.kind().is_pilaster(),
            "stories are recorded from a real etcd only"
        );
        std::fs::write(&file, &told).expect("the source tree is writable");
    }
    let recorded = std::fs::read_to_string(&file).expect("the story is part of the source");
    compare(story, &recorded, &told);
    println!(
        "{story} over {}: {commands} commands print what is recorded",
        server.url()
    );
}

fn compare(story: &str, recorded: &str, told: &str) {
    let mut command = "";
    let mut theirs = recorded.lines();
    for (number, ours) in told.lines().enumerate() {
        if ours.starts_with('$') {
            command = ours;
        }
        let wanted = theirs.next().unwrap_or_default();
        assert_eq!(ours, wanted, "{story}:{}, after {command:?}", number + 1);
    }
    assert_eq!(theirs.next(), None, "{story}: output ends early");
}

/// What of a run belongs to the story.
fn printed(output: &tool::Output) -> String {
    let mut text = String::new();
    for line in output.stdout.lines() {
        // A line that would read as prose, command or input is shifted.
        let clash = line.starts_with(['#', '$', '<']);
        text += &format!("{}{line}\n", if clash { " " } else { "" });
    }
    for line in output
        .stderr
        .lines()
        .filter(|line| line.starts_with("Error: "))
    {
        text += &format!("{line}\n");
    }
    match output.status.code() {
        Some(0) => text,
        Some(code) => format!("{text}exit status {code}\n"),
        None => format!("{text}killed: {}\n", output.status),
    }
}

/// The strings of one server that differ from run to run.
struct Words(Vec<(String, &'static str)>);

impl Words {
    fn of(server: &Server) -> Words {
        let list = raw::block_on(async { Client::connect(server).await.member_list().await });
        let header = list
            .expect("a ready server answers")
            .header
            .expect("a header");
        let (member, cluster) = (header.member_id, header.cluster_id);
        Words(vec![
            (server.peer_url(), "PEER-URL"),
            (server.url(), "CLIENT-URL"),
            (member.to_string(), "MEMBER-ID"),
            (format!("{member:x}"), "MEMBER-HEX"),
            (cluster.to_string(), "CLUSTER-ID"),
            (format!("{cluster:x}"), "CLUSTER-HEX"),
            (
                format!("\"raft_term\":{}", header.raft_term),
                "\"raft_term\":TERM",
            ),
            (
                format!("\"RaftTerm\" : {}", header.raft_term),
                "\"RaftTerm\" : TERM",
            ),
        ])
    }

    fn replace(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (from, to) in &self.0 {
            text = text.replace(from, to);
        }
        // Column widths follow the lengths of ids and ports.
        text.lines()
            .map(|line| {
                if is_table(line) {
                    narrow(line)
                } else {
                    line.to_owned() + "\n"
                }
            })
            .collect()
    }
}

fn is_table(line: &str) -> bool {
    line.starts_with(['+', '|', '┌', '│', '├', '└'])
}

fn narrow(line: &str) -> String {
    let mut out = String::new();
    for letter in line.chars() {
        if !(matches!(letter, ' ' | '-' | '─') && out.ends_with(letter)) {
            out.push(letter);
        }
    }
    out.replace("| ", "|")
        .replace(" |", "|")
        .replace("│ ", "│")
        .replace(" │", "│")
        + "\n"
}

/// Splits a command line at spaces; `''` is an empty word.
fn split(command: &str) -> Vec<String> {
    command
        .split(' ')
        .map(|word| {
            if word == "''" {
                String::new()
            } else {
                word.to_owned()
            }
        })
        .collect()
}

fn endpoint_commands(program: &Path, server: &Server) {
    let run =
        |words: &[&str]| tool::etcdctl(program, server, words, "").expect_ok(&words.join(" "));

    let text = run(&["endpoint", "status", "-w", "json"]);
    let status: Value = serde_json::from_str(&text).expect("status prints JSON");
    let status = &status[0];
    assert_eq!(status["Endpoint"], server.url());
    let status = &status["Status"];
    for field in [
        "version",
        "dbSize",
        "leader",
        "raftIndex",
        "raftTerm",
        "raftAppliedIndex",
        "dbSizeInUse",
    ] {
        assert!(!status[field].is_null(), "{field} is missing: {text}");
    }
    assert_eq!(
        status["leader"], status["header"]["member_id"],
        "the only member leads: {text}"
    );
    assert!(
        status["raftAppliedIndex"].as_u64() <= status["raftIndex"].as_u64(),
        "{text}"
    );
    assert!(
        status["dbSizeInUse"].as_u64() <= status["dbSize"].as_u64(),
        "{text}"
    );
    assert!(status["errors"].is_null(), "{text}");

    let simple = run(&["endpoint", "status"]);
    let parts: Vec<&str> = simple.trim_end_matches('\n').split(", ").collect();
    assert_eq!(parts[0], server.url());
    assert!(parts.contains(&"true"), "the only member leads: {simple}");
    let fields = run(&["endpoint", "status", "-w", "fields"]);
    for field in [
        "ClusterID",
        "Version",
        "DBSize",
        "Leader",
        "IsLearner",
        "RaftIndex",
        "Errors",
    ] {
        assert!(
            fields.contains(&format!("\"{field}\" : ")),
            "{field} is missing: {fields}"
        );
    }
    let table = run(&["endpoint", "status", "-w", "table"]);
    assert!(
        table.contains("IS LEADER") && table.contains(&server.url()),
        "{table}"
    );

    let health = run(&["endpoint", "health"]);
    let wanted = format!(
        "{} is healthy: successfully committed proposal: took = ",
        server.url()
    );
    // The 3.4 series prints it on standard error.
    assert!(health.starts_with(&wanted) || health.is_empty(), "{health}");
    let health: Value =
        serde_json::from_str(&run(&["endpoint", "health", "-w", "json"])).expect("JSON");
    assert_eq!(health[0]["health"], true, "{health}");
    assert!(run(&["endpoint", "health", "-w", "table"]).contains("true"));
    let hash = run(&["endpoint", "hashkv", "-w", "json"]);
    let hash: Value = serde_json::from_str(&hash).expect("JSON");
    assert!(hash[0]["HashKV"]["hash"].is_u64(), "{hash}");
    println!("endpoint status, health and hashkv of {}", server.url());
}

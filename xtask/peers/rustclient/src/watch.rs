//! Watches through the library: from a revision, filters, previous records, progress, cancel, a compacted start.

use etcd_client::{
    Client, CompactionOptions, EventType, WatchFilterType, WatchOptions, WatchStream,
};

use super::{Check, PREFIX, empty, key, same, text};

/// Events until there are `count`, as words.
async fn told(stream: &mut WatchStream, count: usize) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    while words.len() < count {
        let message = stream.message().await.map_err(text)?;
        let message = message.ok_or("the stream ended")?;
        for event in message.events() {
            let kv = event.kv().ok_or("an event without a record")?;
            let kind = match event.event_type() {
                EventType::Put => "put",
                EventType::Delete => "delete",
            };
            let before = event
                .prev_kv()
                .map_or("", |kv| kv.value_str().unwrap_or("?"));
            let name = &kv.key_str().map_err(text)?[PREFIX.len()..];
            words.push(format!("{kind} {name} {before}").trim_end().to_owned());
        }
    }
    Ok(words)
}

pub(crate) async fn watch(client: &mut Client) -> Check {
    let base = empty(client).await?;
    client.put(key("a"), "1", None).await.map_err(text)?;
    let from = || WatchOptions::new().with_start_revision(base + 1);
    let prefix = || from().with_prefix();
    let cases: [(&str, WatchOptions, &[&str]); 4] = [
        ("a", from(), &["put a", "put a", "delete a"]),
        (
            "",
            prefix().with_prev_key(),
            &["put a", "put a 1", "put b", "delete a 2"],
        ),
        (
            "",
            prefix().with_filters([WatchFilterType::NoPut]),
            &["delete a"],
        ),
        (
            "",
            prefix().with_filters([WatchFilterType::NoDelete]),
            &["put a", "put a", "put b"],
        ),
    ];
    let mut streams = Vec::new();
    for (name, options, wanted) in cases {
        let stream = client.watch(key(name), Some(options)).await.map_err(text)?;
        streams.push((stream, wanted));
    }
    client.put(key("a"), "2", None).await.map_err(text)?;
    client.put(key("b"), "3", None).await.map_err(text)?;
    client.delete(key("a"), None).await.map_err(text)?;
    for (stream, wanted) in &mut streams {
        let words = told(stream, wanted.len()).await?;
        same(
            "events",
            words,
            wanted.iter().map(|word| (*word).to_owned()).collect(),
        )?;
    }
    // Ten thousand small messages on one stream, most of them before anybody reads.
    let mut stream = client.watch(key("many"), None).await.map_err(text)?;
    for _ in 0..200 {
        stream.watch(key("many"), None).await.map_err(text)?;
    }
    for value in 0..50 {
        client
            .put(key("many"), value.to_string(), None)
            .await
            .map_err(text)?;
    }
    same("many", told(&mut stream, 50).await?.len() >= 50, true)?;
    let (stream, _) = &mut streams[0];
    stream.request_progress().await.map_err(text)?;
    let progress = stream
        .message()
        .await
        .map_err(text)?
        .ok_or("the stream ended")?;
    same(
        "progress",
        (progress.events().len(), progress.created()),
        (0, false),
    )?;
    let revision = progress.header().expect("a header").revision();
    same("revision", revision, base + 4 + 50)?;
    stream
        .cancel(progress.watch_id().max(0))
        .await
        .map_err(text)?;
    let canceled = stream
        .message()
        .await
        .map_err(text)?
        .ok_or("the stream ended")?;
    same(
        "canceled",
        (canceled.canceled(), canceled.cancel_reason()),
        (true, ""),
    )?;
    let physical = Some(CompactionOptions::new().with_physical());
    client.compact(base + 3, physical).await.map_err(text)?;
    let mut stream = client.watch(key("a"), Some(from())).await.map_err(text)?;
    let end = loop {
        let message = stream
            .message()
            .await
            .map_err(text)?
            .ok_or("the stream ended")?;
        if !message.created() {
            break message;
        }
    };
    same(
        "compacted",
        (end.canceled(), end.compact_revision()),
        (true, base + 3),
    )
}

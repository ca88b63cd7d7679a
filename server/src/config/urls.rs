//! URLs of listeners and members, and lists of them.
//!
//! Always true here: a `Url` has one of four schemes; `http` and `https` have a host (maybe empty) and a
//! port and no path; text in, the same text out, because member ids are hashed over it. Pure; resolves
//! no names.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Scheme {
    Http,
    Https,
    Unix,
    Unixs,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    pub scheme: Scheme,
    /// Without brackets around an IPv6 address. For sockets of the file system, all after the scheme.
    pub host: String,
    /// Zero for sockets of the file system.
    pub port: u16,
    /// As written, trimmed, the scheme in lower case.
    text: String,
}

impl Url {
    pub fn parse(text: &str) -> Result<Url, String> {
        let given = text.trim();
        let unknown = || format!("URL scheme must be http, https, unix, or unixs: {given}");
        let (scheme, rest) = given.split_once(':').ok_or_else(unknown)?;
        // Written in lower case, as etcd shows it and hashes it into member ids.
        let name = scheme.to_ascii_lowercase();
        let text = format!("{name}:{rest}");
        let scheme = match name.as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => return Err(unknown()),
        };
        let no_port = || format!(r#"URL address does not have the form "host:port": {given}"#);
        if matches!(scheme, Scheme::Unix | Scheme::Unixs) {
            let host = rest.strip_prefix("//").unwrap_or(rest).to_owned();
            return Ok(Url {
                scheme,
                host,
                port: 0,
                text: text.to_owned(),
            });
        }
        let authority = rest.strip_prefix("//").ok_or_else(no_port)?;
        let (authority, tail) = match authority.find(['/', '?', '#']) {
            Some(end) => authority.split_at(end),
            None => (authority, ""),
        };
        let (host, port) = split_host_port(authority).ok_or_else(no_port)?;
        if !tail.is_empty() {
            return Err(format!("URL must not contain a path: {given}"));
        }
        if port.is_empty() || !port.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(format!(
                r#"parse "{given}": invalid port ":{port}" after host"#
            ));
        }
        let port = port
            .parse()
            .map_err(|_| format!("port out of range: {given}"))?;
        Ok(Url {
            scheme,
            host: host.to_owned(),
            port,
            text: text.to_owned(),
        })
    }

    /// A comma-separated list: sorted by text, each once.
    pub fn parse_list(text: &str) -> Result<Vec<Url>, String> {
        let mut urls: Vec<Url> = text.split(',').map(Url::parse).collect::<Result<_, _>>()?;
        urls.sort_by(|a, b| a.text.cmp(&b.text));
        urls.dedup();
        Ok(urls)
    }

    pub fn is_tls(&self) -> bool {
        matches!(self.scheme, Scheme::Https | Scheme::Unixs)
    }

    pub fn is_unix(&self) -> bool {
        matches!(self.scheme, Scheme::Unix | Scheme::Unixs)
    }

    /// The address to bind; `localhost` is left to the caller, and is the only name that can occur in a
    /// checked listen URL.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `a,b`, the way lists of URLs are shown.
pub(super) fn joined(urls: &[Url]) -> String {
    let texts: Vec<&str> = urls.iter().map(|url| url.text.as_str()).collect();
    texts.join(",")
}

/// `host:port`, `:port` or `[v6]:port`.
fn split_host_port(authority: &str) -> Option<(&str, &str)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return Some((host, rest.strip_prefix(':')?));
    }
    let (host, port) = authority.rsplit_once(':')?;
    (!host.contains(':')).then_some((host, port))
}

/// `--initial-cluster`: `name=url` pairs, several for one name allowed, members in order of name.
pub(super) fn parse_cluster(text: &str) -> Result<Vec<(String, Vec<Url>)>, String> {
    let mut members: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for pair in text.split(',') {
        let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
        let name = name.trim();
        if url.is_empty() {
            return Err(format!(
                r#"empty URL given for "{name}"; --initial-cluster is a list of <name>=<peer URL>"#
            ));
        }
        members.entry(name.to_owned()).or_default().push(url);
    }
    members
        .into_iter()
        .map(|(name, urls)| Ok((name, Url::parse_list(&urls.join(","))?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(Url::parse(text).unwrap_err(), expected);
    }

    #[test]
    fn addresses_are_taken_apart() {
        let url = Url::parse(" http://localhost:2379 ").unwrap();
        assert_eq!(
            (url.host.as_str(), url.port, url.ip()),
            ("localhost", 2379, None)
        );
        let url = Url::parse("https://[::1]:2379").unwrap();
        assert_eq!(
            (url.is_tls(), url.ip()),
            (true, Some("::1".parse().unwrap()))
        );
        let url = Url::parse("http://:2379").unwrap();
        assert_eq!(
            (url.host.as_str(), url.to_string().as_str()),
            ("", "http://:2379")
        );
        assert_eq!(Url::parse("HTTP://A:1").unwrap().to_string(), "http://A:1");
        assert!(Url::parse("unix:///run/kv.sock").unwrap().is_unix());
    }

    #[test]
    fn broken_urls_are_refused_in_etcds_words() {
        refused(
            "ftp://a:1",
            "URL scheme must be http, https, unix, or unixs: ftp://a:1",
        );
        refused(
            "localhost",
            "URL scheme must be http, https, unix, or unixs: localhost",
        );
        refused(
            "http://a",
            r#"URL address does not have the form "host:port": http://a"#,
        );
        refused(
            "http://::1:2",
            r#"URL address does not have the form "host:port": http://::1:2"#,
        );
        refused("http://a:1/x", "URL must not contain a path: http://a:1/x");
        refused("http://a:1/", "URL must not contain a path: http://a:1/");
        refused(
            "http://a:b",
            r#"parse "http://a:b": invalid port ":b" after host"#,
        );
    }

    #[test]
    fn lists_are_sorted_and_unique() {
        let urls = Url::parse_list("http://b:2,http://a:1,http://b:2").unwrap();
        assert_eq!(joined(&urls), "http://a:1,http://b:2");
    }

    #[test]
    fn a_cluster_gathers_urls_by_name() {
        let members = parse_cluster("b=http://b:1,a=http://a:2,a=http://a:1").unwrap();
        let shown: Vec<String> = members
            .iter()
            .map(|(name, urls)| format!("{name}={}", joined(urls)))
            .collect();
        assert_eq!(shown, ["a=http://a:1,http://a:2", "b=http://b:1"]);
        assert!(
            parse_cluster("a")
                .unwrap_err()
                .contains(r#"empty URL given for "a""#)
        );
    }
}

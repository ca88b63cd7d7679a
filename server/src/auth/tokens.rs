//! Simple tokens: random texts that stand for a user until they have not been used for a while.
//!
//! The apply core keeps them ([`TokenKeeper`]): an entry makes one, its user's removal, a new password or the end of
//! authentication takes them back, and it sweeps out those whose time is over. Net cores read the published table once
//! for each token and then remember it ([`TokenCache`]); whether it still counts is one word of the token itself, which
//! a net core also moves on when the token is used.
//!
//! Always true here: a token that was taken back or ran out is never good again; a table never changes once it is
//! published. Tokens are no part of the replicated state: a member that starts has none but those of entries that it
//! applies again, as in etcd.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::hash::BuildHasher;

/// Tokens that may be good at the same time; one more is refused. Each costs a password check to get.
pub const TOKENS_MAX: usize = 1 << 20;
/// A new token copies one shard of the table, not all of it.
const SHARDS: usize = 64;
/// Tokens a net core remembers; more than that, and it begins anew.
const CACHED_MAX: usize = 8192;
/// A token that is used again sooner is not moved on: a part of the time to live, so that cores do not write to one
/// word for each request.
const EXTEND_PARTS: u64 = 64;

/// What etcd draws the letters of a token from.
pub const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// Letters of a token, before the index of its entry.
pub const PREFIX_LETTERS: usize = 16;

struct Token {
    user: Box<str>,
    /// On the member's clock; 0 once it is taken back.
    ends_ns: AtomicU64,
}

impl Token {
    fn is_good(&self, now_ns: u64) -> bool {
        now_ns < self.ends_ns.load(Ordering::Relaxed)
    }

    fn take_back(&self) {
        self.ends_ns.store(0, Ordering::Relaxed);
    }

    /// Good for `ttl_ns` from now, unless it was taken back meanwhile.
    fn extend(&self, now_ns: u64, ttl_ns: u64) {
        let ends_ns = self.ends_ns.load(Ordering::Relaxed);
        if ends_ns + ttl_ns / EXTEND_PARTS < now_ns + ttl_ns {
            let later_ns = now_ns + ttl_ns;
            let order = Ordering::Relaxed;
            // The apply core may take it back at this moment: then that stands.
            let _ = self
                .ends_ns
                .compare_exchange(ends_ns, later_ns, order, order);
        }
    }
}

type Shard = FxHashMap<Box<str>, Arc<Token>>;

/// The tokens that are good, and for how long an unused one is.
#[derive(Clone, Default)]
pub struct TokenTable {
    shards: Vec<Arc<Shard>>,
    ttl_ns: u64,
}

/// The texts are random, so nobody chooses colliding ones.
fn shard_of(token: &str) -> usize {
    FxBuildHasher.hash_one(token) as usize % SHARDS
}

impl TokenTable {
    fn get(&self, token: &str) -> Option<&Arc<Token>> {
        self.shards.get(shard_of(token))?.get(token)
    }
}

/// The apply core's end.
pub struct TokenKeeper {
    table: TokenTable,
    published: Arc<ArcSwap<TokenTable>>,
    tokens: usize,
}

impl TokenKeeper {
    pub fn new(ttl_ns: u64, published: Arc<ArcSwap<TokenTable>>) -> TokenKeeper {
        let table = TokenTable {
            shards: (0..SHARDS).map(|_| Arc::default()).collect(),
            ttl_ns,
        };
        published.store(Arc::new(table.clone()));
        TokenKeeper {
            table,
            published,
            tokens: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.tokens
    }

    /// False if there are too many.
    pub fn add(&mut self, token: &str, user: &str, now_ns: u64) -> bool {
        if self.tokens == TOKENS_MAX {
            return false;
        }
        let ends_ns = AtomicU64::new(now_ns + self.table.ttl_ns);
        let user = user.into();
        let shard = Arc::make_mut(&mut self.table.shards[shard_of(token)]);
        let before = shard.insert(token.into(), Arc::new(Token { user, ends_ns }));
        self.tokens += usize::from(before.is_none());
        self.publish();
        true
    }

    /// Takes back all tokens of a user.
    pub fn drop_user(&mut self, user: &str) {
        self.retain(|token| *token.user != *user);
    }

    pub fn clear(&mut self) {
        self.retain(|_| false);
    }

    /// Forgets the tokens whose time is over.
    pub fn sweep(&mut self, now_ns: u64) {
        self.retain(|token| token.is_good(now_ns));
    }

    fn retain(&mut self, stays: impl Fn(&Token) -> bool) {
        let before = self.tokens;
        for shard in &mut self.table.shards {
            if shard.values().all(|token| stays(token)) {
                continue;
            }
            Arc::make_mut(shard).retain(|_, token| {
                let stays = stays(token);
                if !stays {
                    token.take_back();
                    self.tokens -= 1;
                }
                stays
            });
        }
        if self.tokens < before {
            self.publish();
        }
    }

    fn publish(&self) {
        self.published.store(Arc::new(self.table.clone()));
    }
}

/// A net core's end.
pub struct TokenCache {
    published: Arc<ArcSwap<TokenTable>>,
    seen: FxHashMap<Box<str>, (Arc<Token>, Arc<str>)>,
    ttl_ns: u64,
}

impl TokenCache {
    pub fn new(published: Arc<ArcSwap<TokenTable>>) -> TokenCache {
        TokenCache {
            published,
            seen: FxHashMap::default(),
            ttl_ns: 0,
        }
    }

    /// Whom the token stands for; using it extends its time.
    pub fn user(&mut self, token: &str, now_ns: u64) -> Option<Arc<str>> {
        if let Some((held, user)) = self.seen.get(token) {
            if held.is_good(now_ns) {
                held.extend(now_ns, self.ttl_ns);
                return Some(user.clone());
            }
            self.seen.remove(token);
            return None;
        }
        let table = self.published.load();
        let held = table.get(token).filter(|held| held.is_good(now_ns))?;
        self.ttl_ns = table.ttl_ns;
        held.extend(now_ns, self.ttl_ns);
        if self.seen.len() == CACHED_MAX {
            self.seen.clear();
        }
        // A name of this core's own: cores that serve one user do not count in one word.
        let user: Arc<str> = Arc::from(&*held.user);
        self.seen.insert(token.into(), (held.clone(), user.clone()));
        Some(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: u64 = 1000;

    fn pair() -> (TokenKeeper, TokenCache) {
        let published: Arc<ArcSwap<TokenTable>> = Arc::default();
        let keeper = TokenKeeper::new(TTL, published.clone());
        (keeper, TokenCache::new(published))
    }

    fn user(cache: &mut TokenCache, token: &str, now_ns: u64) -> Option<String> {
        cache.user(token, now_ns).map(|user| user.to_string())
    }

    #[test]
    fn a_token_lives_while_it_is_used() {
        let (mut keeper, mut cache) = pair();
        assert!(keeper.add("t.1", "ann", 0));
        assert_eq!(user(&mut cache, "t.1", 900).as_deref(), Some("ann"));
        keeper.sweep(1500);
        assert_eq!(keeper.len(), 1, "it was used");
        assert_eq!(user(&mut cache, "t.1", 1899).as_deref(), Some("ann"));
        assert_eq!(
            user(&mut cache, "t.1", 2899),
            None,
            "for so long nobody came"
        );
        keeper.sweep(2899);
        assert_eq!(keeper.len(), 0);
        assert_eq!(user(&mut cache, "t.1", 2899), None);
        assert_eq!(user(&mut cache, "t.2", 0), None);
    }

    #[test]
    fn what_is_taken_back_is_not_good_where_it_was_remembered() {
        let (mut keeper, mut cache) = pair();
        for number in 0..200 {
            let name = ["ann", "bob"][number % 2];
            assert!(keeper.add(&format!("t.{number}"), name, 0));
        }
        assert!(user(&mut cache, "t.0", 1).is_some());
        assert!(user(&mut cache, "t.1", 1).is_some());
        keeper.drop_user("ann");
        assert_eq!(keeper.len(), 100);
        assert_eq!(user(&mut cache, "t.0", 2), None, "remembered");
        assert_eq!(user(&mut cache, "t.2", 2), None, "not seen before");
        assert!(user(&mut cache, "t.1", 2).is_some());
        keeper.clear();
        assert_eq!(user(&mut cache, "t.1", 2), None);
        assert_eq!(keeper.len(), 0);
    }
}

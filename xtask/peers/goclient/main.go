// Command goclient drives a server through the official Go client and checks every answer it gets back.
//
// It prints one line "PASS name" or "FAIL name: reason" per check and ends with exit status 1 when one failed.
// Keys live under a prefix of its own, which it empties first; revisions are taken relative to the first answer.
// It knows nothing of the server but its endpoint and, when given, the certificate files.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const prefix = "goclient/"

type suite struct {
	client *clientv3.Client
	ctx    context.Context
	failed int
}

func main() {
	endpoint := flag.String("endpoint", "", "URL of the client port")
	ca := flag.String("ca", "", "authority of the server's certificate, PEM")
	cert := flag.String("cert", "", "client certificate, PEM")
	key := flag.String("key", "", "key of the client certificate, PEM")
	flag.Parse()

	config := clientv3.Config{Endpoints: []string{*endpoint}, DialTimeout: 10 * time.Second}
	if *ca != "" {
		config.TLS = tlsConfig(*ca, *cert, *key)
	}
	client, err := clientv3.New(config)
	if err != nil {
		fmt.Println("FAIL connect:", err)
		os.Exit(1)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()

	s := &suite{client: client, ctx: ctx}
	s.check("empty", s.empty)
	s.check("put and get", s.putAndGet)
	s.check("get options", s.getOptions)
	s.check("get revisions", s.getRevisions)
	s.check("get errors", s.getErrors)
	s.check("put options", s.putOptions)
	s.check("delete", s.delete)
	s.check("txn", s.txn)
	s.check("nested txn", s.nestedTxn)
	s.check("txn errors", s.txnErrors)
	s.check("compact", s.compact)
	s.check("watch", s.watch)
	s.check("watch progress", s.watchProgress)
	s.check("watch compacted", s.watchCompacted)
	s.check("watch many", s.watchMany)
	s.check("mutex", s.mutex)
	s.check("try lock", s.tryLock)
	s.check("election", s.election)
	s.check("transactions", s.transactions)
	s.check("status", s.status)
	s.check("member list", s.memberList)
	s.check("alarm", s.alarm)
	s.check("hash", s.hash)
	if s.failed != 0 {
		os.Exit(1)
	}
}

func (s *suite) check(name string, body func() error) {
	if err := body(); err != nil {
		s.failed++
		fmt.Printf("FAIL %s: %v\n", name, err)
		return
	}
	fmt.Println("PASS", name)
}

func (s *suite) empty() error {
	_, err := s.client.Delete(s.ctx, prefix, clientv3.WithPrefix())
	return err
}

func (s *suite) putAndGet() error {
	before, err := s.client.Get(s.ctx, prefix+"a")
	if err != nil {
		return err
	}
	if before.Count != 0 || len(before.Kvs) != 0 {
		return fmt.Errorf("key is there before it was put: %v", before)
	}
	for i, value := range []string{"1", "2"} {
		put, err := s.client.Put(s.ctx, prefix+"a", value)
		if err != nil {
			return err
		}
		if want := before.Header.Revision + int64(i) + 1; put.Header.Revision != want {
			return fmt.Errorf("put answered revision %d, want %d", put.Header.Revision, want)
		}
	}
	got, err := s.client.Get(s.ctx, prefix+"a")
	if err != nil {
		return err
	}
	if got.Count != 1 || got.More || len(got.Kvs) != 1 {
		return fmt.Errorf("got %v", got)
	}
	kv, first := got.Kvs[0], before.Header.Revision+1
	if string(kv.Value) != "2" || kv.Version != 2 || kv.CreateRevision != first || kv.ModRevision != first+1 || kv.Lease != 0 {
		return fmt.Errorf("got %v", kv)
	}
	local, err := s.client.Get(s.ctx, prefix+"a", clientv3.WithSerializable())
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(local.Kvs[0].Value, kv.Value) {
		return fmt.Errorf("serializable get differs: %v", local)
	}
	return nil
}

// keys returns the keys of an answer without the prefix, joined by spaces.
func keys(got *clientv3.GetResponse) string {
	text := ""
	for _, kv := range got.Kvs {
		text += string(kv.Key)[len(prefix):] + " "
	}
	return text
}

func (s *suite) getOptions() error {
	if err := s.empty(); err != nil {
		return err
	}
	// Created in the order c a b d, last changed in the order c a d b, values the other way round.
	for _, pair := range [][2]string{{"c", "w"}, {"a", "z"}, {"b", "y"}, {"d", "x"}, {"b", "y"}} {
		if _, err := s.client.Put(s.ctx, prefix+pair[0], pair[1]); err != nil {
			return err
		}
	}
	all := clientv3.WithPrefix()
	cases := []struct {
		name  string
		key   string
		opts  []clientv3.OpOption
		keys  string
		count int64
		more  bool
	}{
		{"prefix", "", []clientv3.OpOption{all}, "a b c d ", 4, false},
		{"range", "a", []clientv3.OpOption{clientv3.WithRange(prefix + "c")}, "a b ", 2, false},
		{"inverted range", "c", []clientv3.OpOption{clientv3.WithRange(prefix + "a")}, "", 0, false},
		{"limit", "", []clientv3.OpOption{all, clientv3.WithLimit(3)}, "a b c ", 4, true},
		{"limit met", "", []clientv3.OpOption{all, clientv3.WithLimit(4)}, "a b c d ", 4, false},
		{"count only", "", []clientv3.OpOption{all, clientv3.WithCountOnly()}, "", 4, false},
		{"keys only", "", []clientv3.OpOption{all, clientv3.WithKeysOnly()}, "a b c d ", 4, false},
		{"first key", "", clientv3.WithFirstKey(), "a ", 4, true},
		{"last key", "", clientv3.WithLastKey(), "d ", 4, true},
		{"first create", "", clientv3.WithFirstCreate(), "c ", 4, true},
		{"last create", "", clientv3.WithLastCreate(), "d ", 4, true},
		{"first revision", "", clientv3.WithFirstRev(), "c ", 4, true},
		{"last revision", "", clientv3.WithLastRev(), "b ", 4, true},
		{"by value", "", []clientv3.OpOption{all, clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend)}, "c d b a ", 4, false},
		{"by value down", "", []clientv3.OpOption{all, clientv3.WithSort(clientv3.SortByValue, clientv3.SortDescend)}, "a b d c ", 4, false},
		{"by key down", "", []clientv3.OpOption{all, clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend)}, "d c b a ", 4, false},
		{"by version", "", []clientv3.OpOption{all, clientv3.WithSort(clientv3.SortByVersion, clientv3.SortDescend), clientv3.WithLimit(1)}, "b ", 4, true},
	}
	for _, c := range cases {
		got, err := s.client.Get(s.ctx, prefix+c.key, c.opts...)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if keys(got) != c.keys || got.Count != c.count || got.More != c.more {
			return fmt.Errorf("%s: keys %q count %d more %v, want %q %d %v", c.name, keys(got), got.Count, got.More, c.keys, c.count, c.more)
		}
		if c.name == "keys only" && len(got.Kvs[0].Value) != 0 {
			return fmt.Errorf("%s: a value came along", c.name)
		}
	}
	got, err := s.client.Get(s.ctx, prefix+"b", clientv3.WithFromKey())
	if err != nil {
		return err
	}
	if got.Count < 3 || string(got.Kvs[0].Key) != prefix+"b" {
		return fmt.Errorf("from key: %v", got)
	}
	return nil
}

func (s *suite) getRevisions() error {
	if err := s.empty(); err != nil {
		return err
	}
	base, err := s.client.Put(s.ctx, prefix+"a", "old")
	if err != nil {
		return err
	}
	rev := base.Header.Revision
	for _, pair := range [][2]string{{"b", "1"}, {"a", "new"}, {"c", "1"}} {
		if _, err := s.client.Put(s.ctx, prefix+pair[0], pair[1]); err != nil {
			return err
		}
	}
	old, err := s.client.Get(s.ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(rev+1))
	if err != nil {
		return err
	}
	if keys(old) != "a b " || string(old.Kvs[0].Value) != "old" || old.Header.Revision != rev+3 {
		return fmt.Errorf("at revision %d: %v", rev+1, old)
	}
	cases := []struct {
		name string
		opt  clientv3.OpOption
		keys string
	}{
		{"min mod", clientv3.WithMinModRev(rev + 2), "a c "},
		{"max mod", clientv3.WithMaxModRev(rev + 2), "a b "},
		{"min create", clientv3.WithMinCreateRev(rev + 1), "b c "},
		{"max create", clientv3.WithMaxCreateRev(rev), "a "},
	}
	for _, c := range cases {
		got, err := s.client.Get(s.ctx, prefix, clientv3.WithPrefix(), c.opt)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if keys(got) != c.keys || got.Count != 3 {
			return fmt.Errorf("%s: keys %q count %d, want %q 3", c.name, keys(got), got.Count, c.keys)
		}
	}
	return nil
}

func want(err, target error) error {
	if !errors.Is(err, target) {
		return fmt.Errorf("error %v, want %v", err, target)
	}
	return nil
}

func (s *suite) getErrors() error {
	_, err := s.client.Get(s.ctx, prefix+"a", clientv3.WithRev(1<<60))
	if err := want(err, rpctypes.ErrFutureRev); err != nil {
		return err
	}
	_, err = s.client.Get(s.ctx, "")
	if err := want(err, rpctypes.ErrEmptyKey); err != nil {
		return err
	}
	_, err = s.client.Put(s.ctx, "", "value")
	return want(err, rpctypes.ErrEmptyKey)
}

func (s *suite) putOptions() error {
	if err := s.empty(); err != nil {
		return err
	}
	first, err := s.client.Put(s.ctx, prefix+"a", "1", clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	if first.PrevKv != nil {
		return fmt.Errorf("a first put has a previous pair: %v", first)
	}
	second, err := s.client.Put(s.ctx, prefix+"a", "2", clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	if second.PrevKv == nil || string(second.PrevKv.Value) != "1" || second.PrevKv.Version != 1 {
		return fmt.Errorf("previous pair: %v", second)
	}
	if _, err := s.client.Put(s.ctx, prefix+"a", "", clientv3.WithIgnoreValue()); err != nil {
		return err
	}
	if _, err := s.client.Put(s.ctx, prefix+"a", "3", clientv3.WithIgnoreLease()); err != nil {
		return err
	}
	got, err := s.client.Get(s.ctx, prefix+"a")
	if err != nil {
		return err
	}
	if kv := got.Kvs[0]; string(kv.Value) != "3" || kv.Version != 4 {
		return fmt.Errorf("got %v", got)
	}
	_, err = s.client.Put(s.ctx, prefix+"missing", "", clientv3.WithIgnoreValue())
	if err := want(err, rpctypes.ErrKeyNotFound); err != nil {
		return err
	}
	_, err = s.client.Put(s.ctx, prefix+"a", "value", clientv3.WithIgnoreValue())
	if err := want(err, rpctypes.ErrValueProvided); err != nil {
		return err
	}
	_, err = s.client.Put(s.ctx, prefix+"a", "value", clientv3.WithLease(12345))
	return want(err, rpctypes.ErrLeaseNotFound)
}

func (s *suite) delete() error {
	if err := s.empty(); err != nil {
		return err
	}
	for _, key := range []string{"a", "b", "c", "d"} {
		if _, err := s.client.Put(s.ctx, prefix+key, key); err != nil {
			return err
		}
	}
	cases := []struct {
		key     string
		opts    []clientv3.OpOption
		deleted int64
		prevs   int
	}{
		{"missing", nil, 0, 0},
		{"a", []clientv3.OpOption{clientv3.WithPrevKV()}, 1, 1},
		{"b", []clientv3.OpOption{clientv3.WithRange(prefix + "d")}, 2, 0},
		{"", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithPrevKV()}, 1, 1},
	}
	for _, c := range cases {
		got, err := s.client.Delete(s.ctx, prefix+c.key, c.opts...)
		if err != nil {
			return err
		}
		if got.Deleted != c.deleted || len(got.PrevKvs) != c.prevs {
			return fmt.Errorf("delete %q: %v", c.key, got)
		}
	}
	left, err := s.client.Get(s.ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	if left.Count != 0 {
		return fmt.Errorf("left over: %v", left)
	}
	return nil
}

func (s *suite) txn() error {
	if err := s.empty(); err != nil {
		return err
	}
	a, b := prefix+"a", prefix+"b"
	if _, err := s.client.Put(s.ctx, a, "1"); err != nil {
		return err
	}
	yes, err := s.client.Txn(s.ctx).
		If(clientv3.Compare(clientv3.Value(a), "=", "1"), clientv3.Compare(clientv3.CreateRevision(b), "=", 0)).
		Then(clientv3.OpPut(b, "2", clientv3.WithPrevKV()), clientv3.OpGet(prefix, clientv3.WithPrefix()), clientv3.OpDelete(a, clientv3.WithPrevKV())).
		Else(clientv3.OpGet(a)).
		Commit()
	if err != nil {
		return err
	}
	if !yes.Succeeded || len(yes.Responses) != 3 {
		return fmt.Errorf("then: %v", yes)
	}
	rev := yes.Header.Revision
	inner := yes.Responses[1].GetResponseRange()
	if inner.Count != 2 || string(inner.Kvs[1].Value) != "2" || inner.Kvs[1].ModRevision != rev || inner.Header.Revision != rev {
		return fmt.Errorf("a txn must read its own writes: %v", inner)
	}
	if gone := yes.Responses[2].GetResponseDeleteRange(); gone.Deleted != 1 || string(gone.PrevKvs[0].Value) != "1" {
		return fmt.Errorf("delete in txn: %v", gone)
	}
	no, err := s.client.Txn(s.ctx).
		If(clientv3.Compare(clientv3.Version(b), ">", 1)).
		Then(clientv3.OpPut(b, "3")).
		Else(clientv3.OpGet(b), clientv3.OpGet(a)).
		Commit()
	if err != nil {
		return err
	}
	if no.Succeeded || len(no.Responses) != 2 || no.Responses[0].GetResponseRange().Count != 1 || no.Header.Revision != rev {
		return fmt.Errorf("else: %v", no)
	}
	whole, err := s.client.Txn(s.ctx).
		If(clientv3.Compare(clientv3.ModRevision(prefix), "<", rev+1).WithPrefix()).
		Then(clientv3.OpPut(b, "4")).
		Commit()
	if err != nil {
		return err
	}
	if !whole.Succeeded || whole.Header.Revision != rev+1 {
		return fmt.Errorf("compare over a range: %v", whole)
	}
	return nil
}

func (s *suite) nestedTxn() error {
	if err := s.empty(); err != nil {
		return err
	}
	a, b, c := prefix+"a", prefix+"b", prefix+"c"
	if _, err := s.client.Put(s.ctx, a, "1"); err != nil {
		return err
	}
	got, err := s.client.Txn(s.ctx).Then(
		clientv3.OpTxn(
			[]clientv3.Cmp{clientv3.Compare(clientv3.Value(a), "=", "1")},
			[]clientv3.Op{clientv3.OpPut(b, "inner"), clientv3.OpGet(b)},
			[]clientv3.Op{clientv3.OpPut(b, "wrong")},
		),
		clientv3.OpPut(c, "outer"),
	).Commit()
	if err != nil {
		return err
	}
	inner := got.Responses[0].GetResponseTxn()
	if inner == nil || !inner.Succeeded || string(inner.Responses[1].GetResponseRange().Kvs[0].Value) != "inner" {
		return fmt.Errorf("inner: %v", got)
	}
	all, err := s.client.Get(s.ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return err
	}
	if keys(all) != "a b c " || all.Kvs[1].ModRevision != all.Kvs[2].ModRevision || all.Header.Revision != got.Header.Revision {
		return fmt.Errorf("after: %v", all)
	}
	return nil
}

func (s *suite) txnErrors() error {
	a := prefix + "a"
	_, err := s.client.Txn(s.ctx).Then(clientv3.OpPut(a, "1"), clientv3.OpPut(a, "2")).Commit()
	if err := want(err, rpctypes.ErrDuplicateKey); err != nil {
		return err
	}
	many := make([]clientv3.Op, 129)
	for i := range many {
		many[i] = clientv3.OpPut(fmt.Sprintf("%s%d", a, i), "")
	}
	_, err = s.client.Txn(s.ctx).Then(many...).Commit()
	return want(err, rpctypes.ErrTooManyOps)
}

func (s *suite) compact() error {
	if err := s.empty(); err != nil {
		return err
	}
	first, err := s.client.Put(s.ctx, prefix+"a", "1")
	if err != nil {
		return err
	}
	last, err := s.client.Put(s.ctx, prefix+"a", "2")
	if err != nil {
		return err
	}
	if _, err := s.client.Compact(s.ctx, last.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		return err
	}
	_, err = s.client.Get(s.ctx, prefix+"a", clientv3.WithRev(first.Header.Revision))
	if err := want(err, rpctypes.ErrCompacted); err != nil {
		return err
	}
	got, err := s.client.Get(s.ctx, prefix+"a", clientv3.WithRev(last.Header.Revision))
	if err != nil {
		return err
	}
	if got.Count != 1 || string(got.Kvs[0].Value) != "2" {
		return fmt.Errorf("at the compacted revision: %v", got)
	}
	_, err = s.client.Compact(s.ctx, first.Header.Revision)
	if err := want(err, rpctypes.ErrCompacted); err != nil {
		return err
	}
	_, err = s.client.Compact(s.ctx, last.Header.Revision+1000)
	return want(err, rpctypes.ErrFutureRev)
}

func (s *suite) status() error {
	status, err := s.client.Status(s.ctx, s.client.Endpoints()[0])
	if err != nil {
		return err
	}
	if status.Version == "" || status.DbSize <= 0 || status.DbSizeInUse <= 0 || status.Leader != status.Header.MemberId ||
		status.RaftTerm == 0 || status.RaftIndex == 0 || status.RaftAppliedIndex == 0 || status.IsLearner || len(status.Errors) != 0 {
		return fmt.Errorf("got %v", status)
	}
	return nil
}

func (s *suite) memberList() error {
	list, err := s.client.MemberList(s.ctx)
	if err != nil {
		return err
	}
	if len(list.Members) != 1 {
		return fmt.Errorf("got %v", list)
	}
	member := list.Members[0]
	if member.ID != list.Header.MemberId || member.Name != "one" || len(member.PeerURLs) != 1 || member.IsLearner ||
		!reflect.DeepEqual(member.ClientURLs, s.client.Endpoints()) {
		return fmt.Errorf("got %v", list)
	}
	return nil
}

func (s *suite) alarm() error {
	list, err := s.client.AlarmList(s.ctx)
	if err != nil {
		return err
	}
	if len(list.Alarms) != 0 {
		return fmt.Errorf("got %v", list)
	}
	none, err := s.client.AlarmDisarm(s.ctx, &clientv3.AlarmMember{})
	if err != nil {
		return err
	}
	if len(none.Alarms) != 0 {
		return fmt.Errorf("got %v", none)
	}
	return nil
}

func (s *suite) hash() error {
	endpoint := s.client.Endpoints()[0]
	// At the compacted revision etcd answers with the hash it kept from the compaction, so go past it first.
	if _, err := s.client.Put(s.ctx, prefix+"hash", "0"); err != nil {
		return err
	}
	first, err := s.client.HashKV(s.ctx, endpoint, 0)
	if err != nil {
		return err
	}
	again, err := s.client.HashKV(s.ctx, endpoint, first.Header.Revision)
	if err != nil {
		return err
	}
	if first.Hash != again.Hash {
		return fmt.Errorf("one revision, two hashes: %v, %v", first, again)
	}
	if _, err := s.client.Put(s.ctx, prefix+"hash", "x"); err != nil {
		return err
	}
	later, err := s.client.HashKV(s.ctx, endpoint, 0)
	if err != nil {
		return err
	}
	if later.Hash == first.Hash {
		return fmt.Errorf("a put left the hash unchanged: %v", later)
	}
	return nil
}

func tlsConfig(ca, cert, key string) *tls.Config {
	pem, err := os.ReadFile(ca)
	if err != nil {
		fmt.Println("FAIL authority file:", err)
		os.Exit(1)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	config := &tls.Config{RootCAs: roots}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			fmt.Println("FAIL client certificate:", err)
			os.Exit(1)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config
}

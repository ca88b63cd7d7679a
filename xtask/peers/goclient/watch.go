// Watches through the official Go client: what they deliver, from where, and how they end. Called by main.go; every check prints its line.

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// told collects events until there are count, as words.
func told(watch clientv3.WatchChan, count int) (string, int64, error) {
	var words []string
	var revision int64
	for answer := range watch {
		if err := answer.Err(); err != nil {
			return "", 0, err
		}
		for _, event := range answer.Events {
			if event.Kv.ModRevision < revision {
				return "", 0, fmt.Errorf("revision %d after %d", event.Kv.ModRevision, revision)
			}
			revision = event.Kv.ModRevision
			word := event.Type.String() + ":" + strings.TrimPrefix(string(event.Kv.Key), prefix)
			if event.PrevKv != nil {
				word += ":" + string(event.PrevKv.Value)
			}
			words = append(words, word)
		}
		if len(words) >= count {
			return strings.Join(words, " "), revision, nil
		}
	}
	return "", 0, errors.New("the channel was closed")
}

func (s *suite) watch() error {
	if err := s.empty(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(s.ctx))
	defer cancel()
	first, err := s.client.Put(ctx, prefix+"a", "1")
	if err != nil {
		return err
	}
	from := first.Header.Revision
	watchers := []struct {
		watch clientv3.WatchChan
		want  string
	}{
		{s.client.Watch(ctx, prefix+"a", clientv3.WithRev(from)), "PUT:a PUT:a DELETE:a"},
		{s.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithPrevKV()), "PUT:a PUT:a:1 PUT:b DELETE:a:2"},
		{s.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithFilterPut()), "DELETE:a"},
		{s.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithFilterDelete()), "PUT:a PUT:a PUT:b"},
		{s.client.Watch(ctx, prefix+"b", clientv3.WithFromKey(), clientv3.WithRev(from), clientv3.WithFragment()), "PUT:b"},
		{s.client.Watch(ctx, prefix+"a", clientv3.WithRev(from+3)), "DELETE:a"},
	}
	for _, put := range [][2]string{{"a", "2"}, {"b", "3"}} {
		if _, err := s.client.Put(ctx, prefix+put[0], put[1]); err != nil {
			return err
		}
	}
	if _, err := s.client.Delete(ctx, prefix+"a"); err != nil {
		return err
	}
	for number, watcher := range watchers {
		got, _, err := told(watcher.watch, len(strings.Fields(watcher.want)))
		if err != nil {
			return fmt.Errorf("watcher %d: %w", number, err)
		}
		if got != watcher.want {
			return fmt.Errorf("watcher %d: got %q, want %q", number, got, watcher.want)
		}
	}
	return nil
}

func (s *suite) watchProgress() error {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	watch := s.client.Watch(ctx, prefix+"progress", clientv3.WithCreatedNotify())
	if answer := <-watch; !answer.Created {
		return fmt.Errorf("got %v, want the creation", answer)
	}
	put, err := s.client.Put(ctx, prefix+"elsewhere", "")
	if err != nil {
		return err
	}
	if err := s.client.RequestProgress(ctx); err != nil {
		return err
	}
	for answer := range watch {
		if !answer.IsProgressNotify() {
			return fmt.Errorf("got %v, want progress", answer)
		}
		if answer.Header.Revision == put.Header.Revision {
			return nil
		}
	}
	return errors.New("the channel was closed")
}

func (s *suite) watchCompacted() error {
	put, err := s.client.Put(s.ctx, prefix+"a", "1")
	if err != nil {
		return err
	}
	if _, err := s.client.Compact(s.ctx, put.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	answer := <-s.client.Watch(ctx, prefix+"a", clientv3.WithRev(put.Header.Revision-1))
	if answer.CompactRevision != put.Header.Revision || !errors.Is(answer.Err(), rpctypes.ErrCompacted) {
		return fmt.Errorf("got %v, %v", answer, answer.Err())
	}
	// The compact revision itself is there.
	got, _, err := told(s.client.Watch(ctx, prefix+"a", clientv3.WithRev(put.Header.Revision)), 1)
	if err != nil || got != "PUT:a" {
		return fmt.Errorf("got %q, %v", got, err)
	}
	return nil
}

// watchMany has many watchers on one stream, of which each second is cancelled.
func (s *suite) watchMany() error {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var watches []clientv3.WatchChan
	for number := 0; number < 500; number++ {
		own := ctx
		if number%2 == 1 {
			var leave context.CancelFunc
			own, leave = context.WithCancel(ctx)
			defer leave()
			watch := s.client.Watch(own, prefix+"many", clientv3.WithCreatedNotify())
			<-watch
			leave()
			for range watch {
			}
			continue
		}
		watch := s.client.Watch(own, prefix+"many", clientv3.WithCreatedNotify())
		<-watch
		watches = append(watches, watch)
	}
	for value := 0; value < 10; value++ {
		if _, err := s.client.Put(ctx, prefix+"many", fmt.Sprint(value)); err != nil {
			return err
		}
	}
	for number, watch := range watches {
		if _, _, err := told(watch, 10); err != nil {
			return fmt.Errorf("watcher %d: %w", number, err)
		}
	}
	return nil
}

// Locks, elections and software transactions of the official Go client, built on keys and leases by the client itself, and the lock and
// election services beside them in the same queues. Called by main.go; every check prints its line.

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
)

const workers = 8

// together runs body once for each worker and returns the first error.
func together(body func(worker int) error) error {
	var all sync.WaitGroup
	failed := make(chan error, workers)
	for worker := range workers {
		all.Go(func() {
			if err := body(worker); err != nil {
				failed <- fmt.Errorf("worker %d: %w", worker, err)
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// add increments a counter in a way that loses counts unless one does it at a time.
func (s *suite) add(counter string) error {
	got, err := s.client.Get(s.ctx, counter)
	if err != nil {
		return err
	}
	count := 0
	if len(got.Kvs) == 1 {
		if count, err = strconv.Atoi(string(got.Kvs[0].Value)); err != nil {
			return err
		}
	}
	_, err = s.client.Put(s.ctx, counter, strconv.Itoa(count+1))
	return err
}

func (s *suite) counted(counter string, want int) error {
	got, err := s.client.Get(s.ctx, counter)
	if err != nil {
		return err
	}
	if len(got.Kvs) != 1 || string(got.Kvs[0].Value) != strconv.Itoa(want) {
		return fmt.Errorf("counted %v, want %d", got.Kvs, want)
	}
	return nil
}

// mutex lets half of the workers lock by the client's own code and half through the lock service.
func (s *suite) mutex() error {
	if err := s.empty(); err != nil {
		return err
	}
	const rounds = 5
	name := prefix + "mutex"
	locks := v3lockpb.NewLockClient(s.client.ActiveConnection())
	err := together(func(worker int) error {
		session, err := concurrency.NewSession(s.client, concurrency.WithTTL(60))
		if err != nil {
			return err
		}
		defer session.Close()
		for range rounds {
			if worker%2 == 0 {
				mutex := concurrency.NewMutex(session, name)
				if err := mutex.Lock(s.ctx); err != nil {
					return err
				}
				if err := s.add(prefix + "count"); err != nil {
					return err
				}
				if err := mutex.Unlock(s.ctx); err != nil {
					return err
				}
				continue
			}
			request := &v3lockpb.LockRequest{Name: []byte(name), Lease: int64(session.Lease())}
			locked, err := locks.Lock(s.ctx, request)
			if err != nil {
				return err
			}
			if err := s.add(prefix + "count"); err != nil {
				return err
			}
			if _, err := locks.Unlock(s.ctx, &v3lockpb.UnlockRequest{Key: locked.Key}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.counted(prefix+"count", workers*rounds)
}

func (s *suite) tryLock() error {
	if err := s.empty(); err != nil {
		return err
	}
	one, err := concurrency.NewSession(s.client)
	if err != nil {
		return err
	}
	defer one.Close()
	two, err := concurrency.NewSession(s.client)
	if err != nil {
		return err
	}
	defer two.Close()
	held, wanted := concurrency.NewMutex(one, prefix+"try"), concurrency.NewMutex(two, prefix+"try")
	if err := held.TryLock(s.ctx); err != nil {
		return err
	}
	if err := wanted.TryLock(s.ctx); !errors.Is(err, concurrency.ErrLocked) {
		return fmt.Errorf("trying a lock that is held: %v", err)
	}
	short, cancel := context.WithTimeout(s.ctx, 200*time.Millisecond)
	defer cancel()
	if err := wanted.Lock(short); !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("waiting for a lock that is held: %v", err)
	}
	got, err := s.client.Get(s.ctx, prefix+"try/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	if got.Count != 1 || string(got.Kvs[0].Key) != held.Key() {
		return fmt.Errorf("left in the queue: %v", got.Kvs)
	}
	// An owner that is gone holds nothing.
	if err := one.Close(); err != nil {
		return err
	}
	return wanted.Lock(s.ctx)
}

// election lets workers lead in turn, by the client's own code and through the service, and an observer hear every one of them.
func (s *suite) election() error {
	if err := s.empty(); err != nil {
		return err
	}
	name := prefix + "election"
	service := v3electionpb.NewElectionClient(s.client.ActiveConnection())
	watching, err := concurrency.NewSession(s.client)
	if err != nil {
		return err
	}
	defer watching.Close()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	heard := concurrency.NewElection(watching, name).Observe(ctx)
	// Each waits until the observer has heard it, so that none is passed over.
	turn := make(chan string)
	go func() {
		for answer := range heard {
			turn <- string(answer.Kvs[0].Value)
		}
	}()
	var leading sync.Mutex
	err = together(func(worker int) error {
		session, err := concurrency.NewSession(s.client)
		if err != nil {
			return err
		}
		defer session.Close()
		value := strconv.Itoa(worker)
		lead := func() error {
			if !leading.TryLock() {
				return errors.New("two lead")
			}
			defer leading.Unlock()
			for said := range turn {
				if said == value {
					return nil
				}
			}
			return errors.New("nobody tells who leads")
		}
		if worker%2 == 0 {
			election := concurrency.NewElection(session, name)
			if err := election.Campaign(s.ctx, value); err != nil {
				return err
			}
			if err := lead(); err != nil {
				return err
			}
			return election.Resign(s.ctx)
		}
		request := &v3electionpb.CampaignRequest{Name: []byte(name), Lease: int64(session.Lease()), Value: []byte(value)}
		won, err := service.Campaign(s.ctx, request)
		if err != nil {
			return err
		}
		if err := lead(); err != nil {
			return err
		}
		now, err := service.Leader(s.ctx, &v3electionpb.LeaderRequest{Name: []byte(name)})
		if err != nil {
			return err
		}
		if string(now.Kv.Value) != value || string(now.Kv.Key) != string(won.Leader.Key) {
			return fmt.Errorf("somebody else leads: %v", now.Kv)
		}
		_, err = service.Resign(s.ctx, &v3electionpb.ResignRequest{Leader: won.Leader})
		return err
	})
	if err != nil {
		return err
	}
	_, err = concurrency.NewElection(watching, name).Leader(s.ctx)
	if !errors.Is(err, concurrency.ErrElectionNoLeader) {
		return fmt.Errorf("after all resigned: %v", err)
	}
	return nil
}

// transactions moves money between accounts, at every level of isolation.
func (s *suite) transactions() error {
	const accounts, start, moves = 5, 100, 10
	for _, level := range []concurrency.Isolation{concurrency.SerializableSnapshot, concurrency.Serializable, concurrency.RepeatableReads} {
		if err := s.empty(); err != nil {
			return err
		}
		account := func(n int) string { return prefix + "account/" + strconv.Itoa(n%accounts) }
		for n := range accounts {
			if _, err := s.client.Put(s.ctx, account(n), strconv.Itoa(start)); err != nil {
				return err
			}
		}
		err := together(func(worker int) error {
			for move := range moves {
				from, to := account(worker+move), account(worker*3+move+1)
				if from == to {
					continue
				}
				body := func(stm concurrency.STM) error {
					has, err := strconv.Atoi(stm.Get(from))
					if err != nil {
						return err
					}
					other, err := strconv.Atoi(stm.Get(to))
					if err != nil {
						return err
					}
					stm.Put(from, strconv.Itoa(has-move))
					stm.Put(to, strconv.Itoa(other+move))
					return nil
				}
				if _, err := concurrency.NewSTM(s.client, body, concurrency.WithIsolation(level)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		got, err := s.client.Get(s.ctx, prefix+"account/", clientv3.WithPrefix())
		if err != nil {
			return err
		}
		sum := 0
		for _, kv := range got.Kvs {
			has, err := strconv.Atoi(string(kv.Value))
			if err != nil {
				return err
			}
			sum += has
		}
		if sum != accounts*start {
			return fmt.Errorf("level %v: %d in all accounts, want %d", level, sum, accounts*start)
		}
	}
	return nil
}

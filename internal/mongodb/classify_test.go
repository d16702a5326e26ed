package mongodb_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/tributarydb/tributary/internal/mongodb"
	"github.com/tributarydb/tributary/internal/retry"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/topology"
)

func TestClassify(t *testing.T) {
	command := func(code int32, labels ...string) error { return mongo.CommandError{Code: code, Labels: labels} }
	for name, test := range map[string]struct {
		err  error
		want retry.Verdict
	}{
		"none":                         {nil, retry.Stop},
		"canceled":                     {fmt.Errorf("x: %w", context.Canceled), retry.Stop},
		"deadline":                     {context.DeadlineExceeded, retry.Connection},
		"client closed":                {mongo.ErrClientDisconnected, retry.Stop},
		"refused":                      {&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, retry.Connection},
		"end of file":                  {fmt.Errorf("read: %w", io.EOF), retry.Connection},
		"no server":                    {topology.ServerSelectionError{Wrapped: errors.New("timeout")}, retry.Connection},
		"connection":                   {topology.ConnectionError{Wrapped: io.EOF}, retry.Connection},
		"network in a transaction":     {command(0, "NetworkError", "TransientTransactionError"), retry.Connection},
		"authentication":               {command(18), retry.Stop},
		"authentication in handshake":  {topology.ConnectionError{Wrapped: command(18)}, retry.Stop},
		"unauthorized":                 {command(13), retry.Stop},
		"bad value":                    {command(2), retry.Stop},
		"no such command":              {command(59), retry.Stop},
		"index conflict":               {command(86), retry.Stop},
		"duplicate key":                {mongo.WriteException{WriteErrors: mongo.WriteErrors{{Code: 11000}}}, retry.Stop},
		"not primary":                  {command(10107, "RetryableWriteError"), retry.Connection},
		"stepdown":                     {command(11602), retry.Connection},
		"shutdown":                     {command(91), retry.Connection},
		"write concern timeout":        {mongo.WriteException{WriteConcernError: &mongo.WriteConcernError{Code: 64}}, retry.Connection},
		"write concern of DDL":         {driver.WriteCommandError{WriteConcernError: &driver.WriteConcernError{Code: 11602}}, retry.Connection},
		"write conflict":               {command(112, "TransientTransactionError"), retry.Now},
		"transaction gone":             {command(251, "TransientTransactionError"), retry.Now},
		"transient without known code": {command(0, "TransientTransactionError"), retry.Now},
		"unknown commit result":        {command(0, "UnknownTransactionCommitResult"), retry.Now},
		"retryable write":              {command(0, "RetryableWriteError"), retry.Connection},
		"cursor gone":                  {command(43), retry.Now},
		"history lost":                 {command(136), retry.Stop},
		"time limit of the command":    {command(50), retry.Other},
		"unknown code":                 {command(4242), retry.Other},
		"unknown":                      {errors.New("something"), retry.Other},
		"marshal":                      {mongo.MarshalError{Err: errors.New("x")}, retry.Stop},
		"unsuitable":                   {fmt.Errorf("x: %w", &mongodb.UnsuitableError{Part: "source"}), retry.Stop},
		"gravest of several": {mongo.BulkWriteException{
			WriteConcernError: &mongo.WriteConcernError{Code: 64},
			WriteErrors:       []mongo.BulkWriteError{{WriteError: mongo.WriteError{Code: 11000}}},
		}, retry.Stop},
	} {
		t.Run(name, func(t *testing.T) {
			if got := mongodb.Classify(test.err); got != test.want {
				t.Errorf("%v: %s, want %s", test.err, got, test.want)
			}
		})
	}
}

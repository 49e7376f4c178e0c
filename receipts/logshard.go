package receipts

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ/internal/durable"
)

// A log that cannot go on is frozen, and its next shard begun. It has all receipts of the
// ledger again, each under its sequence, and another name: that of the log, which
// receipts state, with a label before it that says which shard it is. So a checkpoint
// of the one is never taken for one of the other, whatever their keys are.

// FileLogShard, in the directory of keys, says which shard the log is at. Without it that
// is the first.
const FileLogShard = "log.shard"

const maxShard = 9999

// LogShard is the shard that the log of a directory of keys is at, from 1.
func LogShard(dir string) (int, error) {
	path := filepath.Join(dir, FileLogShard)
	text, err := readKeyFile(path, false)
	if errors.Is(err, fs.ErrNotExist) {
		return 1, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n < 2 || n > maxShard {
		return 0, refuse(path, errors.New("is not the number of a shard"), "restore it from a backup of the keys; the log names its shards s2, s3 and so on")
	}
	return n, nil
}

// SetLogShard has the log go on with a shard. What it is at must be frozen by then.
func SetLogShard(dir string, n int) error {
	if n < 2 || n > maxShard {
		return refuse(filepath.Join(dir, FileLogShard), errors.New("this log has had as many shards as one may have"), "begin with a new store, new keys and another origin")
	}
	path := filepath.Join(dir, FileLogShard)
	if err := durable.Replace(path, []byte(strconv.Itoa(n)+"\n"), 0o644); err != nil {
		return refuse(path, err, "let the gateway's user write to the directory")
	}
	return nil
}

// ShardDir is where the files of a shard are, below those of the first.
func ShardDir(n int) string {
	if n == 1 {
		return ""
	}
	return "s" + strconv.Itoa(n)
}

// ShardName is the name of a shard of the log that receipts name origin.
func ShardName(origin string, n int) string {
	if n == 1 {
		return origin
	}
	return ShardDir(n) + "." + origin
}

// OfLog says whether a log of this name is one of origin, which its receipts name: the
// first shard, or a later one.
func OfLog(name, origin string) bool {
	if name == origin {
		return true
	}
	label, ok := strings.CutSuffix(name, "."+origin)
	if !ok || len(label) < 2 || label[0] != 's' || label[1] == '0' {
		return false
	}
	n, err := strconv.ParseUint(label[1:], 10, 31)
	return err == nil && n >= 2 && n <= maxShard
}

// logKeyFiles are the names of the log's key in a directory of keys.
func logKeyFiles(dir string) (private, public string, err error) {
	n, err := LogShard(dir)
	if err != nil {
		return "", "", err
	}
	return shardKey(dir, n)
}

// shardKey are the names of the key of a shard: that of the one before unless it was begun
// with another.
func shardKey(dir string, n int) (private, public string, err error) {
	for ; n > 1; n-- {
		private, public = shardKeyFiles(n)
		if there, err := exists(filepath.Join(dir, public)); err != nil || there {
			return private, public, err
		}
	}
	return FileLogKey, FileLogPublic, nil
}

// shardKeyFiles are the names of a key that a shard was begun with.
func shardKeyFiles(n int) (private, public string) {
	return "log-" + strconv.Itoa(n) + ".key", "log-" + strconv.Itoa(n) + ".pub"
}

// ReadLogPublic reads the public half of the log's key, PEM.
func ReadLogPublic(dir string) (text []byte, path string, err error) {
	n, err := LogShard(dir)
	if err != nil {
		return nil, "", err
	}
	return ReadShardPublic(dir, n)
}

// ReadShardPublic reads the public half of the key that a shard has, or has once it is begun.
func ReadShardPublic(dir string, n int) (text []byte, path string, err error) {
	_, name, err := shardKey(dir, n)
	if err != nil {
		return nil, "", err
	}
	path = filepath.Join(dir, name)
	text, err = os.ReadFile(path)
	return text, path, err
}

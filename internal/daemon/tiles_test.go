package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTilesAreSomewhere(t *testing.T) {
	for given, want := range map[string]tilesAt{
		"":          {},
		"s3://logs": {bucket: "logs"},
		"s3://logs.example.org/a/b/?region=eu-west-1": {bucket: "logs.example.org", prefix: "a/b/", region: "eu-west-1"},
		"s3://logs/x?endpoint=http://127.0.0.1:9000":  {bucket: "logs", prefix: "x/", endpoint: "http://127.0.0.1:9000"},
	} {
		if got, err := (Config{Tiles: given}).tilesAt(); err != nil || got != want {
			t.Errorf("%q: %+v, %v", given, got, err)
		}
	}
	for _, bad := range []string{
		"logs", "/var/log", "s3://", "s3:///x", "https://logs", "s3://u:p@logs/x", "s3://logs/a b", "s3://logs/a//b", "s3://LOGS/x", "s3://logs/x?key=y", "s3://logs/x?region=a&region=b",
		"s3://logs/x?endpoint=ftp://h", "s3://logs/x#y", "s3://logs/x?region=a.b",
	} {
		if got, err := (Config{Tiles: bad}).tilesAt(); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

// Secrets are in a file that is its owner's, or in the environment, and in no message.
func TestCredentialsOfTiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	env := map[string]string{}
	get := func(name string) string { return env[name] }
	write("[default]\naws_access_key_id = A\naws_secret_access_key=the secret/+=\naws_session_token = T\n[other]\naws_access_key_id = B\n", 0o600)
	if c, err := tilesCredentials(file, get); err != nil || c.AccessKey != "A" || c.Secret != "the secret/+=" || c.Token != "T" {
		t.Errorf("%+v, %v", c, err)
	}
	for text, mode := range map[string]os.FileMode{"aws_access_key_id = A\naws_secret_access_key = secret\n": 0o640, "aws_secret_access_key = secret": 0o600, "": 0o600} {
		write(text, mode)
		if c, err := tilesCredentials(file, get); err == nil || strings.Contains(err.Error(), "= secret") || c.Secret != "" {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
	if _, err := tilesCredentials(file+"none", get); err == nil {
		t.Error("there is no file")
	}
	if _, err := tilesCredentials("", get); err == nil || !strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") {
		t.Errorf("nothing is there: %v", err)
	}
	env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"] = "E", "s"
	if c, err := tilesCredentials("", get); err != nil || c.AccessKey != "E" || c.Token != "" {
		t.Errorf("%+v, %v", c, err)
	}
}

package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Credentials sign requests.
type Credentials struct {
	AccessKey, Secret string
	Token             string // of a session; empty: none
}

// plainPaths leaves paths as they are, which S3 alone wants.
func plainPaths(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }

// Authorize adds AWS Signature Version 4 to a request, whose body has a digest.
func (c Credentials) Authorize(ctx context.Context, r *http.Request, region string, digest [sha256.Size]byte, now time.Time) error {
	sum := hex.EncodeToString(digest[:])
	r.Header.Set("X-Amz-Content-Sha256", sum)
	keys := aws.Credentials{AccessKeyID: c.AccessKey, SecretAccessKey: c.Secret, SessionToken: c.Token}
	// A signer of its own: one that was used keeps what it made of another secret for the same access key.
	return v4.NewSigner(plainPaths).SignHTTP(ctx, keys, r, sum, "s3", region, now)
}

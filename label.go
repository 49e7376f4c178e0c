package writ

import "slices"

// Label classifies data. A value carries a set of labels; joining two values
// joins their sets. The list is closed: an unknown label is treated as
// LabelPIIChatMessage, the most restrictive kind of personal data.
type Label string

const (
	LabelPublic            Label = "public"
	LabelInternalSystem    Label = "internal.system"
	LabelPIIChatMessage    Label = "pii.chat.message"
	LabelPIIChatMetadata   Label = "pii.chat.metadata"
	LabelPIIAttachment     Label = "pii.attachment"
	LabelPIIRedacted       Label = "pii.redacted"
	LabelSecretCredential  Label = "secret.credential"
	LabelSecretToken       Label = "secret.token"
	LabelExternalUntrusted Label = "external.untrusted"
)

// Labels lists every label there is.
func Labels() []Label {
	return []Label{
		LabelPublic, LabelInternalSystem, LabelPIIChatMessage, LabelPIIChatMetadata, LabelPIIAttachment,
		LabelPIIRedacted, LabelSecretCredential, LabelSecretToken, LabelExternalUntrusted,
	}
}

// Sink is a place data can flow to.
type Sink string

const (
	SinkEgress Sink = "egress"
	SinkMemory Sink = "memory"
	SinkLog    Sink = "log"
	SinkAgent  Sink = "agent"
)

// Sinks lists every sink there is.
func Sinks() []Sink { return []Sink{SinkEgress, SinkMemory, SinkLog, SinkAgent} }

// JoinLabels is the union of label sets, sorted, unknown labels replaced by
// LabelPIIChatMessage. Callers can only raise: nothing is ever removed.
func JoinLabels(sets ...[]Label) []Label {
	var out []Label
	for _, set := range sets {
		for _, l := range set {
			if !slices.Contains(Labels(), l) {
				l = LabelPIIChatMessage
			}
			if !slices.Contains(out, l) {
				out = append(out, l)
			}
		}
	}
	slices.Sort(out)
	return out
}

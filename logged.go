package writ

// LogSize is how many receipts a checkpoint of the transparency log covers, for the
// replicas that do not write it: it is what the one that does has said last, and the
// log has at least that many.
func LogSize() Counter { return Counter{"log", "size"} }

// IndexCheckpoint has the checkpoint that LogSize is of, for the same replicas: its one
// member is that as replies carry it, its score the size.
const IndexCheckpoint Index = "log/checkpoint"

// StatusUnlogged is the Status of Unlogged.
const StatusUnlogged = "pending_log"

// Unlogged is the answer to a call that is done and was to be answered once its receipt
// is in the transparency log, when that takes too long. The change stands.
type Unlogged struct {
	Status  string    `json:"status" doc:"Always pending_log: the call is done, and no checkpoint of the transparency log covers its receipt yet." enum:"pending_log"`
	Receipt ReceiptID `json:"receipt" doc:"Receipt of the call."`
	Hint    string    `json:"hint" doc:"What to do next."`
}

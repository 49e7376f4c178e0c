package workflow

import (
	"fmt"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

// checkArtifacts holds what a step makes, and what it is given, to what the gateway
// takes, and what it is given to what the steps before it make.
func (w Workflow) checkArtifacts(key string, here func(string, ...any)) {
	s := w.Steps[key]
	for i, p := range s.Produces {
		most := int64(writ.MaxArtifactBytes)
		if p.Schema != nil {
			most = writ.MaxCheckedBytes
			if _, object := p.Schema.(map[string]any); !object {
				here("must be an object", "produces", i, "schema")
			} else if length(p.Schema) > writ.MaxArtifactSchema {
				here(fmt.Sprintf("is longer than %d", writ.MaxArtifactSchema), "produces", i, "schema")
			} else if p.MediaType != "application/json" && !strings.HasSuffix(p.MediaType, "+json") {
				here("is for JSON only", "produces", i, "schema")
			}
		}
		if !writ.ValidArtifactName(p.Name) {
			here("is no name of an artifact", "produces", i, "name")
		}
		if slices.ContainsFunc(s.Produces[:i], func(o client.Produce) bool { return o.Name == p.Name }) {
			here("is declared twice", "produces", i, "name")
		}
		if !writ.ValidMediaType(p.MediaType) {
			here("must be a media type in small letters, without parameters", "produces", i, "media_type")
		}
		if p.MaxBytes < 0 || p.MaxBytes > most {
			here(fmt.Sprintf("must be at most %d", most), "produces", i, "max_bytes")
		}
		for j, l := range p.Labels {
			if !slices.Contains(writ.Labels(), l) {
				here("is no label", "produces", i, "labels", j)
			}
		}
	}
	for i, c := range s.Consumes {
		w.checkGiven(key, i, c, here)
	}
}

// checkGiven finds the step that makes what another one is given.
func (w Workflow) checkGiven(key string, i int, c client.Consume, here func(string, ...any)) {
	if slices.ContainsFunc(w.Steps[key].Consumes[:i], func(o client.Consume) bool { return o.Name == c.Name && o.From == c.From }) {
		here("is declared twice", "consumes", i)
	}
	before := w.Before(key)
	at := slices.IndexFunc(before, func(e Edge) bool { return e.Key == c.From })
	if at < 0 {
		here("must be a step this one depends on", "consumes", i, "from")
		return
	}
	made := w.Steps[c.From].Produces
	j := slices.IndexFunc(made, func(p client.Produce) bool { return p.Name == c.Name })
	switch {
	case j < 0:
		here("is nothing the step "+named(c.From)+" makes", "consumes", i, "name")
	case c.MediaType != "" && c.MediaType != made[j].MediaType:
		here("is not what the step "+named(c.From)+" makes", "consumes", i, "media_type")
	case c.Optional:
	case !made[j].Required:
		here("must be true: the step "+named(c.From)+" can be completed without it", "consumes", i, "optional")
	case w.Steps[key].Join.Any():
		here("must be true: this step begins when another one it depends on has ended", "consumes", i, "optional")
	case before[at].OnFailure == writ.DependencyContinue, before[at].When == writ.EndFailed:
		here("must be true: this step goes on when the step "+named(c.From)+" fails", "consumes", i, "optional")
	}
}

// checkOutputs: what a run gives some step makes, and is not completed without.
func (w Workflow) checkOutputs(bad func(string, ...any)) {
	if len(w.Outputs) > writ.MaxOutputs {
		bad(fmt.Sprintf("are more than %d", writ.MaxOutputs), "outputs")
		return
	}
	for _, name := range sorted(w.Outputs) {
		o := w.Outputs[name]
		i := slices.IndexFunc(w.Steps[o.From].Produces, func(p client.Produce) bool { return p.Name == o.Name })
		switch _, known := w.Steps[o.From]; {
		case !writ.ValidArtifactName(name):
			bad("is no name of an output", "outputs", name)
		case !known:
			bad("names no step", "outputs", name, "from")
		case i < 0:
			bad("is nothing the step "+named(o.From)+" makes", "outputs", name, "name")
		case !w.Steps[o.From].Produces[i].Required:
			bad("can be missing: the step "+named(o.From)+" can be completed without it", "outputs", name, "name")
		}
	}
}

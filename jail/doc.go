// Package jail runs an agent where it can reach one door and nothing else. It knows nothing of
// what is behind the door.
//
//	jailer := jail.New(jail.Options{})
//	j, err := jailer.Spawn(ctx, jail.Spec{ID: "run-7", Profile: jail.Strict(), Agent: jail.Program{Path: "/opt/agent"}})
//	tcp, unix := j.Listeners() // serve on both: whoever speaks there is this agent
//	err = j.Go()               // only now the agent starts
//	exit := j.Wait()
//
// Spawn builds everything and waits; Go starts the agent, so what must be written or listening
// before it runs can be. The listeners were opened inside the jail, on an interface that leads
// nowhere, and came out as descriptors: no path, port or token of the host is needed to know who
// calls. Closing them is revoking the agent.
//
// What carries what: the empty network namespace is why nothing else can be reached, the new
// root why nothing else can be read, the user namespace without uid 0 why nothing can be had
// back. The system call filter keeps the agent from most of the kernel, Landlock says once more what
// the mounts say, limits and the control group bound what is used. See docs/jail.md.
//
// A missing feature is a *Refusal with its name and what to change. Nothing is ever started with
// less than its profile asks for, and there is no way to ask for no jail.
package jail

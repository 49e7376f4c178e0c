package main

// rolesHelp is what one has to know before the verbs, which are made from the
// capabilities.
const rolesHelp = `Bind people to roles, and see who may do what.

A call needs two things: its principal is bound to the role of its session, and the role may invoke
the capability. roles/policy.csv of the bundle in force says both; role bind and role unbind change
the first while the gateway runs, in one commit, for the very next call on every replica.

As shipped everybody who has a session is bound to every role (principal *): whoever opens a session
vouches for it. To close a role, bind people by name, then take everybody's binding away:

  writ role bind --principal alice --role approver
  writ role unbind --principal '*' --role approver

To take a role from one principal, whatever binds it:

  writ role unbind --principal mallory --role executor

Who is bound, where that is said and by whom; and what somebody may do, row by row:

  writ role list --role approver
  writ role permissions --principal alice
  writ role permissions                      # what may I do?

What is bound and unbound here stays when another bundle becomes active. Nobody can give himself a
role he does not have. As shipped everybody has every role, so that one machine works at once: close
what matters, then look at writ role list --role R. No call leaves the gateway without an operator: the principal operator is whoever may read operator.token, and keeps the role.`
